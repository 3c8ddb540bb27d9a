"""Where latency steps over channel counts, told from what timing a ladder of networks gave.

Kernels compute channels in blocks: a count one above a full block costs a block more, and the counts within a block
cost the same. All layers of a ladder's network are a multiple of one period less the same number of channels, so that
they step together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.measurement import Interval

RUNGS = 8  # networks of a ladder; steps as wide as half of it are seen


@dataclass(frozen=True)
class ProbePoint:
    """One network of a ladder."""

    channels: int  # beyond a multiple of the period, 1 up to the period
    rank_ms: Interval
    disturbed: str = ""


@dataclass(frozen=True)
class Staircase:
    """What is known of a network in one precision and runtime on one device. `rungs` are evenly spaced and rise."""

    rungs: tuple[ProbePoint, ...]
    image_px: int
    why_not: str = ""  # no ladder was timed to its end, one line
    seconds: float = 0.0  # that timing it took this run

    @property
    def period(self) -> int:
        """Channels after which the steps are taken to repeat."""
        return self.rungs[-1].channels

    def to(self, otherwise: str) -> str:
        """What counts are rounded to, as in `spaces/channel_rounding.py`; `otherwise` where there are no steps."""
        found = () if self.why_not else counts(self.rungs)
        return shortest(found, self.period) if found else otherwise


def edges(rungs: Sequence[ProbePoint]) -> tuple[int, ...]:
    """The largest counts before latency steps up.

    There the rise that follows is larger than the rises on both sides of it, even where every interval is taken at the
    end that speaks against it. On a line, and on any curve that bends one way, no rise is. As both sides are needed the
    outermost rises can't be told; steps of two counts up to half a ladder can.
    """
    found = []
    for place in range(1, len(rungs) - 2):
        below, here, above, beyond = (rung.rank_ms for rung in rungs[place - 1 : place + 3])
        # a latency that is part of two rises can't be at both of its ends: so no differences of intervals
        over_the_last = above.low - 2 * here.high + below.low
        over_the_next = 2 * above.low - here.high - beyond.high
        if min(over_the_last, over_the_next, above.low - here.high) > 0:
            found.append(rungs[place].channels)
    return tuple(found)


def counts(rungs: Sequence[ProbePoint]) -> tuple[int, ...]:
    """Where pruning may end: at the edges, the period's among them; nowhere where no step was seen.

    And at any other count for which the channels up to the next of these are not surely cheaper than channels are on
    the average: it is not seen to lie on a step.
    """
    ends = edges(rungs)
    if not ends:
        return ()
    first, last = rungs[0], rungs[-1]
    price_ms = (last.rank_ms.value - first.rank_ms.value) / (last.channels - first.channels)
    found = [last]
    for rung in reversed(rungs[:-1]):
        more = found[-1].channels - rung.channels
        if rung.channels in ends or found[-1].rank_ms.high - rung.rank_ms.low >= price_ms * more:
            found.append(rung)
    return tuple(rung.channels for rung in reversed(found)) if len(found) < len(rungs) else ()


def shortest(found: Sequence[int], period: int) -> str:
    """Counts as a word for `spaces/channel_rounding.py`, by the shortest period that gives the same."""
    for shorter in (n for n in found if period % n == 0):
        part = [n for n in found if n <= shorter]
        if set(found) == {n + k for n in part for k in range(0, period, shorter)}:
            return "+".join(map(str, part))
    raise ValueError(f"{found} must rise up to the period {period}")


def from_dict(data: dict[str, Any]) -> Staircase:
    """The Staircase whose `asdict` was `data`."""
    rungs = tuple(ProbePoint(**(rung | {"rank_ms": Interval(**rung["rank_ms"])})) for rung in data["rungs"])
    return Staircase(**(data | {"rungs": rungs}))
