"""Write output for people robustly: to terminals without UTF-8, closed pipes and full disks."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
from collections.abc import Callable
from typing import IO

from rich.console import Console

from search.signal_handling import Interrupted

# Replacements for characters that an encoding lacks; equally wide where lines are laid out in columns.
PLAIN = {"…": ".", "–": "-", "—": "-", "±": "+/-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "µ": "u"}
WIDE = 500  # columns without a terminal: lines stay whole for `grep`


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


codecs.register_error("edgefront.plain", _replace_unencodable)


class UnfailingStream(io.TextIOBase):
    """Wrap a text file so that every character can be written and a failing file raises no error.

    A closed pipe (`| head`) raises Interrupted once, so that the command ends as by a signal. Writing to a closed
    terminal or to a full disk stops silently: the measurements do not depend on the display.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._is_dead = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of the wrapped file."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the wrapped file is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write a text; characters outside the encoding are replaced by similar ones."""
        if not self._is_dead:
            encoded = text.encode(self.encoding, "edgefront.plain")
            self._try(lambda: self._file.write(encoded.decode(self.encoding)))
        return len(text)

    def flush(self) -> None:
        """Send buffered text to the wrapped file."""
        if not self._is_dead:
            self._try(self._file.flush)

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except ValueError:  # the file is closed
            self._is_dead = True
        except OSError as error:
            self._is_dead = True
            if error.errno == errno.EPIPE:
                raise Interrupted(signal.SIGPIPE) from None


def make_unfailing(console: Console) -> Console:
    """Return the console after wrapping its file in an UnfailingStream."""
    if not isinstance(console.file, UnfailingStream):
        console.file = UnfailingStream(console.file)  # type: ignore[assignment]
    return console


def console_of(file: IO[str]) -> Console:
    """Return a console for a standard stream; lines are not folded if the stream is no terminal."""
    is_wide = not file.isatty() and "COLUMNS" not in os.environ
    return Console(file=UnfailingStream(file), width=WIDE if is_wide else None)  # type: ignore[arg-type]
