"""Every kind of failure on demand, and what becomes of it: told apart, survived, counted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from evaluators.timing.latency import TimingRules, TimingTarget, time_model
from evaluators.timing.reference_model import reference_model
from remote.agent import BLOB, FRAME, REQUEST
from remote.connect import open_session
from remote.errors import DeviceError
from remote.inventory.resolve import load_device
from remote.link.retrying_session import RetryingSession, RetryPolicy
from remote.link.session import Job, Session
from tests.remote import models

ROOT = Path(__file__).parents[3]
MODEL = models.linear().SerializeToString()
QUICK = {"ping_s": 0.2, "silence_s": 1.5}


def fails(work, kind: str) -> DeviceError:
    """The failure of a call, of that kind."""
    with pytest.raises(DeviceError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    return caught.value


def stored(session: Session) -> tuple[str, str]:
    """Digests of a model and the reference, sent by a session whose board does not fail."""
    board = session.device.simulated.split(",")[0]
    with open_session(load_device(f"sim:{board}")) as sound:
        return sound.put(MODEL), sound.put(reference_model())


def timed(session: Session):
    model, reference = stored(session)
    return session.time_block(model, reference, Job(runtime="onnxruntime"), 10, 5.0)


@pytest.mark.parametrize("op", ["stat", "state", "time", "predict"])
def test_a_dropped_link_cuts_the_answer(op, opens):
    session = opens("rpi4,drop=1")
    rows = np.zeros((2, 3, 2, 2), "<f4")
    model, reference = stored(session)
    calls = {
        "stat": lambda: session.put(b"anything"),
        "state": session.state,
        "time": lambda: session.time_block(model, reference, Job(runtime="onnxruntime"), 5, 5.0),
        "predict": lambda: session.predict(model, model, rows.shape, Job(runtime="onnxruntime")),
    }
    error = fails(calls[op], "link")
    assert "dropped in the middle of an answer" in str(error)
    assert fails(calls[op], "link"), "it is back, and fails again"


def test_a_dropped_link_in_a_blob_is_gone_on_with(opens, home):
    """The second session sends only what the first could not."""
    data = os.urandom(300_000)
    cut = subprocess.Popen(
        [sys.executable, "-m", "remote.simulator", "rpi4,drop=1", "0"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    digest = hashlib.sha256(data).hexdigest()
    words = json.dumps({"op": "put", "sha256": digest, "size": len(data)}).encode()
    sent = FRAME.pack(REQUEST, 1, len(words)) + words + FRAME.pack(BLOB, 1, len(data)) + data
    _, said = cut.communicate(sent, timeout=30)
    assert cut.returncode == 1 and b"in the middle of a blob" in said
    part = home / "edgefront-simulated" / "rpi4" / "edgefront" / "blobs" / f"part-{digest}"
    assert part.read_bytes() == data[:150_000]
    assert opens("rpi4").put(data) == digest and not part.exists()


def test_a_hang_is_ended_by_the_controller(opens):
    session = opens("rpi4,hang=1", **QUICK)
    process = session._link.pid
    began_s = time.monotonic()
    fails(session.state, "silent")
    assert 1.0 < time.monotonic() - began_s < 5.0
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_hang_during_a_timing_too(opens):
    fails(lambda: timed(opens("rpi4,hang=1", **QUICK)), "silent")


def test_what_hangs_ends_when_its_controller_is_killed(home):
    """kill -9 of the controller leaves nothing behind."""
    code = (
        "from remote.inventory.resolve import load_device; from remote.connect import open_session\n"
        "s = open_session(load_device('sim:rpi4,hang=1'), silence_s=600)\n"
        "print(s._link.pid, flush=True); s.state()"
    )
    controller = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    process = int(controller.stdout.readline())
    time.sleep(0.5)
    assert Path(f"/proc/{process}").exists()
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


def test_a_reboot_is_noticed_by_its_boot_id(opens):
    session = opens("rpi4,reboot=1")
    before = session.facts.boot_id
    assert "reboots" in str(fails(session.state, "link"))
    fails(session.state, "rebooted")
    assert session.facts.boot_id != before


def test_memory_taken_by_others_is_not_the_models_fault(opens):
    session = opens("rpi4,oom=1")
    assert "330 of the usual 3300 MB" in str(fails(lambda: timed(session), "memory_taken"))
    assert session.state(), "the session goes on"


def test_a_full_disk_takes_nothing(opens):
    session = opens("rpi4,disk=1")
    fails(lambda: session.put(b"some data"), "no_space")
    fails(lambda: session.put(b"some data"), "no_space")
    assert session.state(), "the wire is in step"


@pytest.mark.parametrize("board", ["rpi4", "jetson-nano", "nuc", "x86-cuda"])
def test_a_throttled_block_is_slower_seen_and_never_a_number(board, opens):
    """Whether the device shows it, or only the reference is slower."""
    hot, calm = opens(f"{board},throttle=1"), opens(board)
    model, reference = calm.put(MODEL), calm.put(reference_model())
    runtime = next(iter(calm.facts.runtimes))
    fast, slow = (s.time_block(model, reference, Job(runtime=runtime), 20, 5.0) for s in (calm, hot))
    for name in ("wall_ms", "reference_wall_ms"):
        assert 1.29 < median(slow[name]) / median(fast[name]) < 1.61
    target = TimingTarget(
        model_sha256=model,
        reference_sha256=reference,
        job=Job(runtime=runtime),
        runtime_version="",
        percentile=50.0,
        reference_ms=median(fast["reference_wall_ms"]),
        simulated=True,
    )
    rules = TimingRules(repeats_max=2, blocks_min=1, blocks_max=1)
    latency = time_model(RetryingSession(hot), target, rules, None)
    assert latency.repeated == 2 and ("throttled" in latency.disturbed or "drift" in latency.disturbed)
    assert time_model(RetryingSession(calm), target, rules, None).disturbed == ""


def test_in_the_end_everything_succeeds(opens):
    """At high rates of every kind the patient session still gets the same numbers."""
    told = []
    faults = ",".join(f"{kind}=0.1" for kind in ("drop", "hang", "reboot", "oom", "disk"))
    session = opens(f"rpi5,{faults},seed=5", ping_s=0.1, silence_s=0.6)
    patient = RetryingSession(session, RetryPolicy(first_wait_s=0.0), told.append)
    sound = opens("rpi5,seed=5")
    kinds = {"link", "silent", "rebooted", "memory_taken", "no_space"}
    for features in range(1, 60):
        model = models.convolution(features).SerializeToString()
        one, other = (
            s.time_block(s.put(model), s.put(reference_model()), Job(runtime="onnxruntime"), 10, 5.0)
            for s in (patient, sound)
        )
        assert one["wall_ms"] == other["wall_ms"]
        if {incident.kind for incident in told} >= kinds:
            return
    raise AssertionError(f"some failure never came: {told}")
