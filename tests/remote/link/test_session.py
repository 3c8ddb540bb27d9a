"""The whole way from a Session to onnxruntime in a child of a real agent, and back when things break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from evaluators.measurement import Block
from remote.connect import open_session
from remote.device import Device
from remote.errors import CancelledError, CandidateError, DeviceError
from remote.link.session import Job, Session
from tests.remote import models
from tests.remote.conftest import LOCAL

ORT = Job(runtime="onnxruntime")


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def wait_for(condition, seconds: float = 10.0):
    end_s = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """False for a process that is gone or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def block(session: Session, graphs: dict[str, Path], name: str, **more) -> dict:
    options = {"pairs": 5, "seconds_max": 5.0} | more
    job = Job(runtime="onnxruntime", threads=options.pop("threads", 1))
    model, reference = session.put(graphs[name]), session.put(graphs["linear"])
    return session.time_block(model, reference, job, **options)


def hanging(session: Session, graphs: dict[str, Path], deadline_s: float = 60.0):
    """A timing that hangs, in a thread, once its child runs: (thread, what it raised, child)."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            block(session, graphs, "endless", deadline_s=deadline_s)
        except Exception as error:
            raised.append(error)

    session.state()  # reconnects where needed
    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised, wait_for(lambda: children(session._link.pid))[0]


def test_facts_are_this_machines(session):
    assert session.facts.cores == len(os.sched_getaffinity(0))
    assert session.facts.runtimes["onnxruntime"] == onnxruntime.__version__
    assert session.facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_block_is_a_block(session, graphs):
    found = Block(**block(session, graphs, "convolution", pairs=12, threads=2))
    assert len(found.wall_ms) == len(found.reference_cpu_ms) == 12
    assert 0 < found.runtime_mb <= found.peak_mb < 500
    assert found.warmup_runs >= 3 and found.load_ms > 0


def test_block_ends_early_but_not_empty(session, graphs):
    assert len(block(session, graphs, "convolution", pairs=100000, seconds_max=0.1)["wall_ms"]) >= 5


def test_threads_are_used(session, graphs):
    """CPU time of one thread is the wall time's at most; no timing can be CPU time of nothing."""
    one = block(session, graphs, "convolution", pairs=20)
    assert np.median(one["cpu_ms"]) <= 1.1 * np.median(one["wall_ms"]) + 0.05
    assert np.median(one["cpu_ms"]) > 0


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_predict_is_what_onnxruntime_says(session, home, kind):
    model = models.linear(kind=kind)
    path = models.saved(home, f"linear{kind}", model)
    images = np.random.RandomState(0).standard_normal((7, 3, 2, 2)).astype(np.float32)
    raw = session.predict(session.put(path), session.put(images.tobytes()), images.shape, ORT)
    here = onnxruntime.InferenceSession(path)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    want = [here.run(None, {"x": image[None].astype(dtype)})[0][0] for image in images]
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(7, 3), np.array(want, np.float32))


def test_layers_are_what_the_runtime_runs(session, graphs):
    layers, untold = session.layers(session.put(graphs["linear"]), ORT, seconds_max=0.2)
    assert untold == "" and {"MatMul", "Flatten"} <= {layer.type for layer in layers}
    assert all(layer.precision == "fp32" and 0 < layer.ms < 100 for layer in layers)


def test_a_runtime_that_tells_nothing_is_no_failure(session, graphs):
    layers, untold = session.layers(session.put(graphs["linear"]), Job(runtime="ncnn"))
    assert layers == () and untold == "ncnn does not report its layers"


def test_predict_refuses_data_of_another_size(session, graphs):
    with pytest.raises(DeviceError, match="1x3x2x2 float32"):
        session.predict(session.put(graphs["linear"]), session.put(b"abc"), (1, 3, 2, 2), ORT)


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [("unknown_op", "unsupported", "Nonsense"), ("huge", "out_of_memory", "alloc")],
)
def test_the_models_own_faults(session, graphs, name, kind, word):
    with pytest.raises(CandidateError, match=word) as caught:
        block(session, graphs, name)
    assert caught.value.kind == kind and "\n" not in caught.value.reason


@pytest.mark.parametrize("data", [b"not a model", b""])
def test_garbage_cannot_be_built(session, graphs, data):
    with pytest.raises(CandidateError) as caught:
        session.time_block(session.put(data), session.put(graphs["linear"]), ORT, 5, 5.0)
    assert caught.value.kind == "unbuildable"


def test_an_opset_of_the_future_is_unsupported(session, home, graphs):
    model = models.linear()
    model.opset_import[0].version = 99
    with pytest.raises(CandidateError) as caught:
        session.time_block(session.put(models.saved(home, "future", model)), session.put(graphs["linear"]), ORT, 5, 5)
    assert caught.value.kind == "unsupported"
    assert onnx.load(home / "future.onnx").opset_import[0].version == 99


def test_a_broken_reference_is_not_the_models_fault(session, graphs):
    with pytest.raises(DeviceError, match="reference"):
        session.time_block(session.put(graphs["linear"]), session.put(graphs["unknown_op"]), ORT, 5, 5.0)


def test_a_child_that_is_killed_is_a_crash_and_no_more(session, graphs):
    thread, raised, child = hanging(session, graphs)
    os.kill(child, signal.SIGKILL)
    thread.join(5)
    assert isinstance(raised[0], CandidateError) and raised[0].kind == "crashed" and "9" in raised[0].reason
    assert block(session, graphs, "linear")


