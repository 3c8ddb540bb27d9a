"""Combine several timings of one candidate into one latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from evaluators.measurement import Failure, Latency
from evaluators.timing.confidence import scale_interval

AGREE = 1.2  # ratio of ranks up to which two timings agree; a busy device may add as much


def pool(looks: Sequence[Latency | Failure]) -> Latency | Failure:
    """Return the timing that represents several of the same candidate.

    Timings agree if their ranks do, since ranks rest on pairs timed side by side. Of the largest group that agrees (of
    two equally large groups, the one with the newest timing), the newest undisturbed timing counts. If all timings of
    the group were disturbed, the least disturbed one counts, since other load only adds time; where a timing outside
    the group was calm, it gives the ratio of a calm run's percentile to its rank.

    Args:
        looks: Timings of one candidate on one device, oldest first; at least one.
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
    """Return True if the ranks of two timings differ by no more than a busy device may add.

    Args:
        one: A timing of a candidate.
        other: Another timing of it, on the same device.
    """
    return agree_ms(one.rank_ms.value, other.rank_ms.value)


def agree_ms(one_ms: float, other_ms: float) -> bool:
    """Return True if two latencies differ by no more than a busy device may add.

    Args:
        one_ms: Positive latency in ms.
        other_ms: Positive latency in ms.
    """
    return max(one_ms, other_ms) <= AGREE * min(one_ms, other_ms)


def scale_latency(latency: Latency, reference_ms: float) -> Latency:
    """Return a latency as it is on the device at another pace, by the ratio of the reference model's times.

    Args:
        latency: Latency with a known `reference_ms`.
        reference_ms: Latency of the reference at the other pace, in ms.
    """
    factor = reference_ms / latency.reference_ms
    return replace(
        latency,
        percentile_ms=scale_interval(latency.percentile_ms, factor),
        median_ms=scale_interval(latency.median_ms, factor),
        rank_ms=scale_interval(latency.rank_ms, factor),
        gpu_ms=scale_interval(latency.gpu_ms, factor) if latency.gpu_ms else None,
        reference_ms=reference_ms,
    )


def _with_failures(looks: Sequence[Latency | Failure]) -> Latency | Failure:
    """Return the middle one of the newest three timings, where a failure counts as slower than any latency."""
    last = list(looks[-3:])
    return sorted(last, key=lambda look: look.rank_ms.value if isinstance(look, Latency) else math.inf)[len(last) // 2]
