"""Encode candidates as numeric columns: one-hot axes, structure features, and the predictions of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


MANY = 6  # number of numeric features above which they share the total weight of this many


@dataclass(frozen=True)
class Encoding:
    """Hold the encoding of N candidates that the surrogates use.

    Attributes:
        codes: (N, axes) value of each axis as an unordered index.
        columns: (N, columns) one-hot axes, then numeric features, standardised.
        groups: (columns,) group of each column; the columns of a group share a weight.
        axes: Number of axes.
    """

    codes: Indices
    columns: Array
    groups: Indices
    axes: int

    def weights(self, axis: float, number: float) -> Array:
        """Return (groups,) prior weights; more than `MANY` numeric features share the total weight of `MANY`.

        Args:
            axis: Weight of each categorical axis.
            number: Weight of each numeric feature.
        """
        numbers = int(self.groups.max()) + 1 - self.axes
        weights: Array = np.r_[np.full(self.axes, axis), np.full(numbers, number * min(1.0, MANY / max(numbers, 1)))]
        return weights


def encode(codes: Indices, features: Array) -> Encoding:
    """Encode candidates by one-hot axes, numeric features, and the number of occurrences of values that axes share.

    A feature that spans more than a factor of five is replaced by its logarithm; an unknown value (nan) by the mean.

    Args:
        codes: (N, axes) value of each axis as an unordered index.
        features: (N, F) numeric features such as MACs.
    """
    hot, groups = [], []
    for axis, column in enumerate(codes.T):
        for value in np.unique(column):
            hot.append((column == value) / np.sqrt(2.0))  # two different values have distance 1
            groups.append(axis)
    numbers = [_log_if_wide(column) for column in features.T] + _occurrences(codes)
    numbers = [standard(c) for c in numbers if np.isfinite(c).any() and np.ptp(c[np.isfinite(c)]) > 0]
    if not hot and not numbers:
        numbers = [np.zeros(len(codes))]
    groups += range(codes.shape[1], codes.shape[1] + len(numbers))
    return Encoding(codes, np.stack([*hot, *numbers], axis=1), np.array(groups), codes.shape[1])


def standard(column: Array) -> Array:
    """Standardise the known values of a column to mean 0 and standard deviation 1; unknown (nan) ones become 0."""
    known = column[np.isfinite(column)]
    return np.where(np.isfinite(column), (column - known.mean()) / max(float(known.std()), 1e-12), 0.0)


def _occurrences(codes: Indices) -> list[Array]:
    """Return how often each value occurs among axes with the same values (at least three axes and three values)."""
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
