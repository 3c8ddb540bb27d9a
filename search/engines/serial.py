"""One candidate after the other: for a machine that is device and trainer in one, where nothing may overlap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean
from typing import Protocol, runtime_checkable

import optuna

from evaluators.evaluator import Evaluator
from evaluators.measurement import Failure, Latency, Measurement
from search import study as studies
from search.choice import ranked
from search.funnel import Gates, evaluate
from search.live import View
from spaces.candidate import Candidate
from spaces.space import Points


@dataclass(frozen=True)
class Limits:
    """When to stop asking."""

    trials: int
    seconds_left: Callable[[], float]  # of the user's time limit; infinite without one
    finishing: Callable[[list[float]], float]  # seconds to keep for the end, from the trials' own seconds
    costs: Callable[[], tuple[float, float]] = lambda: (1.0, 120.0)  # seconds of a timing, and of a training


@runtime_checkable
class Heeds(Protocol):
    """A sampler that asks for latencies before it proposes, since they cost less than trainings."""

    def to_time(self, latency_s: float, training_s: float) -> list[Candidate]: ...
    def timed(self, key: str, found: Latency | Failure) -> None: ...
    def ended(self, measurement: Measurement) -> None: ...


@dataclass
class Searched:
    """What came of the loop."""

    measurements: list[Measurement]
    ran_dry: bool = False  # no candidate was left to ask for


def run(study: optuna.Study, space: Points, evaluator: Evaluator, gates: Gates, limits: Limits, view: View) -> Searched:
    """Every trial up to the limits, those of earlier sessions first: their stages are remembered, not repeated."""
    plain = frozenset(space.parents())
    searched = Searched([])
    for trial, candidate in studies.told(study, space):
        _, measurement = _measure(candidate, trial.number, evaluator, gates, searched, plain, view)
        searched.measurements.append(measurement)
        _tell(study, measurement)
    seen = {m.candidate.key() for m in searched.measurements}
    if not study.get_trials(deepcopy=False):
        for parent in space.parents():
            study.enqueue_trial(dict(space.params_of(parent)))
    trial_s: list[float] = []
    while len(searched.measurements) < limits.trials:
        if trial_s and limits.seconds_left() < mean(trial_s) + limits.finishing(trial_s):
            view.log("the time limit is near: no further trial")
            break
        _probe(study, evaluator, gates, limits, view)
        asked = studies.ask(study, space, seen)
        if asked is None:
            view.log(f"every candidate of the space has been evaluated after {len(seen)} trials")
            searched.ran_dry = True
            break
        seen.add(asked.candidate.key())
        spent, measurement = _measure(asked.candidate, asked.trial.number, evaluator, gates, searched, plain, view)
        trial_s.append(spent)
        studies.tell(study, asked.trial, measurement, gates.budget)
        searched.measurements.append(measurement)
        _tell(study, measurement)
        best = ranked(searched.measurements, gates.budget, None)
        view.outcome(measurement, best[0] if best else None)
    return searched


def _probe(study: optuna.Study, evaluator: Evaluator, gates: Gates, limits: Limits, view: View) -> None:
    """Times what a sampler that heeds latencies wants to know before it is asked."""
    sampler = study.sampler
    if isinstance(sampler, Heeds):
        for candidate in sampler.to_time(*limits.costs()):
            view.doing(f"timing {candidate.describe()}, which may be worth a trial")
            sampler.timed(candidate.key(), evaluator.latency(candidate, gates.budget.latency_ms))


def _tell(study: optuna.Study, measurement: Measurement) -> None:
    if isinstance(study.sampler, Heeds):
        study.sampler.ended(measurement)


def _measure(
    candidate: Candidate,
    number: int,
    evaluator: Evaluator,
    gates: Gates,
    searched: Searched,
    plain: frozenset[Candidate],
    view: View,
) -> tuple[float, Measurement]:
    """Seconds it took, and the measurement."""
    began = time.monotonic()
    measurement = evaluate(candidate, evaluator, gates, searched.measurements, candidate in plain, view.doing)
    return time.monotonic() - began, replace(measurement, trial=number)
