"""Detect latency steps over channel counts from the timings of a series of probe points.

Kernels compute channels in blocks: a count that exceeds a full block by one costs another block, and all counts within
a block cost the same. In a probe point's network, every layer has a multiple of one period minus the same number of
channels, so that all layers step together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.measurement import Interval

RUNGS = 8  # probe points of a series; steps up to half as wide are detected


@dataclass(frozen=True)
class ProbePoint:
    """Hold the timing of one network of the series.

    Attributes:
        channels: Channels beyond a multiple of the period, from 1 to the period.
        rank_ms: Latency rank in ms.
        disturbed: Reason why the timing was disturbed; empty if it was not.
    """

    channels: int
    rank_ms: Interval
    disturbed: str = ""


@dataclass(frozen=True)
class Staircase:
    """Hold the probe points of one network, precision and runtime on one device.

    Attributes:
        rungs: Probe points, evenly spaced, by ascending channel count.
        image_px: Input size in px at which they were timed.
        why_not: One line that explains why no series was completed; empty if one was.
        seconds: Seconds that timing took in this run.
    """

    rungs: tuple[ProbePoint, ...]
    image_px: int
    why_not: str = ""
    seconds: float = 0.0

    @property
    def period(self) -> int:
        """Return the number of channels after which the steps are assumed to repeat."""
        return self.rungs[-1].channels

    def to(self, otherwise: str) -> str:
        """Return the rounding of channel counts, in the notation of `spaces/channel_rounding.py`.

        Args:
            otherwise: Rounding to return if no steps were found.
        """
        found = () if self.why_not else counts(self.rungs)
        return shortest(found, self.period) if found else otherwise


def edges(rungs: Sequence[ProbePoint]) -> tuple[int, ...]:
    """Return the largest channel counts before latency steps up.

    At such a count, the following rise is larger than the rises on both sides of it, even if every interval is taken at
    its least favourable end. On a line, and on any curve that bends in one direction, no rise is. Since both sides are
    needed, the outermost rises can't be judged; steps of two counts up to half the series are detected.
    """
    found = []
    for place in range(1, len(rungs) - 2):
        below, here, above, beyond = (rung.rank_ms for rung in rungs[place - 1 : place + 3])
        # one latency is part of two rises and can't be at both ends of its interval: interval differences are wrong
        over_the_last = above.low - 2 * here.high + below.low
        over_the_next = 2 * above.low - here.high - beyond.high
        if min(over_the_last, over_the_next, above.low - here.high) > 0:
            found.append(rungs[place].channels)
    return tuple(found)


def counts(rungs: Sequence[ProbePoint]) -> tuple[int, ...]:
    """Return the channel counts at which pruning may end; empty if no step was detected.

    They are the edges, including the period's. Another count is kept as well if the channels up to the next of these
    counts are not surely cheaper than the average channel: such a count is not proved to lie on a step.
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
    """Encode counts in the notation of `spaces/channel_rounding.py`, by the shortest equivalent period.

    Args:
        found: Channel counts, ascending up to `period`.
        period: Channels after which the counts repeat.
    """
    for shorter in (n for n in found if period % n == 0):
        part = [n for n in found if n <= shorter]
        if set(found) == {n + k for n in part for k in range(0, period, shorter)}:
            return "+".join(map(str, part))
    raise ValueError(f"{found} must rise up to the period {period}")


def from_dict(data: dict[str, Any]) -> Staircase:
    """Return the Staircase that `asdict` turned into this mapping."""
    rungs = tuple(ProbePoint(**(rung | {"rank_ms": Interval(**rung["rank_ms"])})) for rung in data["rungs"])
    return Staircase(**(data | {"rungs": rungs}))
