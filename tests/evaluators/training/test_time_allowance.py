"""A training that can't end in time is ended as soon as its pace shows that, and none is ended that can."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from evaluators.training.trainer import Deadline


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def run(step_s, steps, seconds_max, after=0):
    """Return the step at which a training of even pace was ended, None if it came through, and its seconds."""
    clock = Clock()
    deadline = Deadline(clock(), seconds_max, after, clock)
    for step in range(1, steps + 1):
        clock.now_s += step_s
        try:
            deadline.check(step, steps)
        except OutOfTimeError:
            return step, clock() - 100.0
    return None, clock() - 100.0


def test_deadline_much_too_slow_ends_within_seconds():
    step, seconds = run(0.1, 1000, 20.0)
    assert step is not None and seconds <= Deadline.LEAST_S + 4 * 0.1


def test_deadline_work_afterwards_counts():
    assert run(0.1, 100, 11.0)[0] is None and run(0.1, 100, 11.0, after=50)[0] is not None


def test_deadline_without_a_limit_never_ends():
    assert run(0.1, 1000, math.inf)[0] is None


@given(st.floats(0.001, 2.0), st.integers(3, 500), st.floats(0.1, 500.0))
def test_deadline_even_pace_ends_what_takes_longer_and_nothing_else(step_s, steps, seconds_max):
    """The kind of fault: a time limit that is looked at between trials only."""
    ended, seconds = run(step_s, steps, seconds_max)
    if step_s * steps < 0.999 * seconds_max:
        assert ended is None
    elif step_s * steps > 1.001 * seconds_max:
        assert ended is not None and seconds <= seconds_max + step_s + 1e-6


def test_allowance_caps_are_taken_off_again():
    clock, allowance = Clock(), TimeAllowance()
    assert allowance.left_s() == math.inf
    allowance.take_from(lambda: 50.0)
    with allowance.at_most(10.0, clock):
        clock.now_s += 4.0
        assert allowance.left_s() == pytest.approx(6.0)
        with allowance.at_most(2.0, clock):
            assert allowance.left_s() == pytest.approx(2.0)
    assert allowance.left_s() == 50.0


def test_allowance_cap_is_lifted_once_there_is_something_to_fall_back_on():
    clock, allowance, there = Clock(), TimeAllowance(), []
    with allowance.at_most(10.0, clock, lambda: bool(there)):
        assert allowance.left_s() == pytest.approx(10.0)
        there.append("an accuracy")
        assert allowance.left_s() == math.inf


@given(st.floats(0.01, 2.0), st.integers(10, 500), st.floats(0.1, 0.95))
def test_deadline_share_is_what_another_training_that_begins_now_can_do(step_s, steps, share):
    clock = Clock()
    began_s, seconds_max = clock(), share * step_s * steps
    deadline = Deadline(began_s, seconds_max, clock=clock)
    with pytest.raises(OutOfTimeError) as caught:
        for step in range(1, steps + 1):
            clock.now_s += step_s
            deadline.check(step, steps)
    left_s = began_s + seconds_max - clock()
    assert caught.value.share * steps * step_s == pytest.approx(max(left_s, 0.0), abs=1e-6)
    assert pickle.loads(pickle.dumps(caught.value)).share == caught.value.share, "the worker sends it"
