"""The end of a search: finalists are timed again, and only then is the test set looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.evaluator import Sees
from evaluators.measurement import FAILED, OVER_BUDGET, Accuracy, Failure, Latency, Measurement
from evaluators.statistics import scaled
from search.budget import Budget
from search.choice import baseline, nearest_miss, ranked
from search.funnel import over
from search.pareto import front
from search.remembered import Remembered
from search.result import Miss
from search.seeing import look
from spaces.candidate import Candidate


@dataclass(frozen=True)
class Ending:
    """What a search found."""

    measurements: tuple[Measurement, ...]
    front: tuple[Measurement, ...]
    choice: Measurement | None
    baseline: Measurement | None
    miss: Miss | None


def finish(
    measurements: Sequence[Measurement],
    evaluator: Remembered,
    budget: Budget,
    plain: frozenset[Candidate],
    tell: Callable[[str], None],
    sees: Sees | None = None,
    looks: Sequence[Measurement] = (),
    has_time: Callable[[], bool] = lambda: True,
) -> Ending:
    """Return choice, baseline and front, confirmed and tested.

    The best within the budget is timed again with its trained weights; if that takes it over, the next one is.

    Args:
        measurements: Every trial.
        evaluator: Who measures.
        budget: The limits.
        plain: The uncompressed networks, one of which is the baseline.
        tell: Called with a line before each step.
        sees: Who shows what the device runs for choice and front; None of a table.
        looks: What was timed and nothing else: where nothing keeps the budget, one of them may come nearest.
        has_time: Asked before each step that can be left out: what choice and baseline don't need.
    """
    known = {m.trial: m for m in measurements}
    greedy = baseline(measurements, plain)
    if greedy is not None and has_time():
        tell(f"timing the greedy baseline again: {greedy.candidate.describe()}")
        greedy = known[greedy.trial] = _confirm(greedy, evaluator, budget)
    choice = None
    for best in ranked(measurements, budget, greedy):
        tell(f"timing a finalist again: {best.candidate.describe()}")
        again = known[best.trial] = (
            known[best.trial] if known[best.trial].confirmed else _confirm(best, evaluator, budget)
        )
        if again.is_scored and again.latency and budget.keeps(again.latency):
            choice = again
            break
    found = front(list(known.values()))
    for measurement in [*(m for m in (choice, greedy) if m), *found]:
        if measurement.trial not in {m.trial for m in (choice, greedy) if m} and not has_time():
            continue
        tell(f"test accuracy of {measurement.candidate.describe()}")
        known[measurement.trial] = _tested(known[measurement.trial], evaluator)
    if sees is not None:
        finalists = [known[m.trial] for m in (*([choice] if choice else []), *found)]
        known |= {m.trial: m for m in look(list(known.values()), finalists, choice, evaluator, sees, tell, has_time)}
    return Ending(
        tuple(known[number] for number in sorted(known)),
        tuple(known[m.trial] for m in found),
        known[choice.trial] if choice else None,
        known[greedy.trial] if greedy else None,
        None if choice else nearest_miss([*known.values(), *looks], budget, greedy),
    )


def _confirm(measurement: Measurement, evaluator: Remembered, budget: Budget) -> Measurement:
    assert measurement.accuracy is not None
    before, candidate, epochs = measurement.latency, measurement.candidate, measurement.accuracy.epochs
    latency = evaluator.confirm(candidate, epochs)
    if _refutes_by_noise(before, latency, budget):
        latency = evaluator.confirm_again(candidate, epochs)
    if isinstance(latency, Failure):
        return replace(measurement, outcome=FAILED, reason=f"{latency.kind}: {latency.reason}")
    if _refutes_by_noise(before, latency, budget):  # a leader is not dropped on disturbed samples alone
        return measurement
    again = replace(measurement, latency=latency, confirmed=True)
    if budget.keeps(latency):
        return again
    return replace(again, outcome=OVER_BUDGET, reason=over(budget, latency))


def _refutes_by_noise(before: Latency | None, latency: Latency | Failure, budget: Budget) -> bool:
    """Return True if a disturbed timing takes over the budget what, by its rank, still keeps it.

    A rank rests on pairs timed side by side. The upper bound that was within the budget, and as many times longer as
    the rank is, is within it: so it is other load that the disturbed samples show.
    """
    if before is None or isinstance(latency, Failure) or not latency.disturbed:
        return False
    by_rank = scaled(before.percentile_ms, max(1.0, latency.rank_ms.value / before.rank_ms.value))
    as_calm = replace(latency, percentile_ms=by_rank)
    return budget.keeps(before) and not budget.keeps(latency) and budget.keeps(as_calm)


def _tested(measurement: Measurement, evaluator: Remembered) -> Measurement:
    if measurement.test is not None or measurement.accuracy is None:
        return measurement
    test = evaluator.test(measurement.candidate, measurement.accuracy.epochs)
    return replace(measurement, test=test) if isinstance(test, Accuracy) else measurement
