"""End a command on the signals that ask for it as on Ctrl-C, so that everything that was opened is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

# Signals that ask a program to end. SIGPIPE is ignored by Python: a closed output is seen where it is written.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name))
# `timeout` and closing terminals send one and the same signal twice: what comes so soon is not a second wish.
REPEAT_S = 1.0


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread when a signal asks the command to end.

    Args:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context manager in which the first signal that asks to end raises Interrupted; a second one ends at once.

    A signal that is ignored already, as SIGHUP is by `nohup`, stays ignored.
    """
    first_s: float | None = None

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if first_s is None:
            first_s = time.monotonic()
            raise Interrupted(number)
        if number != signal.SIGHUP and time.monotonic() - first_s > REPEAT_S:
            _die(number)

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number in ENDING:
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _die(number: int) -> None:
    """End this process by the signal, without further ado but for the terminal's cursor."""
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def have_streams() -> None:
    """Give a process that was started without standard streams (`2>&-`) such that go nowhere.

    Without them the next files that are opened get their numbers, and what a library prints goes into the ledger.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
