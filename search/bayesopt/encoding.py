"""Candidates as columns of numbers: axes one-hot, structure features, and hints of earlier studies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


MANY = 6  # numbers beyond which they share the weight of so many


@dataclass(frozen=True)
class Encoding:
    """Candidates as the surrogates see them."""

    codes: Indices  # (N, axes) the value of each axis, as a number without order
    columns: Array  # (N, columns) one-hot axes, then numbers, standardised
    groups: Indices  # (columns,) columns of a group share a weight
    axes: int

    def weights(self, axis: float, number: float) -> Array:
        """(groups,) one weight for each axis, another for each number: the more, the less each."""
        numbers = int(self.groups.max()) + 1 - self.axes
        return np.r_[np.full(self.axes, axis), np.full(numbers, number * min(1.0, MANY / max(numbers, 1)))]


def encode(codes: Indices, features: Array) -> Encoding:
    """Axes (N, axes) one-hot; features (N, F) such as MACs; and where axes share their values, how often each occurs.

    A feature that spans more than a factor of five is taken as a logarithm; one not known (nan) as the average.
    """
    hot, groups = [], []
    for axis, column in enumerate(codes.T):
        for value in np.unique(column):
            hot.append((column == value) / np.sqrt(2.0))  # two values that differ are 1 apart
            groups.append(axis)
    numbers = [_log_if_wide(column) for column in features.T] + _occurrences(codes)
    numbers = [standard(c) for c in numbers if np.isfinite(c).any() and np.ptp(c[np.isfinite(c)]) > 0]
    if not hot and not numbers:
        numbers = [np.zeros(len(codes))]
    groups += range(codes.shape[1], codes.shape[1] + len(numbers))
    return Encoding(codes, np.stack([*hot, *numbers], axis=1), np.array(groups), codes.shape[1])


def standard(column: Array) -> Array:
    """Mean 0 and deviation 1 of what is known; 0 where nothing is."""
    known = column[np.isfinite(column)]
    return np.where(np.isfinite(column), (column - known.mean()) / max(float(known.std()), 1e-12), 0.0)


def _occurrences(codes: Indices) -> list[Array]:
    """How often each value occurs among axes that take the same values (three axes and three values at least)."""
    values = [tuple(np.unique(column)) for column in codes.T]
    columns = []
    for shared, axes in groupby(sorted(range(len(values)), key=lambda a: values[a]), key=lambda a: values[a]):
        which = list(axes)
        if len(which) > 2 and len(shared) > 2:
            columns += [(codes[:, which] == v).sum(axis=1).astype(float) for v in shared]
    return columns


def _log_if_wide(column: Array) -> Array:
    known = column[np.isfinite(column)]
    wide = len(known) > 0 and known.min() > 0 and known.max() > 5 * known.min()
    return np.asarray(np.log(column) if wide else column, dtype=float)
