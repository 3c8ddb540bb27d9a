"""Propose the initial design: candidates far apart, and in part those that a reliable earlier run favours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.observations import Observations, ProposerSettings
from search.bayesopt.transfer import Hints

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


def far_apart(x: Array, count: int, taken: Array, random: np.random.Generator) -> Indices:
    """Choose rows that are far apart: each is, of five drawn at random, the farthest from those chosen (Mitchell 1991).

    Args:
        x: (n, columns) rows to choose from.
        count: Number of rows to choose, at most n.
        taken: (m, columns) rows that are already chosen.
        random: Generator of the draws.

    Returns:
        Indices of the chosen rows.
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
    """Return candidates to time first: leaders of an earlier run, then others far from them and from each other.

    Args:
        columns: (N, columns) encoded candidates.
        known: Observations so far.
        settings: Settings, which give the number of timings.
        hints: Predictions of an earlier run; their skill limits the number of leaders.
        random: Generator of the draws.
        first: (N,) mask of candidates to exhaust before any others; None for no preference.

    Returns:
        Indices of candidates.
    """
    free = np.flatnonzero(known.is_open())
    if first is not None and first[free].any():
        free = free[first[free]]
    count = min(settings.start_timings, len(free))
    led = hints.leaders(free, int(settings.earlier_share * hints.skill * count)) if hints.skill else free[:0]
    rest = np.setdiff1d(free, led)
    taken = np.r_[columns[led], columns[known.looks > 0]]
    chosen: Indices = np.r_[led, rest[far_apart(columns[rest], count - len(led), taken, random)]]
    return chosen


def to_train(
    known: Observations,
    wanted: int,
    hints: Hints,
    random: np.random.Generator,
    first: Mask | None = None,
    hurried: bool = False,
    work: Array | None = None,
) -> Indices:
    """Return one timed candidate per interval of latencies, by turns the most promising and a random one.

    Low fidelity shows which is promising, or else an earlier run. Without both, it is the slowest, which is likely the
    least compressed. The largest of the candidates in `first` that surely keep the budget precedes them all, since it
    is likely the most accurate; if time is short, or none surely keeps it, it is the fastest instead. Where there is
    such a preference, the intervals nearest the budget come first, since a search may end before the last of them.

    Args:
        known: Observations so far.
        wanted: Number of candidates to return.
        hints: Predictions of an earlier run.
        random: Generator of the draws.
        first: (N,) mask of candidates to begin with; None for no preference.
        hurried: True if a training could not finish in time.
        work: (N,) size of the candidates in `first`; None takes their latency for it.

    Returns:
        Indices of candidates.
    """
    free = np.flatnonzero(known.waiting())
    if first is not None and wanted > 0 and first[free].any() and not known.is_finished()[first].any():
        whole = free[first[free]]
        sure = whole[~known.unsure[whole]]
        whole = sure if len(sure) else whole
        if hurried or not len(sure):
            begun = whole[[np.argmin(known.latency_ms[whole])]]
        else:
            begun = whole[[np.argmax((known.latency_ms if work is None else work)[whole])]]
        rest = _stretch_design(known, np.setdiff1d(free, begun), wanted - 1, hints, random, is_limited=True)
        chosen: Indices = np.r_[begun, rest]
        return chosen
    return _stretch_design(known, free, wanted, hints, random, is_limited=first is not None)


def _stretch_design(
    known: Observations, free: Indices, wanted: int, hints: Hints, random: np.random.Generator, is_limited: bool
) -> Indices:
    """Return one candidate per interval, the fastest first; with `is_limited` those nearest the budget first."""
    tried = free[np.isfinite(known.brief[free])]
    free = tried if len(tried) >= wanted else free
    wanted = min(wanted, len(free))
    if wanted <= 0:
        return free[:0]
    stretches = np.array_split(free[np.argsort(known.latency_ms[free], kind="stable")], wanted)
    if is_limited:
        stretches.reverse()
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
