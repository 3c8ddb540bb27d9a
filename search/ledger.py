"""Everything a run has measured, one line of JSON each, on disk before it is used.

The study's journal says which trials there were; the ledger says what was measured for them. Together they are
the only state of a run: starting it again reads both and goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One thing measured."""

    stage: str
    key: str
    value: Any  # plain JSON
    spent_s: dict[str, float]  # wall seconds by kind: structure, timing, training, scoring
    at_s: float  # wall seconds since the session began
    session: int
    state: str = ""  # digest of what it depends on beside its key: data, device, runtime, recipe


class Ledger:
    """An append-only file of entries, open for one writer. A line cut short by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = ""  # that every further entry names
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._all: list[Entry] = []
        drop_torn_line(path)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            self._remember(Entry(**json.loads(line)))
        self.session = 1 + max((entry.session for entry in self._all), default=-1)
        self._file = path.open("a", encoding="utf-8")

    def get(self, stage: str, key: str) -> Entry | None:
        """The newest entry of a stage and key, or None."""
        return found[-1] if (found := self._entries.get((stage, key))) else None

    def get_all(self, stage: str, key: str) -> tuple[Entry, ...]:
        """Return every entry of a stage and key, the oldest first."""
        return tuple(self._entries.get((stage, key), ()))

    def entries(self, stage: str | None = None) -> Iterator[Entry]:
        """All entries in the order they were written, of one stage or of all."""
        return (entry for entry in self._all if stage in (None, entry.stage))

    def put(self, stage: str, key: str, value: Any, spent_s: dict[str, float], at_s: float) -> Entry:
        """Write an entry and make sure it is on disk."""
        entry = Entry(stage, key, value, {k: round(v, 4) for k, v in spent_s.items()}, at_s, self.session, self.state)
        self._file.write(json.dumps(entry.__dict__, allow_nan=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._remember(entry)
        return entry

    def spent_s(self, kind: str) -> float:
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

    def _remember(self, entry: Entry) -> None:
        self._all.append(entry)
        self._entries.setdefault((entry.stage, entry.key), []).append(entry)


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: a line that a kill interrupted, measured by nobody."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
