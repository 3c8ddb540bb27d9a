"""A table task, and the best that can be found in it: what a search over it is scored against."""

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
    """Of a whole table: where area is measured from, how much there is, and a budget with the best that keeps it."""

    corner_ms: float  # 1.1 x the slowest of the useful front, which is the front from the median accuracy up
    corner_points: float  # the median accuracy
    area: float  # ms x points that the true front covers
    budget_ms: float  # a quantile of the useful front's latencies
    points: float  # highest accuracy within the budget

    def share(self, points: Array, latency_ms: Array) -> float:
        """Normalised hypervolume of candidates found."""
        return covered(points, latency_ms, self.corner_points, self.corner_ms) / self.area

    def regret(self, points: Array, latency_ms: Array) -> float:
        """Points of accuracy below the best within the budget; below the corner's where none keeps it."""
        return self.points - float(points[latency_ms <= self.budget_ms].max(initial=self.corner_points))


@dataclass(frozen=True, kw_only=True)
class Task:
    """One device and one data set of a table."""

    name: str  # device/data
    space: TableSpace
    points: pandas.Series  # accuracy at full fidelity in percent, by key
    latency_ms: pandas.Series  # true, by key; NaN where it could not be run
    best: Best

    @property
    def device(self) -> str:
        """The latency column."""
        return self.name.split("/")[0]

    @property
    def data(self) -> str:
        """What names the accuracy columns."""
        return self.name.split("/")[1]


def read(name: str, space: TableSpace, quantile: float) -> Task:
    """The task `device/data`, its budget at that quantile (0..1) of the useful front. Raises SpaceError."""
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
    """What is best in a table. NaN is a candidate that could not be trained, or not be run."""
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
    """Which no other beats, fastest first; of equals one."""
    order = numpy.lexsort((-points, latency_ms))
    before = numpy.maximum.accumulate(numpy.r_[-numpy.inf, points[order][:-1]])
    return order[points[order] > before]


def covered(points: Array, latency_ms: Array, corner_points: float, corner_ms: float) -> float:
    """Area between candidates and the corner, ms x points: the hypervolume of two objectives."""
    inside = (points > corner_points) & (latency_ms < corner_ms)
    points, latency_ms = points[inside], latency_ms[inside]
    steps = undominated(points, latency_ms)
    widths = numpy.diff(numpy.r_[latency_ms[steps], corner_ms])
    return float((widths * (points[steps] - corner_points)).sum())
