"""What several timings of one candidate say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from evaluators.measurement import Failure, Latency
from evaluators.timing.confidence import scale_interval

AGREE = 1.2  # two timings whose ranks differ by less are one; the factor is what a busy device may add


def pool(looks: Sequence[Latency | Failure]) -> Latency | Failure:
    """Return the timing to go by.

    Ranks, which rest on pairs timed side by side, tell which timings agree. Of the largest group that does, and of two
    as large the one with the newest, the newest undisturbed timing counts. If all of it were disturbed, the one that
    was disturbed least does, since other load only ever adds time; where another timing was calm, what a calm run's
    percentile is to its rank is known from that.

    Args:
        looks: The timings of one candidate on one device, the oldest first; at least one.
    """
    timed = [look for look in looks if isinstance(look, Latency)]
    if len(timed) < len(looks):
        return _with_failures(looks)
    groups = [[other for other in timed if agree(look, other)] for look in timed]
    largest = max(reversed(groups), key=len)
    if calm := [look for look in largest if not look.disturbed]:
        return calm[-1]
    least = min(largest, key=lambda look: (look.percentile_ms.high, look.percentile_ms.value))
    elsewhere = [look for look in timed if not look.disturbed]
    if not elsewhere:
        return least
    shape = elsewhere[-1]
    by_shape = scale_interval(shape.percentile_ms, least.rank_ms.value / shape.rank_ms.value)
    return replace(least, percentile_ms=by_shape) if by_shape.high < least.percentile_ms.high else least


def agree(one: Latency, other: Latency) -> bool:
    """Return True if the ranks of two timings are the same but for what a busy device may add."""
    return agree_ms(one.rank_ms.value, other.rank_ms.value)


def agree_ms(one_ms: float, other_ms: float) -> bool:
    """Return True if two times are the same but for what a busy device may add."""
    return max(one_ms, other_ms) <= AGREE * min(one_ms, other_ms)


def _with_failures(looks: Sequence[Latency | Failure]) -> Latency | Failure:
    """Return the middle one of the newest three, a failure being slower than any timing."""
    last = list(looks[-3:])
    return sorted(last, key=lambda look: look.rank_ms.value if isinstance(look, Latency) else math.inf)[len(last) // 2]
