"""Define the user's limits on latency, memory and accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from evaluators.measurement import METRICS, TOP1, Latency, Measurement


@dataclass(frozen=True)
class Budget:
    """Hold the limits that a choice must keep; None means no limit.

    Attributes:
        latency_ms: Latency limit in ms at `percentile`.
        percentile: Percentile of latency that the limit applies to, between 0 and 100.
        peak_mb: Limit on the process's peak memory in MB.
        max_drop: Largest accepted loss against the baseline, measured by `metric`, 0..1.
        metric: Metric by which accuracies are compared, one of METRICS.
    """

    latency_ms: float
    _: KW_ONLY
    percentile: float = 95.0
    peak_mb: float | None = None
    max_drop: float | None = None
    metric: str = TOP1

    def excess_ms(self, latency: Latency) -> float:
        """Return by how many milliseconds the upper confidence bound exceeds the limit; <= 0 is feasible.

        Without a finite bound the estimate is compared instead, and the excess is at least 0.1 % of the limit: a
        latency that is not proved feasible counts as infeasible.
        """
        interval = latency.percentile_ms
        if math.isfinite(interval.high):
            return interval.high - self.latency_ms
        return max(interval.value - self.latency_ms, 0.001 * self.latency_ms)

    def possible_excess_ms(self, latency: Latency) -> float:
        """Return by how many milliseconds the limit is surely exceeded; <= 0 may be feasible.

        Whatever disturbs a timing adds time, and a few runs on emptied caches raise the upper bound several times. Of a
        disturbed timing, the lower confidence bound is therefore compared: only a calmer timing can decide.
        """
        strict_ms = self.excess_ms(latency)
        return min(strict_ms, latency.percentile_ms.low - self.latency_ms) if latency.disturbed else strict_ms

    def excess_mb(self, latency: Latency) -> float:
        """Return by how many megabytes peak memory exceeds the limit; <= 0 is feasible."""
        return latency.peak_mb - self.peak_mb if self.peak_mb is not None else -1.0

    def impossible_mb(self, runtime_mb: Mapping[str, float]) -> str:
        """Explain in one line why no model can keep the memory limit; return an empty string where one may.

        Args:
            runtime_mb: Megabytes that a process takes with the runtime loaded and no model, by runtime.
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
        """Return True if latency (upper confidence bound) and memory are both within their limits."""
        return self.excess_ms(latency) <= 0 and self.excess_mb(latency) <= 0

    def may_keep(self, latency: Latency) -> bool:
        """Return True unless the limits are surely exceeded: a candidate that may keep them is worth a trial.

        The choice must keep them, see `keeps`.
        """
        return self.possible_excess_ms(latency) <= 0 and self.excess_mb(latency) <= 0

    def keeps_accuracy(self, measurement: Measurement, baseline: Measurement | None) -> bool:
        """Return True if the validation accuracy is no more than `max_drop` below the baseline's.

        Args:
            measurement: Candidate to check. Without an accuracy it fails, unless there is no limit to check.
            baseline: Greedy baseline; without it, or without its accuracy, every candidate passes.
        """
        if self.max_drop is None or baseline is None or baseline.accuracy is None:
            return True
        return (
            measurement.accuracy is not None and baseline.accuracy.score - measurement.accuracy.score <= self.max_drop
        )

    def describe(self) -> str:
        """Describe the limits in one line for people: `p95 <= 5 ms, peak <= 300 MB`."""
        parts = [f"p{self.percentile:g} <= {self.latency_ms:g} ms"]
        if self.peak_mb is not None:
            parts.append(f"peak <= {self.peak_mb:g} MB")
        if self.max_drop is not None:
            name = "accuracy" if self.metric == TOP1 else METRICS[self.metric]
            parts.append(f"validation {name} lost <= {100 * self.max_drop:g} points")
        return ", ".join(parts)