def test_a_hang_times_out_and_leaves_nothing_behind(session, graphs):
    thread, raised, child = hanging(session, graphs, deadline_s=1.0)
    thread.join(8)
    assert isinstance(raised[0], CandidateError) and raised[0].kind == "timed_out"
    assert not alive(child)


def test_cancel(session, graphs):
    thread, raised, child = hanging(session, graphs)
    session.cancel()
    thread.join(8)
    assert isinstance(raised[0], CancelledError) and not alive(child)
    assert session.state()["load_average"]


def test_a_killed_agent_is_noticed_at_once_and_replaced(session, graphs):
    thread, raised, child = hanging(session, graphs)
    os.kill(session._link.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    thread.join(5)
    assert time.monotonic() - killed_s < 4, "not only once it was silent for too long"
    assert isinstance(raised[0], DeviceError) and "lost" in str(raised[0])
    wait_for(lambda: not alive(child))
    assert block(session, graphs, "linear")


def test_an_agent_that_stands_still_is_given_up(home):
    with open_session(LOCAL, ping_s=0.1, silence_s=1.0) as session:
        os.kill(session._link.pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match="silent"):
            session.state()
        assert session.state()


def test_an_agent_ends_itself_when_nobody_is_heard(home, graphs):
    with open_session(LOCAL, ping_s=60.0, silence_s=1.5) as session:
        agent = session._link.pid
        _, raised, child = hanging(session, graphs)
        wait_for(lambda: not alive(child) and not alive(agent), 5.0)
        wait_for(lambda: raised)


def test_two_sessions_never_time_at_once(home, graphs):
    spans, waits = [], []

    def run() -> None:
        with open_session(LOCAL, on_event=waits.append) as session:
            for _ in range(3):
                fields = {
                    "model": session.put(graphs["convolution"]),
                    "reference": session.put(graphs["linear"]),
                    "runtime": "onnxruntime",
                    "threads": 1,
                    "pairs": 200,
                    "seconds_max": 2.0,
                    "deadline_s": 30.0,
                }
                began: list[dict] = []
                _, value, _ = session._link.call("time", fields, on_event=began.append)
                waits.extend(began)
                spans.append((began[-1]["at_s"], value["ended_at_s"]))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    spans.sort()
    assert len(spans) == 6
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
    holders = [event["holder"] for event in waits if event["event"] == "waiting"]
    assert holders and any("since" in holder and "pid" in holder for holder in holders)


def test_a_killed_controller_frees_the_device(home, graphs):
    code = (
        "import sys; from pathlib import Path; from remote.connect import open_session;"
        "from remote.link.session import Job;"
        "from tests.remote.conftest import LOCAL; s = open_session(LOCAL);"
        "m = s.put(Path(sys.argv[1])); print('go', flush=True);"
        "s.time_block(m, m, Job(runtime='onnxruntime'), 5, 60.0)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(graphs["endless"])], stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == b"go\n"
    agent = wait_for(lambda: children(other.pid))[0]
    child = wait_for(lambda: children(agent))[0]
    other.kill()
    other.wait()
    other.stdout.close()
    with open_session(LOCAL) as session:
        began_s = time.monotonic()
        assert block(session, graphs, "linear")
        assert time.monotonic() - began_s < 5
    assert not alive(child) and not alive(agent)


def test_what_is_known_is_not_sent_again(home, graphs):
    with open_session(LOCAL) as session:
        asked: list[str] = []
        call = session._link.call
        session._link.call = lambda op, *a, **k: (asked.append(op), call(op, *a, **k))[1]
        name = session.put(b"some bytes" * 1000)
        assert session.put(b"some bytes" * 1000) == name
        assert asked == ["stat", "put"]
        session._known.clear()
        assert session.put(b"some bytes" * 1000) == name
        assert asked == ["stat", "put", "stat"]


def test_the_cache_keeps_its_size_and_what_is_used(home, monkeypatch, tmp_path, graphs):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with open_session(LOCAL, cache_mb=1) as session:
        first = session.put(b"a" * 500_000)
        thread, _, _ = hanging(session, graphs)
        second = session.put(b"b" * 500_000)
        third = session.put(b"c" * 500_000)
        kept = {path.name for path in (tmp_path / "edgefront" / "blobs").iterdir()}
        assert first not in kept and {second, third} <= kept
        assert session.put(graphs["endless"]) in kept
        session.cancel()
        thread.join(8)
        with pytest.raises(DeviceError, match="send it again"):
            session.time_block(first, first, ORT, 1, 1.0)
        assert session.put(b"a" * 500_000) == first
        assert (tmp_path / "edgefront" / "blobs" / first).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "edgefront" / "blobs").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_is_a_link_is_refused(monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "edgefront").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match="not a link"):
        open_session(LOCAL)


def test_a_python_that_is_not_there():
    with pytest.raises(DeviceError, match="cannot start /no/python"):
        open_session(Device(name="x", profile="x", host=None, python="/no/python", runtime="onnxruntime"))


def test_a_closed_session_stays_closed(home):
    session = open_session(LOCAL)
    agent = session._link.pid
    session.close()
    assert not alive(agent)
    with pytest.raises(DeviceError, match="closed"):
        session.state()
