"""Keep Optuna's journal of a run folder intact on a full disk, and locate damaged lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from remote.files import host_error
from search.settings import SettingsError
from search.storage.ledger import drop_torn_line

Answer = TypeVar("Answer")


class _LockHeldByRun(JournalFileOpenLock):
    """Replace Optuna's lock: the journal's only writer already holds the lock of the run folder."""

    def acquire(self) -> bool:
        """Return True."""
        return True

    def release(self) -> None:
        """Do nothing."""


class Journal(JournalFileBackend):
    """Store Optuna's journal for one writer; an incomplete line, left by a kill or a full disk, is dropped.

    Args:
        path: Journal file; it is created if missing.

    Raises:
        HostError: The file can't be written; only complete lines are left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        drop_torn_line(path)
        for stale in path.parent.glob(f"{path.name}.lock*"):  # earlier versions left lock files
            stale.unlink()
        super().__init__(str(path), _LockHeldByRun(str(path)))

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        """Append all entries, or none if that fails."""
        size = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except BaseException as error:
            os.truncate(self._path, size)
            if isinstance(error, OSError) and (found := host_error(error, f"writing {self._path}")):
                raise found from None
            raise


def replay_journal(path: Path, work: Callable[[], Answer]) -> Answer:
    """Return the result of a function that reads a journal.

    Args:
        path: Journal file.
        work: Function that reads it.

    Raises:
        SettingsError: The journal is damaged. The message names the line.
    """
    try:
        return work()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        if isinstance(error, SettingsError):
            raise
        where = _find_damaged_line(path)
        if where is None:
            raise
        raise SettingsError(
            f"{path} is damaged{where}: remove the file (the measurements are in ledger.jsonl and stay), or name "
            "another --out"
        ) from None


def _find_damaged_line(path: Path) -> str | None:
    """Return a description of the first unreadable line, or None if every line can be read."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            return f" in line {number}"
        if not isinstance(entry, dict) or "op_code" not in entry:
            return f" in line {number}"
    return None
