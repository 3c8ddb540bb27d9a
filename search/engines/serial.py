"""One candidate after the other: for a machine that is device and trainer in one, where nothing may overlap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

import optuna

from evaluators.measurement import KEPT, Measurement
from search import study as studies
from search.choice import ranked
from search.funnel import Gates, evaluate
from search.heeding import Costs, Heeds
from search.live import View
from search.probing import listen, probe
from search.remembered import Remembered
from spaces.candidate import Candidate
from spaces.space import Points


@dataclass(frozen=True)
class Limits:
    """When to stop asking."""

    trials: int | None  # None: as many as the time allows
    seconds_left: Callable[[], float]  # of the user's time limit; infinite without one
    finishing_s: Callable[[], float]  # seconds to keep for the end
    costs: Callable[[], Costs] = lambda: Costs(1.0, None, 120.0)


@dataclass
class Searched:
    """What came of the loop."""

    measurements: list[Measurement]
    ran_dry: bool = False  # no candidate was left to ask for


def run(
    study: optuna.Study, space: Points, evaluator: Remembered, gates: Gates, limits: Limits, view: View
) -> Searched:
    """Every trial up to the limits, those of earlier sessions first: their stages are remembered, not repeated."""
    plain = frozenset(space.parents())
    searched = Searched([])
    listen(study, evaluator, gates)
    for trial, candidate in studies.told(study, space):
        _measure(candidate, trial.number, evaluator, gates, searched, plain, view)
        _learn(study, evaluator, searched.measurements[-1], plain)
    seen = {m.candidate.key() for m in searched.measurements}
    if not study.get_trials(deepcopy=False):
        for parent in space.parents():
            study.enqueue_trial(dict(space.params_of(parent)))
    trial_s: list[float] = []

    def in_time() -> bool:
        return not trial_s or limits.seconds_left() >= mean(trial_s) + limits.finishing_s()

    while limits.trials is None or len(searched.measurements) < limits.trials:
        if not in_time():
            view.log("the time limit is near: no further trial")
            break
        began = time.monotonic()
        if not studies.queued(study):  # the plain networks come first: they tell what a timing and a training cost
            probe(study, evaluator, gates, limits.costs(), in_time, searched.measurements, view)
        asked = studies.ask(study, space, seen)
        if asked is None:
            view.log(f"every candidate of the space has been evaluated after {len(seen)} trials")
            searched.ran_dry = True
            break
        seen.add(asked.candidate.key())
        measurement = _measure(asked.candidate, asked.trial.number, evaluator, gates, searched, plain, view)
        trial_s.append(time.monotonic() - began)
        studies.tell(study, asked.trial, measurement, gates.budget)
        _learn(study, evaluator, measurement, plain)
        best = ranked(searched.measurements, gates.budget, None)
        view.outcome(measurement, best[0] if best else None)
    return searched


def _learn(study: optuna.Study, evaluator: Remembered, measurement: Measurement, plain: frozenset[Candidate]) -> None:
    """Tells the sampler what a training took. A plain network's is its parent's and says nothing of others."""
    sampler, seconds = study.sampler, evaluator.training_s(measurement.candidate)
    if isinstance(sampler, Heeds) and measurement.outcome == KEPT and measurement.candidate not in plain and seconds:
        sampler.trained(measurement.candidate.key(), seconds)


def _measure(
    candidate: Candidate,
    number: int,
    evaluator: Remembered,
    gates: Gates,
    searched: Searched,
    plain: frozenset[Candidate],
    view: View,
) -> Measurement:
    """The measurement, added to what was searched. What was trained before is not held back now."""
    if evaluator.training_s(candidate) is not None:
        gates = replace(gates, less_cut=lambda cut: ())
    measurement = evaluate(candidate, evaluator, gates, searched.measurements, candidate in plain, view.doing)
    searched.measurements.append(replace(measurement, trial=number))
    return searched.measurements[-1]
