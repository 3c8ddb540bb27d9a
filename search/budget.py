"""The user's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evaluators.measurement import Latency, Measurement


@dataclass(frozen=True)
class Budget:
    """What a choice must keep. None is no limit."""

    latency_ms: float
    percentile: float = 95.0
    peak_mb: float | None = None
    max_drop: float | None = None  # accuracy lost against the baseline, 0..1

    def excess_ms(self, latency: Latency) -> float:
        """Milliseconds by which the upper confidence bound exceeds the limit; <= 0 keeps it.

        Without a bound it is the estimate that exceeds it, by a little at least: what is not proved is not kept.
        """
        interval = latency.percentile_ms
        if math.isfinite(interval.high):
            return interval.high - self.latency_ms
        return max(interval.value - self.latency_ms, 0.001 * self.latency_ms)

    def excess_mb(self, latency: Latency) -> float:
        """Megabytes by which peak memory exceeds the limit; <= 0 keeps it."""
        return latency.peak_mb - self.peak_mb if self.peak_mb is not None else -1.0

    def keeps(self, latency: Latency) -> bool:
        """True if latency (upper bound) and memory are both within their limits."""
        return self.excess_ms(latency) <= 0 and self.excess_mb(latency) <= 0

    def keeps_accuracy(self, measurement: Measurement, baseline: Measurement | None) -> bool:
        """True if validation accuracy is no more than `max_drop` below the baseline's."""
        if self.max_drop is None or baseline is None or baseline.accuracy is None:
            return True
        return measurement.accuracy is not None and baseline.accuracy.top1 - measurement.accuracy.top1 <= self.max_drop

    def describe(self) -> str:
        """`p95 <= 5 ms, peak <= 300 MB`: a line for people."""
        parts = [f"p{self.percentile:g} <= {self.latency_ms:g} ms"]
        if self.peak_mb is not None:
            parts.append(f"peak <= {self.peak_mb:g} MB")
        if self.max_drop is not None:
            parts.append(f"accuracy lost <= {100 * self.max_drop:g} points")
        return ", ".join(parts)
