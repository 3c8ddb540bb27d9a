"""Compute confidence intervals of quantiles from order statistics, without assuming the shape of the distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
from scipy.stats import quantile_test

from evaluators.measurement import Interval

CONFIDENCE = 0.95


def samples_needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the number of samples that an upper bound of a percentile needs; with fewer, even the maximum is no bound.

    p50: 6, p90: 36, p95: 72, p99: 368 (two-sided, 95 %).

    Args:
        percentile: Percentile, above 0 and below 100.
        confidence: Two-sided confidence, 0..1.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(percentile / 100))


def quantile_interval(samples: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> Interval:
    """Return a percentile with its confidence interval; `high` is infinite where the samples are too few for a bound.

    Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2, as in `scipy.stats.quantile_test`.

    Args:
        samples: Measured values, in any order.
        percentile: Percentile, 0..100.
        confidence: Two-sided confidence, 0..1.
    """
    values = numpy.asarray(samples, dtype=float)
    bounds = quantile_test(values, p=percentile / 100).confidence_interval(confidence)
    value = float(numpy.percentile(values, percentile))
    low = float(values.min()) if math.isnan(bounds.low) else float(bounds.low)
    high = math.inf if math.isnan(bounds.high) else float(bounds.high)
    return Interval(value, min(low, value), max(high, value))


def scale_interval(interval: Interval, factor: float) -> Interval:
    """Return an interval for a quantity `factor` times as large.

    Args:
        interval: Estimate with its bounds.
        factor: Positive number.
    """
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)


def pool_medians(groups: Sequence[Sequence[float]]) -> Interval:
    """Return the median over all groups, its interval widened to cover the median of every group.

    Samples of one process are correlated, so an interval that treats all of them as independent would be too narrow.
    """
    pooled = quantile_interval([value for group in groups for value in group], 50)
    medians = [float(numpy.median(group)) for group in groups]
    return Interval(pooled.value, min(pooled.low, *medians), max(pooled.high, *medians))
