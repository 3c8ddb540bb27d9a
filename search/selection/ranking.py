"""Rank measurements: the choice, the greedy baseline and the nearest miss."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.measurement import Measurement
from search.budget import Budget
from search.pipeline.stages import over
from search.result import NearestMiss
from spaces.candidate import Candidate


def rank_feasible(
    measurements: Sequence[Measurement], budget: Budget, baseline: Measurement | None
) -> list[Measurement]:
    """Return the measurements that may be feasible, best first: most accurate, then fastest, then smallest.

    Args:
        measurements: Measurements to rank.
        budget: Limits that a feasible measurement keeps; the timing of a finalist decides whether it does.
        baseline: Greedy baseline, to which the accuracy limit refers; None skips that limit.
    """
    keep = [
        m
        for m in measurements
        if m.latency and m.accuracy and budget.may_keep(m.latency) and budget.keeps_accuracy(m, baseline)
    ]
    return sorted(keep, key=_merit)


def baseline(measurements: Sequence[Measurement], plain: frozenset[Candidate]) -> Measurement | None:
    """Return the greedy choice: the most accurate of the uncompressed networks, whatever its latency.

    Of equals, it is the network with the most multiply-accumulates: without regard to latency, the larger one is taken.

    Args:
        measurements: Measurements of all trials.
        plain: Uncompressed networks.

    Returns:
        The baseline, or None if no uncompressed network was scored.
    """
    scored = [m for m in measurements if m.accuracy and m.latency and m.candidate in plain]
    return max(scored, key=_appeal, default=None)


def nearest_miss(measurements: Sequence[Measurement], budget: Budget, base: Measurement | None) -> NearestMiss | None:
    """Return the measured candidate that comes nearest to a budget that none keeps, by its relative excess.

    Args:
        measurements: Measurements of trials and screened candidates.
        budget: Limits of the run.
        base: Greedy baseline; None without one.

    Returns:
        The nearest miss, or None if nothing was timed.
    """
    timed = [m for m in measurements if m.latency]
    fast = [m for m in timed if m.latency and budget.keeps(m.latency) and m.accuracy]
    if fast and base and base.accuracy:
        best = min(fast, key=_merit)
        assert best.accuracy is not None
        drop = base.accuracy.score - best.accuracy.score
        limit = budget.max_drop or 0.0
        return NearestMiss(best, f"loses {100 * drop:.1f} points against the baseline, {100 * limit:g} allowed")

    if untrained := [m for m in timed if m.latency and budget.keeps(m.latency) and not m.accuracy]:
        fastest = min(untrained, key=lambda m: m.latency.rank_ms.value if m.latency else 0.0)
        return NearestMiss(
            fastest, "keeps the budget, but no training of it could end in the time there was: allow more time"
        )

    def share_over(m: Measurement) -> float:
        assert m.latency is not None
        memory = m.latency.peak_mb / budget.peak_mb if budget.peak_mb else 0.0
        return max(m.latency.percentile_ms.value / budget.latency_ms, memory)

    nearest = min(timed, key=share_over, default=None)
    if nearest is None or nearest.latency is None:
        return None
    return NearestMiss(nearest, over(budget, nearest.latency))


def _merit(measurement: Measurement) -> tuple[float, float, float]:
    assert measurement.accuracy is not None and measurement.latency is not None
    return (
        -measurement.accuracy.score,
        measurement.latency.rank_ms.value,
        measurement.latency.peak_mb,
    )


def _appeal(measurement: Measurement) -> tuple[float, int]:
    assert measurement.accuracy is not None
    return measurement.accuracy.score, measurement.structure.macs if measurement.structure else 0
