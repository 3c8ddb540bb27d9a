"""Keep the state of a simulated board that outlives its process: its files, and the numbers of its starts and boots."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from remote.files import home_folder


class BoardFolder:
    """Hold the folder of a board's files, and count its starts and boots."""

    def __init__(self, board: str) -> None:
        user = home_folder()
        home = os.environ.get("XDG_CACHE_HOME") or (user and user / ".cache")
        if not home:
            raise OSError("no home folder is known for this user: set HOME or XDG_CACHE_HOME")
        self.path = Path(home) / "edgefront-simulated" / board
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def count(self, **more: int) -> tuple[int, int]:
        """Add `more` and return (starts, boots) so far."""
        with (self.path / "counts.json").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            counts = {"starts": 0, "boots": 0} | _numbers(file.read())
            counts |= {name: counts[name] + number for name, number in more.items()}
            file.truncate(0)
            file.write(json.dumps(counts))
        return counts["starts"], counts["boots"]


def _numbers(text: str) -> dict[str, int]:
    """Return the counts in a file; none where it was cut short by a full disk."""
    try:
        found = json.loads(text)
        return {name: int(number) for name, number in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
