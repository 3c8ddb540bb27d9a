"""Compare the joint front with that of each technique alone, by area in accuracy and latency from one corner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import pandas

from benchmarks.search_quality.task import covered, undominated

BELOW_POINTS = 10.0  # distance of the corner below the most accurate uncompressed network, in points
BEYOND = 1.1  # latency of the corner as a multiple of the slowest uncompressed network's
DRAWS = 1000
ALONE = ("pruning", "low rank", "precision", "size", "family")


@dataclass(frozen=True)
class Corner:
    """Hold the corner from which areas are measured: accuracy in percent, latency in ms."""

    points: float
    ms: float


@dataclass(frozen=True, kw_only=True)
class Set:
    """Hold the candidates of one technique and the area that they cover.

    Attributes:
        name: Name of the technique, or `joint`.
        network: Network on which the technique does best, in hindsight; empty if it covers all networks.
        rows: The candidates.
        area: Covered area, in ms x points.
        joint_area: Mean area of as many random candidates of the joint set, in ms x points.
    """

    name: str
    network: str
    rows: pandas.DataFrame
    area: float
    joint_area: float

    @property
    def front(self) -> pandas.DataFrame:
        """Return the front by validation accuracy, as a user would choose it, fastest first."""
        return chosen(self.rows)


def corner(rows: pandas.DataFrame) -> Corner:
    """Compute the corner, below and beyond the uncompressed networks."""
    plain = rows[_own(rows) & (rows.how == "fp32")]
    return Corner(float(plain.test.max()) - BELOW_POINTS, BEYOND * float(plain.rank_ms.max()))


def sets(rows: pandas.DataFrame) -> list[Set]:
    """Return the joint set, then each technique alone with the network on which it does best.

    Args:
        rows: Rows of one data set with the columns network, image_px, how, prune, lowrank, precision, validation and
            test (percent), and rank_ms.
    """
    origin, own = corner(rows), _own(rows)
    uncut, fp32 = (rows.prune == 0) & (rows.lowrank == 0), rows.precision == "fp32"
    joint = rows[(rows.lowrank == 0) & rows.precision.isin(["fp32", "int8"]) & (rows.how != "int8 PTQ")]
    alone = {
        "pruning": rows[own & fp32 & (rows.lowrank == 0)],
        "low rank": rows[own & fp32 & (rows.prune == 0)],
        "precision": rows[own & uncut],
        "size": rows[fp32 & uncut],
        "family": rows[own & fp32 & uncut],
    }
    found = [Set(name="joint", network="", rows=joint, area=area(joint, origin), joint_area=area(joint, origin))]
    for name in ALONE:
        own_nets = {str(network): part for network, part in alone[name].groupby("network")}
        kinds = {"": alone[name]} if name == "family" else own_nets
        best = max(kinds, key=lambda network: area(kinds[network], origin))
        drawn = _drawn(joint, len(kinds[best]), origin)
        found.append(Set(name=name, network=best, rows=kinds[best], area=area(kinds[best], origin), joint_area=drawn))
    return found


def chosen(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Return the front by validation accuracy, as a search computes it."""
    return rows.iloc[undominated(rows.validation.to_numpy(float), rows.rank_ms.to_numpy(float))]


def area(rows: pandas.DataFrame, origin: Corner) -> float:
    """Compute the area of the front, chosen by validation accuracy and measured by test accuracy."""
    front = chosen(rows)
    return covered(front.test.to_numpy(float), front.rank_ms.to_numpy(float), origin.points, origin.ms)


def _drawn(rows: pandas.DataFrame, count: int, origin: Corner) -> float:
    random = numpy.random.default_rng(0)
    draws = [random.choice(len(rows), min(count, len(rows)), replace=False) for _ in range(DRAWS)]
    return float(numpy.mean([area(rows.iloc[draw], origin) for draw in draws]))


def _own(rows: pandas.DataFrame) -> pandas.Series:
    """Mark the rows at the input size at which the parent was trained, which is the largest."""
    return rows.image_px == rows.groupby("network").image_px.transform("max")
