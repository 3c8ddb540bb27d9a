"""python -m tests [--fast] [WORDS FOR PYTEST]: every test, and a last line that counts them.

First those that may run side by side, one a core, then those that need the whole machine, alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

import pytest

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
NONE_FOUND = pytest.ExitCode.NO_TESTS_COLLECTED


class Tally:
    """What became of the tests of several runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Adds one run's."""
        for outcome in OUTCOMES:
            self.counts[outcome] += len(terminalreporter.stats.get(outcome, ()))

    def line(self, seconds: float) -> str:
        """For people."""
        told = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items() if count)
        return f"{self.counts.total()} tests: {told or 'none'} in {seconds // 60:.0f} min {seconds % 60:.0f} s"


def main(words: Sequence[str]) -> int:
    """0 if every test passed or was skipped."""
    began, tally = time.monotonic(), Tally()
    fast = " and not slow" if "--fast" in words else ""
    words = [word for word in words if word != "--fast"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # as many as a core runs at a time
    side_by_side = pytest.main(
        ["-n", str(cores), "--dist", "loadfile", "--no-loadscope-reorder", "-m", f"not alone{fast}", *words], [tally]
    )
    os.environ.pop("OMP_NUM_THREADS")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    alone = pytest.main(["-m", f"alone{fast}", *words], [tally])
    print(tally.line(time.monotonic() - began), flush=True)
    codes = {int(side_by_side), int(alone)}
    return max(codes - {int(NONE_FOUND)}, default=int(NONE_FOUND))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
