"""What a sampler may want before its next trial, since a latency and a short training cost less than a trial."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optuna

from evaluators.measurement import Accuracy, Failure, Latency
from search.bayesopt.observations import PriorRun
from spaces.candidate import Candidate


@dataclass(frozen=True)
class StageCosts:
    """Seconds that a stage of one candidate takes, as it has been so far."""

    latency_s: float
    brief_s: float | None  # of the low fidelity; None where there is none
    training_s: float  # all rungs of a candidate that passes every gate
    seconds_left: float = math.inf  # of the time limit; infinite where trials are counted instead


@runtime_checkable
class MultiFidelitySampler(Protocol):
    """A sampler that asks for latencies and short trainings, and is told what came of them.

    Trials it learns of from the study. A key is `Candidate.key()`; one that is no candidate of the space is ignored.
    """

    def start_from(self, earlier: PriorRun) -> None:
        """An earlier run's measurements of these candidates; before anything is asked."""
        ...

    def request_latencies(self, study: optuna.Study, costs: StageCosts) -> list[Candidate]:
        """Whose latency should be known before the next trial, most promising first."""
        ...

    def request_remeasurements(self) -> list[Candidate]:
        """Whose latency is too good to be believed at the first look."""
        ...

    def request_low_fidelity(self) -> list[Candidate]:
        """Who should be trained briefly before the next trial."""
        ...

    def on_latency(self, key: str, found: Latency | Failure) -> None:
        """One look at a latency; the last is the one that is believed."""
        ...

    def on_low_fidelity(self, key: str, found: Accuracy | Failure) -> None:
        """Accuracy at low fidelity."""
        ...

    def on_training_time(self, key: str, seconds: float) -> None:
        """What the training of a candidate that passed every gate took."""
        ...

    def exclude(self, key: str) -> None:
        """A gate stops this candidate, whatever it looks like."""
        ...
