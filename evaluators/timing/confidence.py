"""Confidence intervals of quantiles, by order statistics: no shape of the distribution is assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
from scipy.stats import quantile_test

from evaluators.measurement import Interval

CONFIDENCE = 0.95


def samples_needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """How many samples an upper bound of this percentile needs: with fewer, even the maximum is no bound.

    p50: 6, p90: 36, p95: 72, p99: 368 (two-sided, 95 %).
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(percentile / 100))


def quantile_interval(samples: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> Interval:
    """The percentile with its confidence interval; `high` is infinite where the samples are too few for one.

    Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2, as in `scipy.stats.quantile_test`.
    """
    values = numpy.asarray(samples, dtype=float)
    bounds = quantile_test(values, p=percentile / 100).confidence_interval(confidence)
    value = float(numpy.percentile(values, percentile))
    low = float(values.min()) if math.isnan(bounds.low) else float(bounds.low)
    high = math.inf if math.isnan(bounds.high) else float(bounds.high)
    return Interval(value, min(low, value), max(high, value))


def scale_interval(interval: Interval, factor: float) -> Interval:
    """The interval of a quantity `factor` times as large."""
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor)


def pool_medians(groups: Sequence[Sequence[float]]) -> Interval:
    """The median over all groups, its interval widened to cover every group's own median.

    Samples of one process are alike, so pooling them as if independent would promise too much.
    """
    pooled = quantile_interval([value for group in groups for value in group], 50)
    medians = [float(numpy.median(group)) for group in groups]
    return Interval(pooled.value, min(pooled.low, *medians), max(pooled.high, *medians))
