"""End a command on termination signals as on Ctrl-C, so that every open resource is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

# Signals that ask a program to end. Python ignores SIGPIPE: a closed output is detected when it is written to.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name))
# `timeout` and closing terminals send the same signal twice: a repeat within this time is no second request.
REPEAT_S = 1.0


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread when a signal asks the command to end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Return 128 plus the signal's number, as shells do.

        That is 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP.
        """
        return 128 + self.number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context manager in which the first termination signal raises Interrupted; a second one ends the process at once.

    A signal that is already ignored, as SIGHUP is under `nohup`, stays ignored.
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
    """End this process by the signal at once, after restoring only the terminal's cursor."""
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def have_streams() -> None:
    """Open the null device for each standard stream that the process was started without (`2>&-`).

    Without this, the next opened files would receive those descriptors, and the output of a library would go into the
    ledger.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # receives the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
