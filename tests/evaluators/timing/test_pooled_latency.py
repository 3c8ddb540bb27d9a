"""What several timings say together: a calm one is never overruled by a disturbed one that agrees with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.measurement import Failure, Interval
from evaluators.timing.pooled_latency import AGREE, agree, pool
from search.budget import Budget
from spaces.space import load
from tests.search.analytic import Analytic

CANDIDATE = load("tiny").parents()[0]
FAILURE = Failure("latency", "crashed", "gone")


def look(rank_ms=1.0, p95_ms=1.1, disturbed=""):
    made = Analytic()._latency(CANDIDATE, 1.0)
    near = Interval(p95_ms, 0.98 * p95_ms, 1.02 * p95_ms)
    return replace(made, rank_ms=Interval(rank_ms, rank_ms, rank_ms), percentile_ms=near, disturbed=disturbed)


CALM, BUSY = look(), look(p95_ms=3.8, disturbed="other load")


def test_pool_calm_then_disturbed_that_agrees_keeps_the_calm_one():
    assert pool([CALM, BUSY]) == CALM and pool([BUSY, CALM]) == CALM


def test_pool_two_calm_that_agree_takes_the_newer():
    newer = look(1.05, 1.2)
    assert pool([CALM, newer]) == newer


def test_pool_all_disturbed_takes_the_least_disturbed():
    less = look(p95_ms=1.4, disturbed="other load")
    assert pool([BUSY, less]) == pool([less, BUSY]) == less


def test_pool_outlier_is_outvoted():
    assert pool([look(0.2, 0.2), CALM, look(1.1, 1.2)]).rank_ms.value == 1.1


def test_pool_calm_outlier_refuted_by_disturbed_ones_keeps_their_rank_and_its_shape():
    said = pool([look(0.5, 0.55), BUSY, look(1.02, 4.0, "other load")])
    assert said.rank_ms.value == 1.0 and said.percentile_ms.value == pytest.approx(1.1)


@pytest.mark.parametrize(("looks", "said"), [([FAILURE, CALM, CALM], CALM), ([CALM, FAILURE, FAILURE], FAILURE)])
def test_pool_failures_lose_against_two_timings(looks, said):
    assert pool(looks) == said


LOOKS = st.lists(
    st.builds(
        look,
        st.floats(0.9, 1.0),
        st.floats(0.9, 9.0),
        st.sampled_from(["", "", "other load", "unsteady"]),
    ),
    min_size=1,
    max_size=6,
)


@given(LOOKS, st.floats(0.5, 9.0))
def test_pool_agreeing_looks_a_leader_is_never_dropped_on_disturbed_samples_alone(looks, limit_ms):
    """The kind of fault: a calm timing within the budget, and a disturbed one of the same rank over it."""
    budget, calm = Budget(latency_ms=limit_ms), [one for one in looks if not one.disturbed]
    said = pool(looks)
    assert said in looks
    if calm:
        assert not said.disturbed
    elif any(budget.keeps(one) for one in looks):
        assert budget.keeps(said)


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_agree_is_symmetric_and_holds_up_to_the_factor(one, other):
    first, second = look(one), look(other)
    assert agree(first, second) == agree(second, first) == (max(one, other) <= AGREE * min(one, other))
