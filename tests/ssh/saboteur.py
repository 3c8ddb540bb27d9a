"""Does something to a line under a running search at chosen moments, and keeps what was going on then."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.ssh.rig import Rig
from tests.ssh.sessions import has_loaded, timing_child


@dataclass(frozen=True)
class Strike:
    """What is done to the line under a timing, and when: once its process has the runtime loaded, or at once."""

    act: Callable[[], None]
    loaded: bool


@dataclass(frozen=True)
class Struck:
    """What went on then."""

    strike: Strike
    loaded: bool  # the timing process had its runtime loaded
    held: bool  # the timing was still under way


class Saboteur(threading.Thread):
    """Counts the timings on the board and strikes under those that the plan numbers.

    A timing that ended before it was struck is let go, and the next one is struck instead.
    """

    def __init__(self, rig: Rig, plan: dict[int, Strike], into_s: float = 0.2) -> None:
        super().__init__(daemon=True)
        self._rig, self._plan, self._into_s = rig, dict(plan), into_s
        self._over = threading.Event()
        self.timings = 0
        self.done: list[Struck] = []

    def __enter__(self) -> Saboteur:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join(10)

    def run(self) -> None:
        note, seen = self._rig.note(), ""
        while not self._over.wait(0.005):
            try:
                found = note.stat()
            except OSError:
                continue
            if (now := f"{found.st_ino} {found.st_mtime_ns}") == seen:
                continue
            seen, self.timings = now, self.timings + 1
            strike = self._plan.pop(self.timings, None)
            if strike and not self._strikes(strike):
                free = next(number for number in itertools.count(self.timings + 1) if number not in self._plan)
                self._plan[free] = strike

    def _strikes(self, strike: Strike) -> bool:
        if strike.loaded:
            self._wait(lambda: has_loaded(timing_child(self._rig)))
            time.sleep(self._into_s)
        struck = Struck(strike, has_loaded(timing_child(self._rig)), self._rig.note().exists())
        if not struck.held or struck.loaded != strike.loaded:
            return False
        self.done.append(struck)
        strike.act()
        return True

    def _wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        end_s = time.monotonic() + seconds
        while not condition() and time.monotonic() < end_s and self._rig.note().exists():
            time.sleep(0.005)
