"""The user's limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.measurement import METRICS, TOP1, Latency, Measurement


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a choice must keep. None is no limit."""

    latency_ms: float
    percentile: float = 95.0
    peak_mb: float | None = None
    max_drop: float | None = None  # lost against the baseline by `metric`, 0..1
    metric: str = TOP1  # what accuracies are compared by: one of METRICS

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

    def impossible_mb(self, runtime_mb: Mapping[str, float]) -> str:
        """Return why no model can keep the memory limit, one line; empty where one may.

        Args:
            runtime_mb: By runtime, megabytes that a process takes with the runtime loaded and no model.
        """
        least = min(runtime_mb.values(), default=0.0)
        if self.peak_mb is None or self.peak_mb > least:
            return ""
        each = ", ".join(f"{name} takes {taken:.0f} MB" for name, taken in runtime_mb.items())
        return (
            f"--budget-mb {self.peak_mb:g} can't be kept: without any model {each} on this device; "
            f"name more than {least:.0f} MB"
        )

    def keeps(self, latency: Latency) -> bool:
        """True if latency (upper bound) and memory are both within their limits."""
        return self.excess_ms(latency) <= 0 and self.excess_mb(latency) <= 0

    def keeps_accuracy(self, measurement: Measurement, baseline: Measurement | None) -> bool:
        """True if validation accuracy is no more than `max_drop` below the baseline's."""
        if self.max_drop is None or baseline is None or baseline.accuracy is None:
            return True
        return (
            measurement.accuracy is not None and baseline.accuracy.score - measurement.accuracy.score <= self.max_drop
        )

    def describe(self) -> str:
        """`p95 <= 5 ms, peak <= 300 MB`: a line for people."""
        parts = [f"p{self.percentile:g} <= {self.latency_ms:g} ms"]
        if self.peak_mb is not None:
            parts.append(f"peak <= {self.peak_mb:g} MB")
        if self.max_drop is not None:
            name = "accuracy" if self.metric == TOP1 else METRICS[self.metric]
            parts.append(f"{name} lost <= {100 * self.max_drop:g} points")
        return ", ".join(parts)
