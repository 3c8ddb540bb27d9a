"""Everything a run has measured, one line of JSON each, on disk before it is used.

The study's journal says which trials there were; the ledger says what was measured for them. Together they are
the only state of a run: starting it again reads both and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.files import append
from search.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One thing measured."""

    stage: str
    key: str
    value: Any  # plain JSON
    spent_s: dict[str, float]  # wall seconds by kind: structure, timing, training, scoring
    at_s: float  # wall seconds since the session began
    session: int
    state: str = ""  # digest of what it depends on beside its key: data, device, runtime, recipe


# A chosen model's file had to be made again and came out otherwise: what was measured of the old one is void.
REMADE = "remade"
OF_THE_FILE = ("accuracy", "confirm", "test", "coverage", "agreement")


class Ledger:
    """An append-only file of entries, open for one writer. A line cut short by a kill is dropped.

    Args:
        path: Where it is, or will be.

    Raises:
        SettingsError: A line is damaged. File and line are named.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = ""  # that every further entry names
        self._entries: dict[tuple[str, str], list[LedgerEntry]] = {}
        self._all: list[LedgerEntry] = []
        drop_torn_line(path)
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], 1):
            self._remember(_entry(line, path, number))
        self.session = 1 + max((entry.session for entry in self._all), default=-1)
        self._file = path.open("ab", buffering=0)

    def get(self, stage: str, key: str) -> LedgerEntry | None:
        """The newest entry of a stage and key, or None."""
        return found[-1] if (found := self._entries.get((stage, key))) else None

    def get_all(self, stage: str, key: str) -> tuple[LedgerEntry, ...]:
        """Return every entry of a stage and key, the oldest first."""
        return tuple(self._entries.get((stage, key), ()))

    def entries(self, stage: str | None = None) -> Iterator[LedgerEntry]:
        """All entries in the order they were written, of one stage or of all."""
        return (entry for entry in self._all if stage in (None, entry.stage))

    def put(self, stage: str, key: str, value: Any, spent_s: dict[str, float], at_s: float) -> LedgerEntry:
        """Write an entry and make sure it is on disk.

        Raises:
            HostError: There is no room; nothing is left of the entry.
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
        """Wall seconds spent on one kind of work, over all sessions."""
        return sum(entry.spent_s.get(kind, 0.0) for entry in self._all)

    def earlier_wall_s(self) -> float:
        """Wall seconds of the sessions before this one, up to the last thing each wrote."""
        last: dict[int, float] = {}
        for entry in self._all:
            if entry.session != self.session:
                last[entry.session] = max(last.get(entry.session, 0.0), entry.at_s)
        return sum(last.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _remember(self, entry: LedgerEntry) -> None:
        self._all.append(entry)
        self._entries.setdefault((entry.stage, entry.key), []).append(entry)
        if entry.stage == REMADE:
            for stage in OF_THE_FILE:
                self._entries.pop((stage, entry.key), None)


def _entry(line: bytes, path: Path, number: int) -> LedgerEntry:
    """Return what a line says."""
    try:
        entry = LedgerEntry(**json.loads(line))
        is_sound = isinstance(entry.stage, str) and isinstance(entry.key, str) and isinstance(entry.session, int)
        is_sound &= isinstance(entry.at_s, int | float) and isinstance(entry.spent_s, dict)
        if not is_sound or not all(isinstance(spent, int | float) for spent in entry.spent_s.values()):
            raise ValueError("a field has another type")
    except (ValueError, TypeError, RecursionError):
        raise SettingsError(
            f"{path} is damaged in line {number}: remove that line, and what it held is measured again; or name "
            "another --out"
        ) from None
    return entry


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: a line that a kill interrupted, measured by nobody."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
