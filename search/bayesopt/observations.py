"""What it costs, what has been measured, and what an earlier study measured: the caller's side of the proposer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ProposerSettings:
    """What it costs and how far it looks. Counts are per full training."""

    timings: int = 10  # latencies asked for, those asked for again included
    tries: int = 4  # low-fidelity trainings; 0 without a low fidelity
    start_timings: int = 64
    start_tries: int = 60
    start_trainings: int = 8
    budget_weight: float = 0.6  # of the best within the budget, in latency axes, times the share that is beyond it
    least_weight: float = 0.1  # of the same, where next to nothing is beyond it
    beyond_log_sd: float = 0.15  # how far relatives of what is over the budget may lie from it: a step of an axis or so
    any_share: float = 0.2  # of timings and of low-fidelity trainings, drawn blindly
    brief_share: float = 0.15  # of trainings, given to who leads by low fidelity alone
    pool: int = 1200  # strangers looked at, each round, besides the neighbours of the front
    timed_pool: int = 500  # timed and untrained ones looked at
    points: int = 300  # most that a surrogate is fitted to
    suspect_factor: float = 1.4  # too fast by this, and by `suspect_sd`, is looked at again
    suspect_sd: float = 5.0
    within: bool = False  # nothing beyond the budget counts: for searches that never train it
    per_second: bool = False  # by gain per predicted second of training: for searches with a limit of time
    earlier_share: float = 0.5  # of the start that an earlier study may fill, if it can foretell its own measurements


@dataclass(kw_only=True)
class Observations:
    """What has been measured, by candidate; nan is unknown. The caller fills it in."""

    latency_ms: Array  # (N,) of several looks the median, or whatever is believed in the end
    looks: Indices  # (N,) times the latency was asked for
    failed: Mask  # (N,) could not be built, timed or trained
    accuracy: Array  # (N,) full fidelity
    brief: Array  # (N,) low fidelity, never mixed with the other
    closed: Mask  # (N,) not to be proposed any more
    beyond: Mask  # (N,) over the budget, so closed; low fidelity may teach of its relatives within
    train_s: Array  # (N,) seconds that training it took, full fidelity
    eased: Mask  # (N,) trained for another already: a structure is trained once, whatever precision it runs in

    @staticmethod
    def nothing(n: int) -> Observations:
        """Of n candidates nothing."""
        unknown, no = np.full(n, np.nan), np.zeros(n, dtype=bool)
        looks = np.zeros(n, dtype=np.int64)
        return Observations(unknown, looks, no, *(a.copy() for a in (unknown, unknown, no, no, unknown, no)))

    def has_latency(self) -> Mask:
        """Have a latency that can be worked with."""
        return np.isfinite(self.latency_ms) & (self.latency_ms > 0) & ~self.failed

    def has_accuracy(self) -> Mask:
        """Have both latency and accuracy."""
        return self.has_latency() & np.isfinite(self.accuracy)

    def is_finished(self) -> Mask:
        """Trained, or stopped by a gate after the low fidelity."""
        return self.has_accuracy() | (self.closed & ~self.beyond & np.isfinite(self.brief))

    def waiting(self) -> Mask:
        """Timed, not trained, and may still add to the front."""
        return self.has_latency() & np.isnan(self.accuracy) & ~self.closed & ~self.is_hopeless()

    def is_hopeless(self) -> Mask:
        """Timed, and no faster than one that has every answer right."""
        whole = self.has_accuracy() & (self.accuracy >= 1.0)
        limit_ms = self.latency_ms[whole].min() if whole.any() else np.inf
        return self.has_latency() & (self.latency_ms >= limit_ms)

    def is_open(self) -> Mask:
        """Open to a first timing."""
        return (self.looks == 0) & ~self.failed & ~self.closed & np.isnan(self.accuracy)


@dataclass(frozen=True)
class PriorRun:
    """An earlier study of these candidates or some of them, of whatever device and data; nan is unknown."""

    latency_ms: Array  # (N,)
    accuracy: Array  # (N,)


def settings_for(
    latency_s: float, brief_s: float | None, accuracy_s: float, seconds_left: float = float("inf")
) -> ProposerSettings:
    """Counts such that the cheap stages together take no more than about as long as the trainings they save.

    Timing may take a quarter of the trainings' time, low fidelity 0.4 of it; each at most what the default says. Of
    limited time the start may take a third.
    """
    plain = ProposerSettings()
    timings = int(np.clip(0.25 * accuracy_s / max(latency_s, 1e-9), 1, plain.timings))
    tries = int(min(0.4 * accuracy_s / max(brief_s, 1e-9), plain.tries)) if brief_s else 0

    def start(count: int, fewest: int, share: float, each_s: float | None) -> int:
        return int(max(min(count, share * seconds_left / max(each_s or 1.0, 1e-9)), min(count, fewest)))

    return ProposerSettings(
        timings=timings,
        tries=tries,
        start_timings=start(timings * plain.start_timings // plain.timings, 8, 0.06, latency_s),
        start_tries=start(tries * plain.start_tries // plain.tries, 2, 0.1, brief_s),
        start_trainings=start(plain.start_trainings, 2, 0.16, accuracy_s),
    )
