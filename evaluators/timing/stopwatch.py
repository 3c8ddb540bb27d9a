"""Measure the wall time of a run by kind of work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Sum seconds by kind of work: structure, timing, training, scoring. Kinds never nest."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.spent_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Context manager that counts the time spent inside as `kind`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent_s[kind] = self.spent_s.get(kind, 0.0) + time.monotonic() - began

    def wall_s(self) -> float:
        """Return the seconds since this stopwatch was created."""
        return time.monotonic() - self._started

    def lap(self) -> dict[str, float]:
        """Return the seconds by kind since the last lap."""
        spent = dict(self.spent_s)
        self.spent_s.clear()
        return spent
