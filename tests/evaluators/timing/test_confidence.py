"""Intervals of quantiles keep the promise they make."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.timing.confidence import pool_medians, quantile_interval, samples_needed, scale_interval

SAMPLES = st.lists(st.floats(0.01, 1e4), min_size=8, max_size=300)


@pytest.mark.parametrize(("percentile", "count"), [(50, 6), (90, 36), (95, 72), (99, 368)])
def test_an_upper_bound_needs_its_samples(percentile, count):
    assert samples_needed(percentile) == count
    values = list(range(count))
    assert math.isfinite(quantile_interval(values, percentile).high)
    assert math.isinf(quantile_interval(values[1:], percentile).high)


@given(SAMPLES, st.sampled_from([50, 90, 95]))
def test_an_interval_holds_its_value(samples, percentile):
    interval = quantile_interval(samples, percentile)
    assert interval.low <= interval.value <= interval.high
    assert min(samples) <= interval.low


@pytest.mark.parametrize("percentile", [50, 95])
def test_the_interval_covers_the_truth_as_often_as_it_says(percentile):
    """Of 400 samples of 100 log-normal times, about 95 % cover the true quantile (at least 92 %)."""
    rng = numpy.random.default_rng(1)
    from scipy.stats import lognorm

    truth = lognorm(0.3).ppf(percentile / 100)
    covered = 0
    for _ in range(400):
        interval = quantile_interval(rng.lognormal(0, 0.3, 100), percentile)
        covered += interval.low <= truth <= interval.high
    assert covered / 400 >= 0.92


@given(st.lists(SAMPLES, min_size=1, max_size=5))
def test_a_pooled_median_covers_each_groups_own(groups):
    interval = pool_medians(groups)
    assert all(interval.low <= numpy.median(group) <= interval.high for group in groups)


def test_scaling_scales_all_three():
    interval = scale_interval(quantile_interval([1.0] * 10, 50), 3.0)
    assert (interval.value, interval.low, interval.high) == (3.0, 3.0, 3.0)
