"""Define the proposer's input: settings, measurements so far, and measurements of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ProposerSettings:
    """Hold the proposer's settings; counts are per full training.

    Attributes:
        timings: Latency requests, including remeasurements.
        tries: Low-fidelity trainings; 0 without a low fidelity.
        start_timings: Timings of the initial design.
        start_tries: Low-fidelity trainings of the initial design.
        start_trainings: Full trainings of the initial design.
        budget_weight: Weight of the best accuracy within the budget, in lengths of the latency axis, times the share of
            the space that is over the budget.
        least_weight: Lower limit of that weight, for a space with almost nothing over the budget.
        beyond_log_sd: Log-latency distance between a candidate over the budget and similar candidates within it, about
            one step of an axis.
        any_share: Share of timings and of low-fidelity trainings that are drawn at random.
        brief_share: Share of trainings given to the candidate that leads by low fidelity alone.
        pool: Random candidates scored per round, besides the neighbours of the front.
        timed_pool: Timed and untrained candidates scored per round.
        points: Largest number of points that a surrogate is fitted to.
        suspect_factor: Factor by which a latency must be below its prediction to be an outlier, which is remeasured.
        suspect_sd: Robust standard deviations by which it must be below as well.
        within: True if candidates over the budget have no value, for searches that never train them.
        per_second: True to rank by gain per predicted second of training, for searches with a time limit.
        earlier_share: Share of the initial design that an earlier run may fill if it predicts its own measurements.
    """

    timings: int = 10
    tries: int = 4
    start_timings: int = 64
    start_tries: int = 60
    start_trainings: int = 8
    budget_weight: float = 0.6
    least_weight: float = 0.1
    beyond_log_sd: float = 0.15
    any_share: float = 0.2
    brief_share: float = 0.15
    pool: int = 1200
    timed_pool: int = 500
    points: int = 300
    suspect_factor: float = 1.4
    suspect_sd: float = 5.0
    within: bool = False
    per_second: bool = False
    earlier_share: float = 0.5


@dataclass(kw_only=True)
class Observations:
    """Hold what was measured of N candidates; nan is unknown. The caller fills it in.

    Attributes:
        latency_ms: (N,) latency in ms; of several timings the median, or the value that finally counts.
        looks: (N,) number of timings.
        failed: (N,) True if the candidate could not be built, timed or trained.
        accuracy: (N,) accuracy at full fidelity, 0..1.
        brief: (N,) accuracy at low fidelity, never mixed with full fidelity.
        closed: (N,) True if the candidate must not be proposed any more.
        beyond: (N,) True if it is over the budget and therefore closed; its low fidelity may inform about similar
            candidates within the budget.
        train_s: (N,) seconds of its training at full fidelity.
        eased: (N,) True if its structure was trained already: a structure is trained once, whatever precision it runs
            in.
    """

    latency_ms: Array
    looks: Indices
    failed: Mask
    accuracy: Array
    brief: Array
    closed: Mask
    beyond: Mask
    unsure: Mask
    train_s: Array
    eased: Mask

    @staticmethod
    def nothing(n: int) -> Observations:
        """Return an empty observation table for n candidates."""
        unknown, no = np.full(n, np.nan), np.zeros(n, dtype=bool)
        looks = np.zeros(n, dtype=np.int64)
        return Observations(
            latency_ms=unknown,
            looks=looks,
            failed=no,
            accuracy=unknown.copy(),
            brief=unknown.copy(),
            closed=no.copy(),
            beyond=no.copy(),
            unsure=no.copy(),
            train_s=unknown.copy(),
            eased=no.copy(),
        )

    def has_latency(self) -> Mask:
        """Return (N,) True where a usable latency is known."""
        return np.isfinite(self.latency_ms) & (self.latency_ms > 0) & ~self.failed

    def has_accuracy(self) -> Mask:
        """Return (N,) True where both latency and accuracy are known."""
        return self.has_latency() & np.isfinite(self.accuracy)

    def is_finished(self) -> Mask:
        """Return (N,) True where a candidate was trained, or stopped by a stage limit after the low fidelity."""
        return self.has_accuracy() | (self.closed & ~self.beyond & np.isfinite(self.brief))

    def waiting(self) -> Mask:
        """Return (N,) True where a candidate is timed, not trained, and may still improve the front."""
        return self.has_latency() & np.isnan(self.accuracy) & ~self.closed & ~self.is_hopeless()

    def is_hopeless(self) -> Mask:
        """Return (N,) True where a timed candidate is no faster than one with accuracy 1."""
        whole = self.has_accuracy() & (self.accuracy >= 1.0)
        limit_ms = self.latency_ms[whole].min() if whole.any() else np.inf
        return self.has_latency() & (self.latency_ms >= limit_ms)

    def is_open(self) -> Mask:
        """Return (N,) True where a candidate may be timed for the first time."""
        never_timed: Mask = (self.looks == 0) & ~self.failed & ~self.closed & np.isnan(self.accuracy)
        return never_timed


@dataclass(frozen=True)
class PriorRun:
    """Hold an earlier run's measurements of these candidates, of whatever device and data; nan is unknown.

    Attributes:
        latency_ms: (N,) latency in ms.
        accuracy: (N,) accuracy at full fidelity, 0..1.
    """

    latency_ms: Array
    accuracy: Array


def settings_for(
    latency_s: float, brief_s: float | None, accuracy_s: float, seconds_left: float = float("inf")
) -> ProposerSettings:
    """Return settings by which the cheap stages take no longer than about the trainings that they save.

    Timing may take a quarter of the trainings' time, low fidelity 0.4 of it, each up to its default count. Of a limited
    time, the initial design may take a third.

    Args:
        latency_s: Seconds of one timing.
        brief_s: Seconds of one low-fidelity training; None if there is no low fidelity.
        accuracy_s: Seconds of one full training.
        seconds_left: Remaining seconds of the time limit; infinite without one.
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
