"""Limit the time of a training to what is left of the run, or less where a second try must remain possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from remote.errors import EdgefrontError


class OutOfTimeError(EdgefrontError):
    """Raised when a training can't end in the time that is left for it, which says nothing of the candidate."""

    kind = "out_of_time"

    def __init__(self, message: str, share: float = 0.0) -> None:
        """Say why.

        Args:
            message: One line for people.
            share: Share of the training's steps for which the time suffices, 0..1; 0 where that is not known.
        """
        super().__init__(message)
        self.share = share


class TimeAllowance:
    """Hold the seconds that the current work may still take; infinite without a time limit."""

    def __init__(self, left: Callable[[], float] = lambda: math.inf) -> None:
        """Take the seconds from `left`, which is called anew each time."""
        self._left = left
        self._caps: list[Callable[[], float]] = []

    def take_from(self, left: Callable[[], float]) -> None:
        """Take the seconds from another function: a run's costs are known only once it is open."""
        self._left = left

    def left_s(self) -> float:
        """Return the seconds left; below 0 after the limit."""
        return min(self._left(), *(cap() for cap in self._caps), math.inf)

    @contextmanager
    def at_most(
        self, seconds: float, clock: Callable[[], float], is_lifted: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Context manager in which no more than `seconds` from now are left, until `is_lifted`.

        Args:
            seconds: Cap, from now on.
            clock: Returns seconds, such as `time.monotonic`.
            is_lifted: Called each time; returns whether the cap no longer holds.
        """
        end_s = clock() + seconds
        self._caps.append(lambda: math.inf if is_lifted() else end_s - clock())
        try:
            yield
        finally:
            self._caps.pop()
