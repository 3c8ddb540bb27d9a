"""Define a table task and its true optimum, against which a search is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import pandas
from numpy.typing import NDArray

from evaluators.table_evaluator import TableEvaluator
from spaces.table_space import TableSpace

Array = NDArray[numpy.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Best:
    """Describe the true optimum of a table.

    Attributes:
        corner_ms: Latency of the reference point in ms: 1.1 times the slowest member of the useful front, which is the
            front from the median accuracy up.
        corner_points: Accuracy of the reference point in percent: the median of the table.
        area: Area that the true front covers, in ms x points.
        budget_ms: Latency budget in ms: a quantile of the useful front's latencies.
        points: Highest accuracy within the budget, in percent.
    """

    corner_ms: float
    corner_points: float
    area: float
    budget_ms: float
    points: float

    def share(self, points: Array, latency_ms: Array) -> float:
        """Compute the normalised hypervolume of the found candidates, 0..1."""
        return covered(points, latency_ms, self.corner_points, self.corner_ms) / self.area

    def regret(self, points: Array, latency_ms: Array) -> float:
        """Compute the points of accuracy below the best within the budget; the corner's count if none is feasible."""
        return self.points - float(points[latency_ms <= self.budget_ms].max(initial=self.corner_points))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe one device and one data set of a table.

    Attributes:
        name: `device/data`.
        space: The table's space.
        points: Accuracy at full fidelity in percent, by key.
        latency_ms: True latency in ms, by key; NaN for a network that could not run.
        best: The true optimum.
    """

    name: str
    space: TableSpace
    points: pandas.Series
    latency_ms: pandas.Series
    best: Best

    @property
    def device(self) -> str:
        """Return the name of the latency column."""
        return self.name.split("/")[0]

    @property
    def data(self) -> str:
        """Return the data set's part in the names of the accuracy columns."""
        return self.name.split("/")[1]


def read(name: str, space: TableSpace, quantile: float) -> Task:
    """Read the task `device/data`, with the budget at a quantile (0..1) of the useful front. Raises SpaceError."""
    device, _, data = name.partition("/")
    column = TableEvaluator(space, device, data).columns[space.epochs]
    latency = space.rows[device].astype(float)
    points = space.rows[column].astype(float) * space.accuracy_unit * 100
    latency = latency.where(latency > 0)
    return Task(
        name=name,
        space=space,
        points=points,
        latency_ms=latency,
        best=best_of(points.to_numpy(float), latency.to_numpy(float), quantile),
    )


def best_of(points: Array, latency_ms: Array, quantile: float) -> Best:
    """Find the true optimum of a table. NaN marks a candidate that could not be trained or could not run."""
    low = float(numpy.nanmedian(points))
    there = numpy.isfinite(points) & numpy.isfinite(latency_ms)
    points, latency_ms = points[there], latency_ms[there]
    front = undominated(points, latency_ms)
    useful = latency_ms[front][points[front] >= low]
    corner_ms, budget_ms = 1.1 * float(useful.max()), float(numpy.quantile(useful, quantile))
    return Best(
        corner_ms=corner_ms,
        corner_points=low,
        area=covered(points, latency_ms, low, corner_ms),
        budget_ms=budget_ms,
        points=float(points[latency_ms <= budget_ms].max()),
    )


def undominated(points: Array, latency_ms: Array) -> NDArray[numpy.int64]:
    """Return the indices of the non-dominated points, fastest first, and one of equal points."""
    order = numpy.lexsort((-points, latency_ms))
    before = numpy.maximum.accumulate(numpy.r_[-numpy.inf, points[order][:-1]])
    return order[points[order] > before]


def covered(points: Array, latency_ms: Array, corner_points: float, corner_ms: float) -> float:
    """Compute the area between candidates and the corner in ms x points: the hypervolume of two objectives."""
    inside = (points > corner_points) & (latency_ms < corner_ms)
    points, latency_ms = points[inside], latency_ms[inside]
    steps = undominated(points, latency_ms)
    widths = numpy.diff(numpy.r_[latency_ms[steps], corner_ms])
    return float((widths * (points[steps] - corner_points)).sum())
