"""How long a training may take: what is left of a run's time, or less where something must remain for a second try."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class OutOfTimeError(Exception):
    """Raised when a training can't end in the time that is left for it. It says nothing of the candidate."""

    kind = "out_of_time"


class TimeAllowance:
    """Seconds that the work under way may still take; infinite without a time limit."""

    def __init__(self, left: Callable[[], float] = lambda: math.inf) -> None:
        """Take seconds from `left`, which is asked anew each time."""
        self._left = left
        self._caps: list[Callable[[], float]] = []

    def take_from(self, left: Callable[[], float]) -> None:
        """Take seconds from another clock: a run's costs are known only once it is open."""
        self._left = left

    def left_s(self) -> float:
        """Return the seconds left; below 0 when they are over."""
        return min(self._left(), *(cap() for cap in self._caps), math.inf)

    @contextmanager
    def at_most(
        self, seconds: float, clock: Callable[[], float], is_lifted: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Context manager in which no more than `seconds` from now are left, until `is_lifted`.

        Args:
            seconds: From now on.
            clock: Tells seconds, such as `time.monotonic`.
            is_lifted: Asked each time: whether the cap no longer holds.
        """
        end_s = clock() + seconds
        self._caps.append(lambda: math.inf if is_lifted() else end_s - clock())
        try:
            yield
        finally:
            self._caps.pop()
