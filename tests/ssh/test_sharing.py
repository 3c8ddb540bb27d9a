"""Several controllers and one board: one timing at a time, and a controller that dies frees the board."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from remote.connect import open_session
from remote.link.session import Session
from tests.remote.conftest import LOCAL
from tests.ssh.rig import command_line, processes_of
from tests.ssh.sessions import ORT, block, graph, has_loaded, opened, parent, timing_child, wait_for

# A controller of its own: connects, says so, and times a model that never ends.
CONTROLLER = """
import sys
from pathlib import Path
from tests.ssh.sessions import ORT, opened
session = opened(sys.argv[1])
model = session.put(Path(sys.argv[2]))
print("go", flush=True)
session.time_block(model, model, ORT, 5, 600.0)
"""


def spans_of(session: Session, folder, waits: list, times: int = 3, pairs: int = 3) -> list[tuple[float, float]]:
    """(began, ended) of each timing by the board's own clock."""
    spans = []
    fields = {"model": session.put(graph(folder, "convolution")), "reference": session.put(graph(folder, "linear"))}
    fields |= ORT.fields() | {"pairs": pairs, "seconds_max": 2.0, "deadline_s": 30.0}
    for _ in range(times):
        events: list[dict] = []
        _, value, _ = session._link.call("time", fields, on_event=events.append)
        waits += [event for event in events if event["event"] == "waiting"]
        began = [event["at_s"] for event in events if event["event"] == "started"]
        spans.append((began[0], value["ended_at_s"]))
    return spans


def test_two_controllers_take_turns(rig, tmp_path):
    graph(tmp_path, "convolution"), graph(tmp_path, "linear")
    spans, waits, ready = [], [], threading.Barrier(2)

    def control() -> None:
        with opened() as session:
            ready.wait(30)
            spans.extend(spans_of(session, tmp_path, waits))

    _together(control, control)
    _never_at_once(spans, 6)
    holders = {event["holder"] for event in waits}
    assert holders and all("since" in holder and "pid" in holder for holder in holders), "who has it is shown"


def test_users_of_the_same_board_take_turns_too(rig, tmp_path):
    """One over ssh as the board's user, one on the board itself as another user: the lock is everybody's."""
    if os.environ.get("EDGEFRONT_LOCK_DIR"):
        pytest.skip("EDGEFRONT_LOCK_DIR keeps the agents of this machine apart")
    graph(tmp_path, "convolution"), graph(tmp_path, "linear")
    spans, waits, ready = [], [], threading.Barrier(2)

    def over_ssh() -> None:
        with opened() as session:
            ready.wait(30)
            spans.extend(spans_of(session, tmp_path, waits))

    def here() -> None:
        with open_session(LOCAL) as session:
            ready.wait(30)
            spans.extend(spans_of(session, tmp_path, waits))

    _together(over_ssh, here)
    _never_at_once(spans, 6)
    assert waits


def _together(*works) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def _never_at_once(spans, count: int) -> None:
    spans.sort()
    assert len(spans) == count
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans)), spans


def controller(name: str, folder) -> subprocess.Popen:
    """Another process that holds the board with a timing that never ends."""
    argv = [sys.executable, "-c", CONTROLLER, name, str(graph(folder, "endless"))]
    other = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert other.stdout and other.stdout.readline() == b"go\n"
    other.stdout.close()
    return other


def ssh_of(controller_pid: int) -> int:
    """Number of the ssh client that a controller started."""
    mine = processes_of(os.getuid())
    return next(pid for pid in mine if parent(pid) == controller_pid and command_line(pid)[0].endswith("ssh"))


@pytest.mark.parametrize("all_of_it", [False, True], ids=["controller", "controller and ssh"])
def test_a_killed_controller_frees_the_board(rig, tmp_path, all_of_it):
    other = controller("board", tmp_path)
    child = wait_for(lambda: timing_child(rig))
    wait_for(lambda: has_loaded(child))
    dead = set(rig.processes())
    waits = []
    with opened(on_event=waits.append) as session:
        line = ssh_of(other.pid)
        killed_s = time.monotonic()
        other.send_signal(signal.SIGKILL)
        if all_of_it:
            os.kill(line, signal.SIGKILL)
        other.wait()
        assert spans_of(session, tmp_path, waits, times=1)
        freed_s = time.monotonic() - killed_s
        assert not dead & set(rig.processes())
    print(f"\nfreed, and timed again, after {freed_s:.2f} s")
    assert freed_s < 30


@pytest.mark.slow
def test_a_line_that_falls_silent_frees_the_board(rig, line, tmp_path):
    """The agent hears nothing for 20 s, and goes; neither ssh nor sshd have noticed by then."""
    name, link = line()
    other = controller(name, tmp_path)
    try:
        wait_for(lambda: timing_child(rig))
        dead = set(rig.processes())
        with opened() as session:
            silent_s = time.monotonic()
            link.black_hole()
            assert block(session, tmp_path)
            freed_s = time.monotonic() - silent_s
            assert not dead & set(rig.processes())
    finally:
        other.kill()
        other.wait()
    print(f"\nfreed after {freed_s:.1f} s")
    assert 10 < freed_s < 30
