"""What was timed and never became a trial: a sampler that heeds latencies looks at many."""

from __future__ import annotations

from collections.abc import Iterable

from evaluators.measurement import KEPT, OVER_BUDGET, Latency, Measurement
from search.budget import Budget
from search.funnel import over
from search.ledger import Ledger
from search.remembered import decoded
from spaces.space import Points


def looks(space: Points, ledger: Ledger, trials: Iterable[Measurement], budget: Budget) -> list[Measurement]:
    """The candidates of a space that were only timed, each with its last latency."""
    tried = {m.candidate.key() for m in trials}
    timed = {entry.key: entry for entry in ledger.entries("latency") if entry.key not in tried}
    if not timed:
        return []
    found = []
    for candidate in map(space.candidate, space.params()):
        if (entry := timed.get(candidate.key())) and isinstance(latency := decoded(entry), Latency):
            outcome, reason = (KEPT, "") if budget.keeps(latency) else (OVER_BUDGET, over(budget, latency))
            found.append(Measurement(candidate, outcome, reason, latency=latency))
    return found


def early_stops(measurements: Iterable[Measurement], ledger: Ledger) -> tuple[int, int]:
    """Of what is over the budget: how many it cost no training step to know, and how many there are.

    A plain network's training is its parent's, and none of its own.
    """
    trained = {key for key, _, epochs in (e.key.partition("@") for e in ledger.entries("accuracy")) if int(epochs) > 0}
    slow = [m for m in measurements if m.outcome == OVER_BUDGET]
    return sum(1 for m in slow if not m.accuracies and m.candidate.key() not in trained), len(slow)
