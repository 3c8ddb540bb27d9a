"""The user's own commands that make a board fit to be measured, run before, and undone however the run ends.

They stand in the user's `devices.toml` and are run as they stand, by the device's shell, over a connection of their
own: the agent itself never runs a command for anybody. Before the first is run, a note in the user's cache on this
machine says what undoes them. A run that ends in any way it can see undoes them and removes the note; what a killed run
left behind is found by its note and undone by the next connection to the same board.
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
from remote.files import read_or_none, write_file
from remote.inventory.device_files import home_folder
from remote.ssh import command_argv

COMMAND_S_MAX = 120.0
Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Print one line for the user."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def prepare_device(device: Device, facts: Facts, say: Say = to_stderr) -> Iterator[None]:
    """Context manager that runs `prepare`, and `restore` at the end, however that comes.

    Where several runs of this user have the same board prepared, the last to end restores it.

    Args:
        device: The settled entry, with its commands.
        facts: What the board says of itself, of which the boot identifier names this board until it is restarted.
        say: Takes a line for the user where something can't be undone, or noted.

    Raises:
        DeviceError: A command of `prepare` failed; what was done before it is undone first.
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
    """Undo what a run that was killed left behind on this board, and say so.

    The note of a board that was restarted since is dropped: its clocks are its own again.

    Args:
        device: How the board is reached now.
        facts: What it says of itself.
        say: Takes a line for each run that is undone.
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
    """A note that lies in the cache."""

    path: Path
    board: str
    host: str | None  # by which it was reached
    restore: tuple[str, ...]
    writer: tuple[str, int]  # machine and number of the process

    def is_alive(self) -> bool:
        """Return whether the run that wrote it still is: it holds its note locked."""
        try:
            with self.path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:  # no locks here: a process of this machine can be asked for, another's is taken to live
            machine, pid = self.writer
            return machine != socket.gethostname() or Path(f"/proc/{pid}").exists()


class _RestoreNote:
    """This run's note, held locked while the run lives. Without a folder for it there is none."""

    def __init__(self, path: Path | None, board: str) -> None:
        self._path, self._board, self._held = path, board, -1

    @classmethod
    def begin(cls, device: Device, facts: Facts, say: Say) -> _RestoreNote:
        """Write it. What stands in the way is said: a run that is then killed can't be undone by the next."""
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
            say(f"{device.name}: its preparation can't be noted ({error}): if this run is killed, undo it by hand")
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
    """Run every command. Return False where the board could not be reached, so that it is still to be done."""
    reached = True
    for command in commands:
        try:
            _run(device, command)
        except DeviceError as error:
            undone_by = "the next connection to it tries again" if error.kind == "link" else "look at it by hand"
            say(f"{error}; what it was to undo may stay as it is: {undone_by}")
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
            start_new_session=True,  # Ctrl-C, or a terminal that is closed, must not stop what undoes
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{device.name}: `{command}` did not end in {COMMAND_S_MAX:g} s", "bad_request") from None
    except OSError as error:
        raise DeviceError(f"{device.name}: `{command}` can't be run: {error.strerror}", "bad_request") from None
    if done.returncode:
        lost = device.host is not None and done.returncode == 255  # ssh's own
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        said = "".join(letter for letter in said if letter.isprintable())
        raise DeviceError(
            f"{device.name}: `{command}` ended with status {done.returncode}{said and ': '}{said}; "
            "it stands in devices.toml (a command with sudo needs `sudo -n` and a rule without password)",
            "link" if lost else "bad_request",
        )


def _board(device: Device, facts: Facts) -> str:
    """Return what names a board until it is restarted, by whatever name it is reached."""
    named = [facts.boot_id] if facts.boot_id else [device.host, facts.cpu]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _folder() -> Path | None:
    """Return where notes lie; None where this user has no home."""
    home = home_folder()
    cache = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    return Path(cache) / "edgefront" / "prepared" if cache else None


def _notes(folder: Path) -> list[_StaleNote]:
    """Return the notes that can be read, the oldest first; one cut short was written before any command was run."""
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
    """Context manager in which no other run of this user looks at, writes or removes notes."""
    with (folder / "lock").open("a") as file:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
