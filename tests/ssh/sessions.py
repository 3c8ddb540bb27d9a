"""What the tests do with a board again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from remote.connect import open_session
from remote.inventory.resolve import load_device
from remote.link.session import Job, Session
from tests.remote import models
from tests.ssh.rig import Rig, command_line, processes_of
from tests.ssh.root import root

ORT = Job(runtime="onnxruntime")
Value = TypeVar("Value")


def opened(name: str = "board", **options: Any) -> Session:
    """A session with the device of that name."""
    return open_session(load_device(name), **options)


def graph(folder: Path, name: str) -> Path:
    """The file of one of the graphs of tests/remote/models.py."""
    path = folder / f"{name}.onnx"
    return path if path.exists() else models.saved(folder, name, getattr(models, name)())


def block(session: Session, folder: Path, name: str = "convolution", pairs: int = 5) -> dict[str, Any]:
    """One timing."""
    model, reference = session.put(graph(folder, name)), session.put(graph(folder, "linear"))
    return session.time_block(model, reference, ORT, pairs, 5.0)


def wait_for(condition: Callable[[], Value], seconds: float = 10.0) -> Value:
    """What the condition gives once it gives something."""
    end_s = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.01)
    return value


def timing_child(rig: Rig) -> int:
    """Number of the process that times on the board, or 0: a Python whose parent is one too."""
    parents = {pid: parent(pid) for pid in processes_of(rig.uid)}
    pythons = {pid for pid in parents if "-c" in command_line(pid)}
    return next((pid for pid in pythons if parents[pid] in pythons), 0)


def has_loaded(pid: int, library: str = "onnxruntime_pybind11_state") -> bool:
    """True once the process has that library in memory."""
    return library in root("cat", f"/proc/{pid}/maps", check=False)


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
