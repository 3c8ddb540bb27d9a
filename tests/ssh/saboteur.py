"""Does something to a line under a running search at chosen moments, and keeps what was going on then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.ssh.rig import Rig
from tests.ssh.sessions import has_loaded, timing_child


@dataclass(frozen=True)
class Cut:
    """What the board did when its line was cut."""

    timing: int  # number of the timing that was under way
    loaded: bool  # the timing process had its runtime loaded
    held: bool  # the timing was still under way


class Saboteur(threading.Thread):
    """Counts the timings on the board and calls `act`, which cuts the line, under those numbered in `when`.

    With `loaded`, not before the timing process has its runtime and `into_s` have gone by: that is the timing
    itself. Without, at once: the process is being started.
    """

    def __init__(self, rig: Rig, act: Callable[[], None], when: set[int], loaded: bool, into_s: float = 0.2) -> None:
        super().__init__(daemon=True)
        self._rig, self._act, self._when, self._loaded, self._into_s = rig, act, set(when), loaded, into_s
        self._over = threading.Event()
        self.timings = 0
        self.cuts: list[Cut] = []

    def run(self) -> None:
        note, seen = self._rig.note(), ""
        while not self._over.wait(0.005):
            try:
                now = f"{note.stat().st_ino} {note.stat().st_mtime_ns}"
            except OSError:
                continue
            if now == seen:
                continue
            seen, self.timings = now, self.timings + 1
            if self.timings in self._when:
                self._strike()

    def stop(self) -> None:
        """No more cuts."""
        self._over.set()
        self.join(10)

    def _strike(self) -> None:
        if self._loaded and not self._wait(lambda: has_loaded(timing_child(self._rig))):
            self._when.add(self.timings + 1)  # that one was too short: the next
            return
        if self._loaded:
            time.sleep(self._into_s)
        child, held = timing_child(self._rig), self._rig.note().exists()
        if self._loaded and not held:
            self._when.add(self.timings + 1)
            return
        self.cuts.append(Cut(self.timings, has_loaded(child), held))
        self._act()

    def _wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        end_s = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < end_s and self._rig.note().exists():
            time.sleep(0.005)
        return met
