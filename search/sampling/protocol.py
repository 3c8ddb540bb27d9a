"""Define the protocol of samplers that request latency measurements and low-fidelity trainings before a trial."""

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
    """Hold the seconds that a stage of one candidate has taken so far.

    Attributes:
        latency_s: Seconds of one timing.
        brief_s: Seconds of one low-fidelity training; None if there is no low fidelity.
        training_s: Seconds of all rungs of a candidate that passes every stage limit.
        seconds_left: Remaining seconds of the time limit; infinite where trials are counted instead.
    """

    latency_s: float
    brief_s: float | None
    training_s: float
    seconds_left: float = math.inf


@runtime_checkable
class MultiFidelitySampler(Protocol):
    """Describe a sampler that requests latencies and short trainings and receives their results.

    Both cost less than a trial. The sampler learns of trials from the study. A key is `Candidate.key()`; a key that is
    no candidate of the space is ignored.
    """

    def start_from(self, earlier: PriorRun) -> None:
        """Use an earlier run's measurements of these candidates; this is called before the first proposal."""
        ...

    def request_latencies(self, study: optuna.Study, costs: StageCosts) -> list[Candidate]:
        """Return candidates to time before the next trial, most promising first.

        Args:
            study: Study with all trials so far.
            costs: Seconds that each stage takes.
        """
        ...

    def is_opening(self, costs: StageCosts) -> bool:
        """Return True while further latencies should be measured before anything is trained.

        Args:
            costs: Seconds that each stage takes.
        """
        ...

    def request_remeasurements(self) -> list[Candidate]:
        """Return candidates to remeasure, because their first latency is probably an outlier."""
        ...

    def request_low_fidelity(self) -> list[Candidate]:
        """Return candidates that should be trained at low fidelity before the next trial."""
        ...

    def on_latency(self, key: str, found: Latency | Failure) -> None:
        """Record a latency; the last one of a candidate is the one that counts.

        Args:
            key: Key of the candidate.
            found: Latency pooled over all timings, or the failure.
        """
        ...

    def on_low_fidelity(self, key: str, found: Accuracy | Failure) -> None:
        """Record a low-fidelity accuracy.

        Args:
            key: Key of the candidate.
            found: Accuracy, or the failure.
        """
        ...

    def on_training_time(self, key: str, seconds: float) -> None:
        """Record the training time of a candidate that passed every stage limit.

        Args:
            key: Key of the candidate.
            seconds: Seconds of all rungs.
        """
        ...

    def exclude(self, key: str) -> None:
        """Exclude a candidate that failed a stage limit."""
        ...
