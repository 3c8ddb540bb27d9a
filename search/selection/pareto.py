"""Find the non-dominated measurements: accuracy up, latency down, memory down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from evaluators.measurement import Measurement


def objectives(measurement: Measurement) -> tuple[float, float, float]:
    """Return (validation accuracy by the run's metric, rank in ms, peak memory in MB) of a scored measurement.

    Memory is rounded to whole MB; smaller differences are allocator noise.
    """
    assert measurement.accuracy is not None and measurement.latency is not None
    latency = measurement.latency
    return measurement.accuracy.score, latency.rank_ms.value, float(round(latency.peak_mb))


def front(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return the non-dominated measurements that passed every stage, fastest first; of equals the first."""
    kept = [m for m in measurements if m.is_scored]
    if not kept:
        return ()
    values = numpy.array([objectives(m) for m in kept]) * [-1, 1, 1]  # all objectives are minimised
    chosen = []
    for i, row in enumerate(values):
        no_worse = (values <= row).all(axis=1)
        better = no_worse & (values < row).any(axis=1)
        twin_before = no_worse[:i] & (values[:i] == row).all(axis=1)
        if not better.any() and not twin_before.any():
            chosen.append(kept[i])
    return tuple(sorted(chosen, key=lambda m: objectives(m)[1]))
