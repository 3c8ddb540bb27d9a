"""Candidates as columns: axes without order, numbers without units."""

from __future__ import annotations

import numpy as np
import pytest

from search.bayesopt.encoding import encode, standard

NO_NUMBERS = np.zeros((3, 0))


def test_two_values_of_an_axis_that_differ_are_one_apart():
    columns = encode(np.array([[0], [1], [2]]), NO_NUMBERS).columns
    apart = ((columns[:, None] - columns) ** 2).sum(axis=2)
    assert apart == pytest.approx(1.0 - np.eye(3))


def test_groups_are_axes_first_and_then_numbers():
    encoding = encode(np.array([[0, 5], [1, 5], [0, 5]]), np.array([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]]))
    assert encoding.groups.tolist() == [0, 0, 1, 2], "the constant number is left out"
    assert encoding.weights(0.3, 0.1).tolist() == [0.3, 0.3, 0.1]


def test_a_wide_number_is_taken_as_a_logarithm_and_an_unknown_one_as_the_average():
    column = encode(np.zeros((4, 1), dtype=int), np.array([[1.0], [10.0], [100.0], [np.nan]])).columns[:, -1]
    assert np.diff(column[:3]) == pytest.approx(np.full(2, column[1] - column[0]))
    assert column[3] == 0.0


def test_axes_that_share_their_values_are_counted_too():
    codes = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 1, 2]])
    assert encode(codes, np.zeros((4, 0))).columns.shape[1] == 9 + 3
    apart = codes + np.array([0, 10, 20])
    assert encode(apart, np.zeros((4, 0))).columns.shape[1] == 9


@pytest.mark.parametrize("codes", [np.zeros((3, 0), dtype=int), np.zeros((3, 2), dtype=int)])
def test_spaces_that_say_nothing_have_columns_all_the_same(codes):
    encoding = encode(codes, NO_NUMBERS)
    assert len(encoding.columns) == 3 and np.isfinite(encoding.columns).all()
    assert len(encoding.groups) == encoding.columns.shape[1] >= 1


def test_standard_of_an_all_but_unknown_column():
    assert standard(np.array([np.nan, 2.0, np.nan])).tolist() == [0.0, 0.0, 0.0]
