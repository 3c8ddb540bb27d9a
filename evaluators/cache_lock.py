"""Lock files of a shared cache, so that processes do not repeat the same work; a repetition does no harm."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TICK_S = 0.1
WAIT_S_MAX = 600.0  # wait for another process, which may be suspended


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Context manager that waits until no other process or thread holds the lock `path`, and holds it.

    Args:
        path: File of the lock, which is created, and removed at the end.

    Yields:
        Whether the lock is held. It is not if the file system has no locks, the file can't be created, or the other
        process holds it for longer than `WAIT_S_MAX`: then both do the work.
    """
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        yield False
        return
    is_held = is_busy = False
    try:
        is_held, is_busy = _wait(held)
        yield is_held
    finally:
        if not is_busy:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(held)


def _wait(held: int) -> tuple[bool, bool]:
    """Return whether the lock is held now, and whether another process still holds it."""
    deadline = time.monotonic() + WAIT_S_MAX
    while fcntl is not None and time.monotonic() < deadline:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True, False
        except BlockingIOError:
            time.sleep(TICK_S)
        except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS: there are no locks here
            return False, False
    return False, fcntl is not None
