"""Run the user's own commands that make a board fit to be measured, and undo them however the run ends.

They stand in the user's `devices.toml` and are run as they stand, by the device's shell, over a connection of their
own: the agent itself never runs a command on request. Before the first is run, a note is written into the user's cache
on this machine with the commands that undo them. A run that ends in any way it can notice undoes them and removes the
note. The preparation that a killed run left behind is found by its note and undone by the next connection to the same
board.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from remote.device import Device, Facts
from remote.errors import DeviceError
from remote.files import home_folder, read_or_none, write_file
from remote.ssh import command_argv

COMMAND_S_MAX = 120.0
Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print one line for the user."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def prepare_device(device: Device, facts: Facts, say: Say = to_stderr) -> Iterator[None]:
    """Context manager that runs the `prepare` commands, and the `restore` commands at the end, however the block ends.

    Where several runs of this user have the same board prepared, the last to end restores it.

    Args:
        device: The settled entry, with its commands.
        facts: Facts that the board reported; its boot identifier names this board until it is restarted.
        say: Called with a line for the user where something can't be undone, or noted.

    Raises:
        DeviceError: A command of `prepare` failed; the commands before it are undone first.
    """
    if not device.prepare and not device.restore:
        yield
        return
    note = _RestoreNote.begin(device, facts, say)
    try:
        for command in device.prepare:
            _run(device, command)
        yield
    finally:
        note.end(device, say)


def undo_left(device: Device, facts: Facts, say: Say = to_stderr) -> None:
    """Undo the preparation that a killed run left behind on this board, and report it.

    The note of a board that was restarted since is dropped: the restart has reset its clocks.

    Args:
        device: The board as it is reached now.
        facts: Facts that it reported.
        say: Called with a line for each run that is undone.
    """
    folder = _folder()
    if folder is None or not folder.is_dir():
        return
    board = _board(device, facts)
    with contextlib.suppress(OSError), _alone(folder):
        alive = {note: note.is_alive() for note in _notes(folder)}
        left = [note for note in alive if note.board == board and not alive[note]]
        undone = True
        if left and not any(alive[note] for note in alive if note.board == board):
            say(f"{device.name}: an earlier run ended without undoing its preparation; it is undone now")
            undone = _restore(device, left[-1].restore, say)
        restarted = [note for note in alive if note.host == device.host and note.board != board and not alive[note]]
        for note in (*restarted, *(left if undone else [])):
            with contextlib.suppress(OSError):
                note.path.unlink()


@dataclass(frozen=True, kw_only=True)
class _StaleNote:
    """Hold the content of a note in the cache.

    Attributes:
        path: The note's file.
        board: Identifier of the board; see `_board`.
        host: Host by which the board was reached; None for this machine.
        restore: Commands that undo the preparation.
        writer: Host name of the machine, and number of the process that wrote it.
    """

    path: Path
    board: str
    host: str | None
    restore: tuple[str, ...]
    writer: tuple[str, int]

    def is_alive(self) -> bool:
        """Return whether the run that wrote it is still alive: a living run holds its note locked."""
        try:
            with self.path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:  # no locks here: a process of this machine is searched for, another machine's is taken to live
            machine, pid = self.writer
            return machine != socket.gethostname() or Path(f"/proc/{pid}").exists()


class _RestoreNote:
    """Hold this run's note, locked while the run lives. Where no folder for notes is known there is none."""

    def __init__(self, path: Path | None, board: str) -> None:
        self._path, self._board, self._held = path, board, -1

    @classmethod
    def begin(cls, device: Device, facts: Facts, say: Say) -> _RestoreNote:
        """Write the note and return it.

        Args:
            device: The settled entry, with its commands.
            facts: Facts that the board reported.
            say: Called where the note can't be written, so that the next run can't undo this one's preparation.
        """
        folder, board = _folder(), _board(device, facts)
        try:
            if folder is None:
                raise OSError("no home folder is known")
            note = cls(folder / f"{uuid.uuid4().hex}.json", board)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(folder):
                note._write(device)
            return note
        except OSError as error:
            say(f"{device.name}: its preparation can't be recorded ({error}): if this run is killed, undo it by hand")
            return cls(None, board)

    def _write(self, device: Device) -> None:
        if self._path is None:
            return
        content = {"board": self._board, "host": device.host, "restore": device.restore}
        write_file(self._path, json.dumps(content | {"machine": socket.gethostname(), "pid": os.getpid()}))
        self._held = os.open(self._path, os.O_RDWR)
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(self._held, fcntl.LOCK_EX)

    def end(self, device: Device, say: Say) -> None:
        """Undo the preparation unless another run still has the board, and remove the note once that is done."""
        if self._path is None:
            _restore(device, device.restore, say)
            return
        try:
            with _alone(self._path.parent):
                notes = [note for note in _notes(self._path.parent) if note.board == self._board]
                others = [note.path for note in notes if note.path != self._path]
                alive = [note.path for note in notes if note.path in others and note.is_alive()]
                if alive or _restore(device, device.restore, say):
                    for path in (self._path, *(() if alive else others)):
                        path.unlink(missing_ok=True)
        finally:
            if self._held >= 0:
                os.close(self._held)


def _restore(device: Device, commands: Sequence[str], say: Say) -> bool:
    """Run every command. Return False where the board could not be reached, so that a later run must repeat it."""
    reached = True
    for command in commands:
        try:
            _run(device, command)
        except DeviceError as error:
            undone_by = "the next connection to it tries again" if error.kind == "link" else "check it by hand"
            say(f"{error}; its preparation may remain in effect: {undone_by}")
            reached = reached and error.kind != "link"
    return reached


def _run(device: Device, command: str) -> None:
    argv = ["sh", "-c", command] if device.host is None else command_argv(device, command)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S_MAX,
            start_new_session=True,  # Ctrl-C, or a terminal that is closed, must not stop a command that undoes
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{device.name}: `{command}` did not end in {COMMAND_S_MAX:g} s", "bad_request") from None
    except OSError as error:
        raise DeviceError(f"{device.name}: `{command}` can't be run: {error.strerror}", "bad_request") from None
    if done.returncode:
        lost = device.host is not None and done.returncode == 255  # ssh's own status
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        said = "".join(letter for letter in said if letter.isprintable())
        raise DeviceError(
            f"{device.name}: `{command}` ended with status {done.returncode}{said and ': '}{said}; "
            "it is set in devices.toml (a command with sudo needs `sudo -n` and a rule without password)",
            "link" if lost else "bad_request",
        )


def _board(device: Device, facts: Facts) -> str:
    """Return an identifier of a board that holds until it is restarted, by whatever name it is reached."""
    named = [facts.boot_id] if facts.boot_id else [device.host, facts.cpu]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _folder() -> Path | None:
    """Return the folder of notes; None where this user has no home."""
    home = home_folder()
    cache = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    return Path(cache) / "edgefront" / "prepared" if cache else None


def _notes(folder: Path) -> list[_StaleNote]:
    """Return the readable notes, the oldest first; a note that was cut short was written before any command was run."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        note = read_or_none(path, _parse_note)
        if isinstance(note, _StaleNote):
            found.append(replace(note, path=path))
    return found


def _parse_note(text: str) -> _StaleNote:
    content = json.loads(text)
    writer = str(content["machine"]), int(content["pid"])
    return _StaleNote(
        path=Path(),
        board=str(content["board"]),
        host=content["host"],
        restore=tuple(map(str, content["restore"])),
        writer=writer,
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Context manager in which no other run of this user reads, writes or removes notes."""
    with (folder / "lock").open("a") as file:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
