"""Select the finalists of a search: remeasure them, and only then score them on the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.evaluator import DeviceInspector
from evaluators.measurement import Accuracy, Failure, Latency, Measurement, Outcome
from evaluators.timing.confidence import scale_interval
from search.budget import Budget
from search.pipeline.stages import over
from search.result import NearestMiss
from search.selection.device_checks import look
from search.selection.pareto import front
from search.selection.ranking import baseline, nearest_miss, rank_feasible
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """Hold the outcome of a search.

    Attributes:
        measurements: All trials, ordered by trial number.
        front: Non-dominated measurements, fastest first.
        choice: Most accurate feasible candidate; None if none keeps the budget.
        baseline: Greedy baseline; None if it was not scored.
        miss: Nearest miss; None if there is a choice.
    """

    measurements: tuple[Measurement, ...]
    front: tuple[Measurement, ...]
    choice: Measurement | None
    baseline: Measurement | None
    miss: NearestMiss | None


def finish(
    measurements: Sequence[Measurement],
    evaluator: CachedEvaluator,
    budget: Budget,
    plain: frozenset[Candidate],
    tell: Callable[[str], None],
    sees: DeviceInspector | None = None,
    looks: Sequence[Measurement] = (),
    has_time: Callable[[], bool] = lambda: True,
) -> SearchOutcome:
    """Return choice, baseline and front after remeasuring and testing them.

    The best feasible candidate is timed again with its trained weights; if it then exceeds the budget, the next one
    follows.

    Args:
        measurements: Measurements of all trials.
        evaluator: Evaluator of the run.
        budget: Limits of the run.
        plain: Uncompressed networks, one of which is the baseline.
        tell: Callback that receives one progress line before each step.
        sees: Inspector that reports how the device runs choice and front; None for a table.
        looks: Screened candidates; if no trial keeps the budget, one of them may be the nearest miss.
        has_time: Function that returns whether there is time for a step that choice and baseline don't need.
    """
    known = {m.trial: m for m in measurements}
    greedy = baseline(measurements, plain)
    if greedy is not None and has_time():
        tell(f"timing the greedy baseline again: {greedy.candidate.describe()}")
        greedy = known[greedy.trial] = _confirm(greedy, evaluator, budget)
    choice = None
    ranked = rank_feasible(measurements, budget, greedy)
    surest = min(ranked, key=lambda m: budget.excess_ms(m.latency) if m.latency else 0.0, default=None)
    for best in ranked:
        if best is not surest and best.latency and not budget.keeps(best.latency) and not has_time():
            continue  # only another timing could prove that it keeps the budget
        again = known[best.trial] = _confirm_once(known[best.trial], evaluator, budget, tell)
        if again.is_scored and again.latency and budget.keeps(again.latency):
            choice = again
            break
    known = {number: _hold_to_budget(m, budget) for number, m in known.items()}
    found = front(list(known.values()))
    for measurement in [*(m for m in (choice, greedy) if m), *found]:
        if measurement.trial not in {m.trial for m in (choice, greedy) if m} and not has_time():
            continue
        tell(f"test accuracy of {measurement.candidate.describe()}")
        known[measurement.trial] = _score_on_test(known[measurement.trial], evaluator)
    if sees is not None:
        finalists = [known[m.trial] for m in (*([choice] if choice else []), *found)]
        every = list(known.values())
        seen = look(every, finalists, choice, evaluator=evaluator, sees=sees, tell=tell, has_time=has_time)
        known |= {m.trial: m for m in seen}
    known = {number: evaluator.at_present_pace(m) for number, m in known.items()}  # the same pace for all
    return SearchOutcome(
        measurements=tuple(known[number] for number in sorted(known)),
        front=tuple(known[m.trial] for m in found),
        choice=known[choice.trial] if choice else None,
        baseline=known[greedy.trial] if greedy else None,
        miss=None if choice else nearest_miss([*known.values(), *looks], budget, greedy),
    )


def _confirm_once(
    measurement: Measurement, evaluator: CachedEvaluator, budget: Budget, tell: Callable[[str], None]
) -> Measurement:
    """Return a finalist timed again; the baseline, which may be one, was timed before."""
    tell(f"timing a finalist again: {measurement.candidate.describe()}")
    return measurement if measurement.confirmed else _confirm(measurement, evaluator, budget)


def _confirm(measurement: Measurement, evaluator: CachedEvaluator, budget: Budget) -> Measurement:
    assert measurement.accuracy is not None
    before, candidate, epochs = measurement.latency, measurement.candidate, measurement.accuracy.epochs
    latency = evaluator.confirm(candidate, epochs)
    undecided = isinstance(latency, Latency) and budget.may_keep(latency) and not budget.keeps(latency)
    if undecided or _refutes_by_noise(before, latency, budget):
        latency = evaluator.confirm_again(candidate, epochs)
    if isinstance(latency, Failure):
        return replace(measurement, outcome=Outcome.FAILED, reason=f"{latency.kind}: {latency.reason}")
    if _refutes_by_noise(before, latency, budget):  # disturbed samples alone do not disqualify a leader
        return measurement
    again = replace(measurement, latency=latency, confirmed=True)
    if budget.keeps(latency):
        return again
    return replace(again, outcome=Outcome.OVER_BUDGET, reason=over(budget, latency))


def _hold_to_budget(measurement: Measurement, budget: Budget) -> Measurement:
    """Return the measurement, over the budget if no timing proved that it keeps the limits."""
    latency = measurement.latency
    if measurement.outcome != Outcome.KEPT or latency is None or budget.keeps(latency):
        return measurement
    return replace(measurement, outcome=Outcome.OVER_BUDGET, reason=over(budget, latency))


def _refutes_by_noise(before: Latency | None, latency: Latency | Failure, budget: Budget) -> bool:
    """Return True if a disturbed timing exceeds the budget although the candidate, by its rank, still keeps it.

    A rank rests on pairs timed side by side. The test scales the earlier upper bound, which was within the budget, by
    the growth of the rank. If the scaled bound is within the budget too, the disturbed samples show other load on the
    device.
    """
    if before is None or isinstance(latency, Failure) or not latency.disturbed:
        return False
    by_rank = scale_interval(before.percentile_ms, max(1.0, latency.rank_ms.value / before.rank_ms.value))
    as_calm = replace(latency, percentile_ms=by_rank)
    return budget.keeps(before) and not budget.keeps(latency) and budget.keeps(as_calm)


def _score_on_test(measurement: Measurement, evaluator: CachedEvaluator) -> Measurement:
    if measurement.test is not None or measurement.accuracy is None:
        return measurement
    test = evaluator.test(measurement.candidate, measurement.accuracy.epochs)
    return replace(measurement, test=test) if isinstance(test, Accuracy) else measurement
