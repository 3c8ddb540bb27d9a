"""A line that is slow, breaks or falls silent: uploads go on where they stopped, nothing hangs."""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time

import pytest

from evaluators.timing.reference_model import reference_model
from remote.errors import DeviceError
from remote.link.retrying_session import Incident, RetryingSession, RetryPolicy
from tests.ssh.link import Link
from tests.ssh.rig import Rig
from tests.ssh.root import root
from tests.ssh.sessions import ORT, block, has_loaded, opened, timing_child, wait_for

MBIT = 1e6 / 8
QUICK = RetryPolicy(first_wait_s=0.1, patience_s=60.0)


@pytest.mark.alone
def test_a_line_is_as_slow_as_it_says(rig, line):
    """The rig itself: 20 ms and 10 Mbit/s are what a session meets."""
    name, link = line(rtt_s=0.020, bytes_per_s=10 * MBIT)
    with opened(name) as session:
        took = []
        for _ in range(20):
            began_s = time.monotonic()
            session.ping()
            took.append(time.monotonic() - began_s)
        assert 0.020 <= statistics.median(took) < 0.060
        began_s = time.monotonic()
        session.put(os.urandom(2_500_000))
        took_s = time.monotonic() - began_s
    assert 1.9 < took_s < 6.0, "2.5 MB take 2 s at 10 Mbit/s"
    assert link.connections == 1


def test_an_upload_goes_on_where_it_was_cut(rig, line):
    data, name_there = os.urandom(20_000_000), ""
    name, link = line(bytes_per_s=12e6)
    with opened(name) as session:
        link.cut_after(12_000_000)
        with pytest.raises(DeviceError) as caught:
            session.put(data)
        assert caught.value.kind == "link" and link.cuts == 1
        name_there = hashlib.sha256(data).hexdigest()
        blobs = rig.home / ".cache/edgefront/blobs"
        there = int(root("stat", "-c", "%s", blobs / f"part-{name_there}"))
        assert 5_000_000 < there <= 12_000_000, "what came before the cut is kept, but for what was under way"
        before = link.up_bytes
        assert session.put(data) == name_there
        again = link.up_bytes - before
    rest = len(data) - there
    assert rest < again < rest + 1_000_000, "the rest, a new connection, and no more"
    assert root("sha256sum", blobs / name_there).split()[0] == name_there
    assert not [path for path in rig.files(".cache/edgefront/blobs") if path.startswith("part-")]


def test_an_upload_cut_again_and_again_arrives(rig, line):
    """No byte is sent a second time but those that were under way."""
    data = os.urandom(6_000_000)
    name, link = line(bytes_per_s=6e6)
    incidents = []
    with opened(name) as session:
        patient = RetryingSession(session, QUICK, incidents.append)
        link.cut_every(1_500_000, times=4)
        assert patient.put(data) == hashlib.sha256(data).hexdigest()
    assert [incident.kind for incident in incidents] == ["link"] * 4 and link.cuts == 4
    assert link.up_bytes < len(data) + (link.cuts + 1) * 800_000


@pytest.mark.parametrize("loaded", [False, True], ids=["while it starts", "while it times"])
def test_a_line_cut_under_a_timing(rig, line, loaded):
    """The agent and its child go at once; the same call succeeds over a new connection."""
    name, link = line()
    incidents: list[Incident] = []
    with opened(name) as session:
        patient = RetryingSession(session, QUICK, incidents.append)
        for attempt in range(1, 4):  # the moment can be missed where the machine is busy
            hit = _cut_under_a_timing(rig, link, patient, loaded)
            assert [(incident.kind, incident.op) for incident in incidents] == [("link", "time")] * attempt
            if hit:
                return
    pytest.fail("no timing was cut at the moment asked for")


def _cut_under_a_timing(rig: Rig, link: Link, patient: RetryingSession, loaded: bool) -> bool:
    """True if the cut came when the timing process had its runtime loaded, or not, as asked for."""
    model = patient.put(reference_model())  # some milliseconds a run: time enough to be cut
    hits: list[bool] = []
    dead: set[int] = set()

    def cut() -> None:
        child = wait_for(lambda: timing_child(rig))
        if loaded:
            wait_for(lambda: has_loaded(child))
            time.sleep(0.3)
        dead.update(rig.processes())
        hits.append(child in dead and has_loaded(child) == loaded)
        link.cut()

    saboteur = threading.Thread(target=cut)
    saboteur.start()
    timed = patient.time_block(model, model, ORT, 200, 3.0)
    saboteur.join()
    assert 5 <= len(timed["wall_ms"]) <= 200
    assert not dead & set(rig.processes()), "the old agent and its child are gone"
    return hits[0]


def test_a_line_that_falls_silent_is_given_up_and_replaced(rig, line, tmp_path):
    name, link = line()
    with opened(name, ping_s=0.5, silence_s=2.0) as session:
        assert block(session, tmp_path)
        link.black_hole()
        began_s = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            session.state()
        assert caught.value.kind == "silent" and time.monotonic() - began_s < 5
        assert block(session, tmp_path)
    assert link.connections == 2
