"""The joint front against each technique's alone: area in the plane of accuracy and latency, one corner for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import pandas

from benchmarks.search_quality.task import covered, undominated

BELOW_POINTS = 10.0  # the corner lies so far below the most accurate plain network
BEYOND = 1.1  # and at so many times the slowest plain network's latency
DRAWS = 1000
ALONE = ("pruning", "low rank", "precision", "size", "family")


@dataclass(frozen=True)
class Corner:
    """What areas are measured from."""

    points: float
    ms: float


@dataclass(frozen=True, kw_only=True)
class Set:
    """Candidates of one kind, and what they cover."""

    name: str
    network: str  # the one that serves the technique best, in hindsight; empty where it is of all
    rows: pandas.DataFrame
    area: float  # ms x points
    joint_area: float  # of as many candidates of the joint set, drawn at random: the mean

    @property
    def front(self) -> pandas.DataFrame:
        """The rows that a user would take by their validation accuracy, fastest first."""
        return chosen(self.rows)


def corner(rows: pandas.DataFrame) -> Corner:
    """Below and beyond the plain networks."""
    plain = rows[_own(rows) & (rows.how == "fp32")]
    return Corner(float(plain.test.max()) - BELOW_POINTS, BEYOND * float(plain.rank_ms.max()))


def sets(rows: pandas.DataFrame) -> list[Set]:
    """The joint set first, then each technique alone with the network that serves it best. `rows` are of one data set.

    Columns: network, image_px, how, prune, lowrank, precision, validation and test (percent), rank_ms.
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
    """The front by validation accuracy, as a search sees it."""
    return rows.iloc[undominated(rows.validation.to_numpy(float), rows.rank_ms.to_numpy(float))]


def area(rows: pandas.DataFrame, origin: Corner) -> float:
    """What the front covers, chosen by validation accuracy and counted by test accuracy."""
    front = chosen(rows)
    return covered(front.test.to_numpy(float), front.rank_ms.to_numpy(float), origin.points, origin.ms)


def _drawn(rows: pandas.DataFrame, count: int, origin: Corner) -> float:
    random = numpy.random.default_rng(0)
    draws = [random.choice(len(rows), min(count, len(rows)), replace=False) for _ in range(DRAWS)]
    return float(numpy.mean([area(rows.iloc[draw], origin) for draw in draws]))


def _own(rows: pandas.DataFrame) -> pandas.Series:
    """Where a network runs at the size its parent was trained at: the largest."""
    return rows.image_px == rows.groupby("network").image_px.transform("max")
