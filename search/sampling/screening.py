"""Serve a sampler's latency and low-fidelity requests before each trial and report the results to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import optuna

from evaluators.measurement import Failure, Latency, Measurement, Outcome
from search.budget import Budget
from search.pipeline.stages import StageLimits, before_training, over
from search.progress import ProgressView
from search.sampling.protocol import MultiFidelitySampler, StageCosts
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate

ROUNDS_MAX = 4  # rounds of timings before a trial while no candidate is feasible


def screen_candidates(
    study: optuna.Study,
    evaluator: CachedEvaluator,
    gates: StageLimits,
    costs: Callable[[], StageCosts],
    in_time: Callable[[], bool],
    measured: list[Measurement],
    view: ProgressView,
) -> None:
    """Time the candidates that a sampler requests, remeasure outliers, then train the best at low fidelity.

    The function does nothing for a sampler that is no MultiFidelitySampler.

    Args:
        study: Study with the sampler that makes the requests.
        evaluator: Evaluator of the run.
        gates: Stage limits; candidates that fail them are excluded from the sampler's proposals.
        costs: Function that returns the seconds that each stage takes.
        in_time: Function that returns whether there is time for another measurement; the function stops if not.
        measured: Measurements so far; a remeasurement updates them in place.
        view: Display of the current activity.
    """
    sampler = study.sampler
    if not isinstance(sampler, MultiFidelitySampler):
        return
    limit_ms = gates.budget.latency_ms
    something = any(m.latency and gates.budget.may_keep(m.latency) for m in measured)
    for number in range(1 if something else ROUNDS_MAX):
        latencies = []
        for candidate in _while(in_time, sampler.request_latencies(study, costs())):
            view.doing(f"timing {candidate.describe()}, which may be worth a trial")
            latencies.append(evaluator.latency(candidate, limit_ms))
        within = gates.budget.may_keep if number else gates.budget.keeps  # beside other load, hardly any is sure
        is_any_within = any(isinstance(found, Latency) and within(found) for found in latencies)
        if not latencies or (is_any_within and not sampler.is_opening(costs())):
            break
    for candidate in _while(in_time, sampler.request_remeasurements()):
        view.doing(f"timing {candidate.describe()} again: it is faster than expected, or the best so far")
        latency = evaluator.latency_again(candidate, limit_ms)
        for place, m in enumerate(measured):
            if m.candidate == candidate and not isinstance(latency, Failure):
                measured[place] = apply_budget(replace(m, latency=latency), gates.budget)
    if gates.brief_epochs is None:
        return
    for candidate in _while(in_time, sampler.request_low_fidelity()):
        # a candidate over the budget informs about similar candidates within it
        if before_training(candidate, evaluator, gates, view.doing).outcome not in (Outcome.KEPT, Outcome.OVER_BUDGET):
            sampler.exclude(candidate.key())
            continue
        view.doing(f"first look at {candidate.describe()}: it may be worth a training")
        evaluator.accuracy(candidate, gates.brief_epochs)


def subscribe(study: optuna.Study, evaluator: CachedEvaluator, gates: StageLimits) -> None:
    """Report all past and future measurements, in trials and before them, to a MultiFidelitySampler.

    Args:
        study: Study with the sampler that receives the reports.
        evaluator: Evaluator that produces the results.
        gates: Stage limits, which define the epochs of the low fidelity.
    """
    sampler = study.sampler
    if not isinstance(sampler, MultiFidelitySampler):
        return

    def heard(stage: str, key: str, value: Any) -> None:
        if stage == "latency":
            sampler.on_latency(key, value)
        elif stage == "accuracy":
            of, _, epochs = key.partition("@")
            if int(epochs) == gates.brief_epochs:
                sampler.on_low_fidelity(of, value)

    evaluator.listen(heard)


def apply_budget(measurement: Measurement, budget: Budget) -> Measurement:
    """Return the measurement, with outcome OVER_BUDGET if its latency surely exceeds the limits after all.

    Args:
        measurement: Measurement with a latency.
        budget: Limits of the run.
    """
    assert measurement.latency is not None
    if measurement.outcome != Outcome.KEPT or budget.may_keep(measurement.latency):
        return measurement
    return replace(measurement, outcome=Outcome.OVER_BUDGET, reason=over(budget, measurement.latency))


def _while(in_time: Callable[[], bool], candidates: Iterable[Candidate]) -> Iterable[Candidate]:
    for candidate in candidates:
        if not in_time():
            return
        yield candidate
