"""Write for people on whatever there is: terminals that are not UTF-8, closed pipes, full disks."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
from typing import IO, Any

from rich.console import Console

from search.signal_handling import Interrupted

# What stands for a character that an encoding has not; as wide as it is where a line is laid out in columns.
PLAIN = {"…": ".", "–": "-", "—": "-", "±": "+/-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "µ": "u"}
WIDE = 500  # columns where there is no terminal to fold lines for: `grep` wants them whole


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


codecs.register_error("edgefront.plain", _replace_unencodable)


class UnfailingStream(io.TextIOBase):
    """A text file that can write everything, and that dies quietly.

    A reader that has gone (`| head`) raises Interrupted once, so that the command ends as by a signal; a terminal that
    has gone, or a full disk, is written to no more: what is measured does not depend on who is watching.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._is_dead = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the file below."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the file below is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the file's number."""
        return self._file.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write what the encoding has of a text, and something like it for the rest."""
        if not self._is_dead:
            encoded = text.encode(self.encoding, "edgefront.plain")
            self._try(lambda: self._file.write(encoded.decode(self.encoding)))
        return len(text)

    def flush(self) -> None:
        """Flush the file below."""
        if not self._is_dead:
            self._try(self._file.flush)

    def _try(self, work: Any) -> None:
        try:
            work()
        except ValueError:  # closed
            self._is_dead = True
        except OSError as error:
            self._is_dead = True
            if error.errno == errno.EPIPE:
                raise Interrupted(signal.SIGPIPE) from None


def make_unfailing(console: Console) -> Console:
    """Return the console, whose file from now on takes every text."""
    if not isinstance(console.file, UnfailingStream):
        console.file = UnfailingStream(console.file)  # type: ignore[assignment]
    return console


def console_of(file: IO[str]) -> Console:
    """Return a console for a standard stream; where that is no terminal, lines are not folded."""
    is_wide = not file.isatty() and "COLUMNS" not in os.environ
    return Console(file=UnfailingStream(file), width=WIDE if is_wide else None)  # type: ignore[arg-type]
