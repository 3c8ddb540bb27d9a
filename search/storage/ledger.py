"""Record everything that a run measures, one line of JSON each, on disk before it is used.

The study's journal lists the trials; the ledger holds their measurements. Together they are the only state of a run: a
restarted run reads both and continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.files import append
from search.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """Hold one measured value.

    Attributes:
        stage: Evaluation stage, such as `latency`.
        key: Key of what was measured within the stage.
        value: Plain JSON value.
        spent_s: Wall time in seconds by kind of work: structure, timing, training, scoring.
        at_s: Wall time in seconds since the session began.
        session: Number of the session that wrote the entry, from 0.
        state: Digest of the dependencies besides the key: data, device, runtime, recipe.
    """

    stage: str
    key: str
    value: Any
    spent_s: dict[str, float]
    at_s: float
    session: int
    state: str = ""


# The chosen model's file was rebuilt and differs from the old one: all measurements of the old file are void.
REMADE = "remade"
OF_THE_FILE = ("accuracy", "confirm", "test", "coverage", "agreement")


class Ledger:
    """Append entries to a file that has a single writer; an incomplete last line, left by a kill, is dropped.

    Args:
        path: Ledger file; it is created if missing.

    Raises:
        SettingsError: A line is damaged. The message names file and line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = ""  # digest that every later entry names
        self._entries: dict[tuple[str, str], list[LedgerEntry]] = {}
        self._all: list[LedgerEntry] = []
        drop_torn_line(path)
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], 1):
            self._remember(_entry(line, path, number))
        self.session = 1 + max((entry.session for entry in self._all), default=-1)
        self._file = path.open("ab", buffering=0)

    def get(self, stage: str, key: str) -> LedgerEntry | None:
        """Return the newest entry of a stage and key, or None."""
        return found[-1] if (found := self._entries.get((stage, key))) else None

    def get_all(self, stage: str, key: str) -> tuple[LedgerEntry, ...]:
        """Return every entry of a stage and key, oldest first."""
        return tuple(self._entries.get((stage, key), ()))

    def entries(self, stage: str | None = None) -> Iterator[LedgerEntry]:
        """Iterate over the entries of one stage, or of all stages, in the order in which they were written."""
        return (entry for entry in self._all if stage in (None, entry.stage))

    def put(self, stage: str, key: str, value: object, spent_s: dict[str, float], at_s: float) -> LedgerEntry:
        """Write an entry and make sure that it is on disk.

        Args:
            stage: Evaluation stage.
            key: Key within the stage; a later entry of the same key takes precedence.
            value: Plain JSON value.
            spent_s: Wall time in seconds by kind of work.
            at_s: Wall time in seconds since the session began.

        Returns:
            The entry as written.

        Raises:
            HostError: The disk is full; nothing of the entry is left in the file.
        """
        entry = LedgerEntry(
            stage=stage,
            key=key,
            value=value,
            spent_s={k: round(v, 4) for k, v in spent_s.items()},
            at_s=at_s,
            session=self.session,
            state=self.state,
        )
        append(self._file, (json.dumps(entry.__dict__, allow_nan=True) + "\n").encode(), self._path)
        self._remember(entry)
        return entry

    def sum_spent_s(self, kind: str) -> float:
        """Return the wall time in seconds spent on one kind of work, over all sessions."""
        return sum(entry.spent_s.get(kind, 0.0) for entry in self._all)

    def earlier_wall_s(self) -> float:
        """Return the wall time in seconds of the previous sessions, each up to its last entry."""
        return _wall_s(entry for entry in self._all if entry.session != self.session)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _remember(self, entry: LedgerEntry) -> None:
        self._all.append(entry)
        self._entries.setdefault((entry.stage, entry.key), []).append(entry)
        if entry.stage == REMADE:
            for stage in OF_THE_FILE:
                self._entries.pop((stage, entry.key), None)


def read_wall_s(path: Path) -> float:
    """Return the wall time in seconds of all sessions of a run, each up to its last entry; only read the file.

    Args:
        path: Ledger file; a missing one counts as empty.

    Raises:
        SettingsError: A line is damaged. The message names file and line.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return _wall_s(_entry(line, path, number) for number, line in enumerate(lines, 1))


def _wall_s(entries: Iterable[LedgerEntry]) -> float:
    """Return the sum of the sessions' last times in seconds."""
    last: dict[int, float] = {}
    for entry in entries:
        last[entry.session] = max(last.get(entry.session, 0.0), entry.at_s)
    return sum(last.values())


def _entry(line: bytes, path: Path, number: int) -> LedgerEntry:
    """Return the entry that a line holds."""
    try:
        entry = LedgerEntry(**json.loads(line))
        is_sound = isinstance(entry.stage, str) and isinstance(entry.key, str) and isinstance(entry.session, int)
        is_sound &= isinstance(entry.at_s, int | float) and isinstance(entry.spent_s, dict)
        if not is_sound or not all(isinstance(spent, int | float) for spent in entry.spent_s.values()):
            raise ValueError("a field has another type")
    except (ValueError, TypeError, RecursionError):
        raise SettingsError(
            f"{path} is damaged in line {number}: remove that line, and its measurement is repeated; or name "
            "another --out"
        ) from None
    return entry


def drop_torn_line(path: Path) -> None:
    """Truncate a file after its last newline: a kill interrupted the line that follows, so nothing in it counts."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
