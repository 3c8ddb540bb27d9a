"""The end of a search: finalists are timed again, and only then is the test set looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.evaluator import Evaluator, Sees
from evaluators.measurement import FAILED, KEPT, OVER_BUDGET, Accuracy, Failure, Measurement
from search.budget import Budget
from search.choice import baseline, nearest_miss, ranked
from search.funnel import over
from search.pareto import front
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
    evaluator: Evaluator,
    budget: Budget,
    plain: frozenset[Candidate],
    tell: Callable[[str], None],
    sees: Sees | None = None,
    looks: Sequence[Measurement] = (),
) -> Ending:
    """Choice, baseline and front, confirmed and tested; with `sees` also what the device shows of choice and front.

    The best within the budget is timed again with its trained weights; if that takes it over, the next one is. Where
    nothing keeps the budget one of the `looks`, which were timed and nothing else, may come nearest.
    """
    known = {m.trial: m for m in measurements}
    greedy = baseline(measurements, plain)
    if greedy is not None:
        tell(f"timing the greedy baseline again: {greedy.candidate.describe()}")
        greedy = known[greedy.trial] = _confirm(greedy, evaluator, budget)
    choice = None
    for best in ranked(measurements, budget, greedy):
        tell(f"timing a finalist again: {best.candidate.describe()}")
        again = known[best.trial] = known[best.trial] if best is greedy else _confirm(best, evaluator, budget)
        if again.outcome == KEPT and again.latency and budget.keeps(again.latency):
            choice = again
            break
    found = front(list(known.values()))
    for measurement in [*found, *(m for m in (choice, greedy) if m)]:
        tell(f"test accuracy of {measurement.candidate.describe()}")
        known[measurement.trial] = _tested(known[measurement.trial], evaluator)
    if sees is not None:
        finalists = [known[m.trial] for m in (*found, *([choice] if choice else []))]
        known |= {m.trial: m for m in look(list(known.values()), finalists, choice, evaluator, sees, tell)}
    return Ending(
        tuple(known[number] for number in sorted(known)),
        tuple(known[m.trial] for m in found),
        known[choice.trial] if choice else None,
        known[greedy.trial] if greedy else None,
        None if choice else nearest_miss([*known.values(), *looks], budget, greedy),
    )


def _confirm(measurement: Measurement, evaluator: Evaluator, budget: Budget) -> Measurement:
    assert measurement.accuracy is not None
    latency = evaluator.confirm(measurement.candidate, measurement.accuracy.epochs)
    if isinstance(latency, Failure):
        return replace(measurement, outcome=FAILED, reason=f"{latency.kind}: {latency.reason}")
    again = replace(measurement, latency=latency, confirmed=True)
    if budget.keeps(latency):
        return again
    return replace(again, outcome=OVER_BUDGET, reason=over(budget, latency))


def _tested(measurement: Measurement, evaluator: Evaluator) -> Measurement:
    if measurement.test is not None or measurement.accuracy is None:
        return measurement
    test = evaluator.test(measurement.candidate, measurement.accuracy.epochs)
    return replace(measurement, test=test) if isinstance(test, Accuracy) else measurement
