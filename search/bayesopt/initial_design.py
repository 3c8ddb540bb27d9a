"""The first candidates: far apart, and where an earlier study is to be trusted, in part those it points to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.observations import Observations, ProposerSettings
from search.bayesopt.transfer import Hints

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def far_apart(x: Array, count: int, taken: Array, random: np.random.Generator) -> Indices:
    """Rows of x (n, columns): of five drawn at random the one farthest from those taken (Mitchell 1991).

    `taken` (m, columns) are there already.
    """
    nearest = np.full(len(x), np.inf)
    for row in taken:
        nearest = np.minimum(nearest, ((x - row) ** 2).sum(axis=1))
    chosen: list[int] = []
    for _ in range(min(count, len(x))):
        drawn = random.choice(np.flatnonzero(nearest > -1.0), min(5, len(x) - len(chosen)), replace=False)
        pick = int(drawn[np.argmax(nearest[drawn])])
        nearest = np.minimum(nearest, ((x - x[pick]) ** 2).sum(axis=1))
        nearest[pick] = -1.0
        chosen.append(pick)
    return np.array(chosen, dtype=np.int64)


def to_time(
    columns: Array,
    known: Observations,
    settings: ProposerSettings,
    hints: Hints,
    random: np.random.Generator,
    first: Mask | None = None,
) -> Indices:
    """Those an earlier study points to, as many as it is to be trusted; the others far from them and each other.

    All of those that come `first` before any other.
    """
    free = np.flatnonzero(known.untimed())
    if first is not None and first[free].any():
        free = free[first[free]]
    count = min(settings.start_timings, len(free))
    led = hints.leaders(free, int(settings.earlier_share * hints.skill * count)) if hints.skill else free[:0]
    rest = np.setdiff1d(free, led)
    taken = np.r_[columns[led], columns[known.looks > 0]]
    return np.r_[led, rest[far_apart(columns[rest], count - len(led), taken, random)]]


def to_train(
    known: Observations,
    wanted: int,
    hints: Hints,
    random: np.random.Generator,
    first: Mask | None = None,
    hurried: bool = False,
) -> Indices:
    """One from each stretch of latencies: by turns the best as far as anything tells, and any.

    Low fidelity tells, or an earlier study; where neither is there, the slowest is likely the least cut. Before all of
    them the slowest of those that come `first`, which is likely the most accurate, or where time is short the fastest.
    """
    free = np.flatnonzero(known.waiting())
    if first is not None and wanted > 0 and first[free].any() and not known.is_finished()[first].any():
        whole = free[first[free]]
        pick = np.argmin if hurried else np.argmax
        begun = whole[[pick(known.latency_ms[whole])]]
        return np.r_[begun, _stretch_design(known, np.setdiff1d(free, begun), wanted - 1, hints, random)]
    return _stretch_design(known, free, wanted, hints, random)


def _stretch_design(
    known: Observations, free: Indices, wanted: int, hints: Hints, random: np.random.Generator
) -> Indices:
    tried = free[np.isfinite(known.brief[free])]
    free = tried if len(tried) >= wanted else free
    wanted = min(wanted, len(free))
    if wanted <= 0:
        return free[:0]
    stretches = np.array_split(free[np.argsort(known.latency_ms[free], kind="stable")], wanted)
    return np.array([_one(stretch, turn % 2 == 0, known, hints, random) for turn, stretch in enumerate(stretches)])


def _one(stretch: Indices, best: bool, known: Observations, hints: Hints, random: np.random.Generator) -> int:
    brief = known.brief[stretch]
    if best and np.isfinite(brief).any():
        return int(stretch[np.nanargmax(brief)])
    if best and hints.skill and hints.accuracy is not None:
        return int(stretch[np.argmax(hints.accuracy.values[stretch])])
    if best:
        return int(stretch[np.argmax(known.latency_ms[stretch])])
    return int(random.choice(stretch))
