"""One candidate after the other: for a machine that is device and trainer in one, where nothing may overlap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean

import optuna

from evaluators.evaluator import Evaluator
from evaluators.measurement import Measurement
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
    seen = {m.candidate.key() for m in searched.measurements}
    if not study.get_trials(deepcopy=False):
        for parent in space.parents():
            study.enqueue_trial(dict(space.params_of(parent)))
    trial_s: list[float] = []
    while len(searched.measurements) < limits.trials:
        if trial_s and limits.seconds_left() < mean(trial_s) + limits.finishing(trial_s):
            view.log("the time limit is near: no further trial")
            break
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
        best = ranked(searched.measurements, gates.budget, None)
        view.outcome(measurement, best[0] if best else None)
    return searched


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
