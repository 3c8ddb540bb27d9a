"""Gets a sampler that heeds latencies what it wants before a trial, and tells it all that is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import optuna

from evaluators.measurement import KEPT, OVER_BUDGET, Failure, Latency, Measurement
from search.budget import Budget
from search.pipeline.stages import StageLimits, before_training, over
from search.progress import ProgressView
from search.sampling.protocol import MultiFidelitySampler, StageCosts
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate

DRIFT = 0.15  # share by which the reference must have become faster for what was too slow to be timed again
ROUNDS_MAX = 4  # of timings before a trial, while nothing keeps the budget


def screen_candidates(
    study: optuna.Study,
    evaluator: CachedEvaluator,
    gates: StageLimits,
    costs: StageCosts,
    in_time: Callable[[], bool],
    measured: list[Measurement],
    view: ProgressView,
) -> None:
    """Latencies first, then a second look at what is too good to be believed, then short trainings of the best.

    A second look may change what was `measured` before. Stops where it is no longer `in_time`.
    """
    sampler = study.sampler
    if not isinstance(sampler, MultiFidelitySampler):
        return
    limit_ms = gates.budget.latency_ms
    for candidate in _while(in_time, evaluator.find_outdated(limit_ms, DRIFT)):
        view.doing(f"timing {candidate.describe()} again: the device is faster than it was")
        evaluator.time_anew(candidate, limit_ms)
    something = any(m.latency and gates.budget.keeps(m.latency) for m in measured)
    for _ in range(1 if something else ROUNDS_MAX):
        latencies = []
        for candidate in _while(in_time, sampler.to_time(study, costs)):
            view.doing(f"timing {candidate.describe()}, which may be worth a trial")
            latencies.append(evaluator.latency(candidate, limit_ms))
        if not latencies or any(isinstance(found, Latency) and gates.budget.keeps(found) for found in latencies):
            break
    for candidate in _while(in_time, sampler.to_time_again()):
        view.doing(f"timing {candidate.describe()} again: it is faster than expected, or the best so far")
        latency = evaluator.latency_again(candidate, limit_ms)
        for place, m in enumerate(measured):
            if m.candidate == candidate and not isinstance(latency, Failure):
                measured[place] = apply_budget(replace(m, latency=latency), gates.budget)
    if gates.brief_epochs is None:
        return
    for candidate in _while(in_time, sampler.to_try()):
        # what is over the budget tells of its relatives within
        if before_training(candidate, evaluator, gates, view.doing).outcome not in (KEPT, OVER_BUDGET):
            sampler.excluded(candidate.key())
            continue
        view.doing(f"first look at {candidate.describe()}: it may be worth a training")
        evaluator.accuracy(candidate, gates.brief_epochs)


def subscribe(study: optuna.Study, evaluator: CachedEvaluator, gates: StageLimits) -> None:
    """Tells a sampler that heeds latencies whatever was and will be measured, in trials or before them."""
    sampler = study.sampler
    if not isinstance(sampler, MultiFidelitySampler):
        return

    def heard(stage: str, key: str, value: Any) -> None:
        if stage == "latency":
            sampler.timed(key, value)
        elif stage == "accuracy":
            of, _, epochs = key.partition("@")
            if int(epochs) == gates.brief_epochs:
                sampler.tried(of, value)

    evaluator.listen(heard)


def apply_budget(measurement: Measurement, budget: Budget) -> Measurement:
    """The measurement, stopped at the budget if its latency is above it after all."""
    assert measurement.latency is not None
    if measurement.outcome != KEPT or budget.keeps(measurement.latency):
        return measurement
    return replace(measurement, outcome=OVER_BUDGET, reason=over(budget, measurement.latency))


def _while(in_time: Callable[[], bool], candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    for candidate in candidates:
        if not in_time():
            return
        yield candidate
