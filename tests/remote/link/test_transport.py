"""A peer that is not our agent, or is a hostile one: one clear DeviceError, soon, and no more."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.agent import BLOB, ERROR, EVENT, FRAME, PROTOCOL, RESPONSE
from remote.connect import open_session
from remote.device import Device
from remote.errors import CancelledError, CandidateError, DeviceError
from remote.link import reply_parsing, transport
from remote.link.session import Job
from remote.link.transport import Frame, Transport, builds, local_argv, parse_json, read_frame

READY = f"\nAGENT-READY {PROTOCOL}\n".encode()
FACTS = {
    "machine": "x86_64",
    "cpu": "a cpu",
    "cpu_flags": ["avx2"],
    "cores": 4,
    "memory_mb": 4096,
    "python": "3.6.9",
    "boot_id": "b",
    "kernel": "k",
    "runtimes": {"onnxruntime": "1.10.0"},
}
BLOCK = {
    "wall_ms": [1.0, 2.0],
    "cpu_ms": [1.0, 2.0],
    "reference_wall_ms": [1.0, 2.0],
    "reference_cpu_ms": [1.0, 2.0],
    "peak_mb": 50.0,
    "runtime_mb": 40.0,
    "load_ms": 3.0,
    "warmup_runs": 20,
    "load_average": 0.1,
}


def peer(tmp_path: Path, *outputs: bytes) -> Device:
    """A device whose `python` takes the source, then answers request after request with `outputs`."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, struct, sys\n"
        "def take(n):\n"
        "    d = b''\n"
        "    while len(d) < n:\n"
        "        part = os.read(0, n - len(d))\n"
        "        if not part: sys.exit(0)\n"
        "        d += part\n"
        "    return d\n"
        "os.write(1, b'\\nAGENT-BOOT\\n')\n"
        "take(int(sys.argv[-1]))\n"
        f"os.write(1, {outputs[0]!r})\n"
        f"for output in {outputs[1:]!r}:\n"
        "    take(struct.unpack('!BIQ', take(13))[2])\n"
        "    os.write(1, output)\n"
        "while True: take(1)\n"
    )
    script.chmod(0o700)
    return Device(name="fake", profile="fake", host=None, python=str(script), runtime="onnxruntime")


def frame(kind: int, request: int, value: object) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return FRAME.pack(kind, request, len(body)) + body


def test_a_login_shell_may_talk_before_the_agent(tmp_path):
    greeting = b"Welcome!\r\nAGENT-READY or not\n" + b"\xff\x00" * 50
    with open_session(peer(tmp_path, greeting + READY, frame(RESPONSE, 1, FACTS))) as session:
        assert session.facts.python == "3.6.9"


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (b"", "0|lost"),
        (b"<html><body>502 Bad Gateway</body></html>\n" * 40000, "does not answer.*Bad Gateway"),
        (b"\nAGENT-READY 999\n", "version"),
    ],
)
def test_no_agent_at_all(tmp_path, first, word):
    device = peer(tmp_path, first)
    if not first:
        Path(str(device.python)).write_text("#!/bin/sh\necho Permission denied >&2\nexit 255\n")
        word = "status 255.*Permission denied"
    with pytest.raises(DeviceError, match=word):
        open_session(device)


def test_a_peer_that_says_nothing(tmp_path):
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer from the device in 0\.3 s"):
        Transport(local_argv(str(peer(tmp_path, b"").python)), connect_s=0.3)
    assert time.monotonic() - began_s < 3


@pytest.mark.parametrize(
    "hello",
    [
        b"<html><body>not a frame</body></html>" * 3,
        frame(RESPONSE, 1, b"{"),
        frame(RESPONSE, 1, b'{"cores": NaN}'),
        frame(RESPONSE, 1, b"[" * 200_000),
        frame(RESPONSE, 1, []),
        frame(RESPONSE, 1, {}),
        frame(RESPONSE, 1, FACTS | {"cores": 10**300}),
        frame(RESPONSE, 1, FACTS | {"cores": "<script>"}),
        frame(RESPONSE, 1, FACTS | {"cores": True}),
        frame(RESPONSE, 1, json.dumps(FACTS).replace("4096", "1e999").encode()),
        frame(RESPONSE, 1, json.dumps(FACTS).replace("4096", "9" * 6000).encode()),
        frame(RESPONSE, 1, FACTS | {"runtimes": {"onnxruntime": 1}}),
        frame(RESPONSE, 1, FACTS | {"cpu_flags": "avx2"}),
        frame(ERROR, 1, {}),
        frame(ERROR, 1, {"kind": "failed", "reason": "because"}),
        frame(ERROR, 0, {"kind": "bad_frame", "reason": "no"}),
        frame(BLOB, 1, b"data"),
        FRAME.pack(RESPONSE, 1, 1 << 62),
        FRAME.pack(BLOB, 1, 1 << 62),
        FRAME.pack(9, 1, 0),
    ],
)
def test_a_hostile_hello(tmp_path, hello):
    began_s = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        open_session(peer(tmp_path, READY, hello))
    assert time.monotonic() - began_s < 5
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (frame(BLOB, 2, b"1234"), "out of order|at most"),
        (frame(RESPONSE, 2, {"shape": [1, 2], "bytes": 8}) + frame(BLOB, 2, b"1234"), "shape"),
        (frame(RESPONSE, 2, {"shape": [2, 1], "bytes": 4}) + frame(BLOB, 2, b"1234"), "shape"),
        (frame(RESPONSE, 2, {"shape": [1, 9], "bytes": 4}) + frame(BLOB, 2, b"1234"), "logits"),
        (frame(RESPONSE, 2, {}) + frame(RESPONSE, 2, {}), "out of order"),
        (frame(RESPONSE, 2, {}) + FRAME.pack(BLOB, 2, 1 << 50), "at most"),
        (frame(EVENT, 2, {"event": 1}) + frame(RESPONSE, 2, {}) + frame(BLOB, 2, b""), "shape"),
    ],
)
def test_hostile_predictions(tmp_path, answer, word):
    with (
        open_session(peer(tmp_path, READY, frame(RESPONSE, 1, FACTS), answer)) as session,
        pytest.raises(DeviceError, match=word),
    ):
        session.predict("a" * 64, "b" * 64, (1, 3, 2, 2), Job(runtime="onnxruntime"))


ENDLESS = """
import threading, time
def answers():
    while True:
        kind, request, length = struct.unpack('!BIQ', take(13))
        take(length)
        last[0] = request
last = [1]
threading.Thread(target=answers, daemon=True).start()
while True:
    body = {event!r}
    os.write(1, struct.pack('!BIQ', 4, last[0], len(body)) + body)
    time.sleep(0.001)
"""
DEAF = """
import time
while True:
    os.write(1, struct.pack('!BIQ', 4, 7, 2) + b'{}')
    time.sleep(0.01)
"""


def scripted(tmp_path: Path, rest: str) -> Device:
    """A device that answers hello as it should and then does as the script says."""
    device = peer(tmp_path, READY, frame(RESPONSE, 1, FACTS))
    script = Path(str(device.python))
    script.write_text(script.read_text().replace("while True: take(1)\n", rest))
    return device


@pytest.mark.parametrize("event", [b'{"event": "started"}', b'{"event": "received", "bytes": 1}', b"{}"])
def test_call_of_a_device_that_tells_events_without_end_ends_in_time(tmp_path, event):
    job = Job(runtime="onnxruntime", build_deadline_s=3600.0)  # which no engine is built for
    with open_session(scripted(tmp_path, ENDLESS.replace("{event!r}", repr(event)))) as session:
        began_s = time.monotonic()
        with pytest.raises(DeviceError, match="no answer to ping") as caught:
            session._call("ping", silence_s=0.7)
        assert caught.value.kind == "silent" and time.monotonic() - began_s < 5
        assert not builds(job.runtime) and builds("trtexec") and builds("tensorrt")


def test_call_that_waits_for_its_turn_may_take_longer_than_its_answer(tmp_path):
    """What others do with the device is shown and waited for, however long it is."""
    rest = (
        "request = struct.unpack('!BIQ', take(13))[1]\n"
        "import time\n"
        "for _ in range(10):\n"
        '    body = b\'{"event": "waiting", "holder": "her"}\'\n'
        "    os.write(1, struct.pack('!BIQ', 4, request, len(body)) + body)\n"
        "    time.sleep(0.15)\n"
        "os.write(1, struct.pack('!BIQ', 2, request, 2) + b'{}')\n"
        "while True: take(1)\n"
    )
    told: list[dict] = []
    with open_session(scripted(tmp_path, rest), on_event=told.append) as session:
        session._call("ping", silence_s=0.7)
    assert [event["holder"] for event in told] == ["her"] * 10


def test_upload_to_a_device_that_never_reads_ends_in_time(tmp_path, monkeypatch):
    """It tells enough to be taken for alive, and takes nothing."""
    monkeypatch.setattr(transport, "SLOWEST_BYTES_S", 1e9)
    with open_session(scripted(tmp_path, DEAF)) as session:
        began_s = time.monotonic()
        with pytest.raises(DeviceError, match="does not accept the data sent") as caught:
            session._link.call("put", {"sha256": "a" * 64, "size": 1 << 24}, blob=bytes(1 << 24), sending_s=0.5)
        assert caught.value.kind == "silent" and time.monotonic() - began_s < 5


def test_source_is_sent_when_the_device_asks_for_it(tmp_path):
    """What start-up files of a login shell read would be the source, were it sent at once."""
    device = peer(tmp_path, READY, frame(RESPONSE, 1, FACTS))
    script = Path(str(device.python))
    first = "import select\nif select.select([0], [], [], 0.5)[0]: sys.exit('something came unasked')\n"
    script.write_text(script.read_text().replace("def take", first + "def take", 1))
    with open_session(device) as session:
        assert session.facts.python == "3.6.9"


def test_start_up_file_that_waits_for_input_is_named(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\ncat >/dev/null\n")
    script.chmod(0o700)
    with pytest.raises(DeviceError, match="start-up file of its login shell"):
        Transport(local_argv(str(script)), connect_s=0.5)


def test_text_from_a_device_cannot_steer_a_terminal(tmp_path):
    facts = FACTS | {"cpu": "\x1b[2Ja\u202e cpu\n" + "x" * 9999}
    with open_session(peer(tmp_path, READY, frame(RESPONSE, 1, facts))) as session:
        assert session.facts.cpu.isprintable() and len(session.facts.cpu) <= 300


# ------------------------------------------------ checked values


def test_a_right_block_passes():
    assert reply_parsing.block(BLOCK, 2)["wall_ms"] == (1.0, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wall_ms": [1.0]},
        {"wall_ms": []},
        {"wall_ms": [1.0, math.nan]},
        {"wall_ms": [1.0, math.inf]},
        {"wall_ms": [1.0, 0.0]},
        {"cpu_ms": [1.0, -1.0]},
        {"cpu_ms": [1.0, None]},
        {"cpu_ms": "12"},
        {"reference_wall_ms": None},
        {"peak_mb": math.nan},
        {"peak_mb": 10**400},
        {"load_ms": "3"},
        {"warmup_runs": True},
        {name: [1.0] * 3 for name in reply_parsing.LISTS},
        {name: [] for name in reply_parsing.LISTS},
    ],
)
def test_a_wrong_block_does_not(wrong):
    with pytest.raises(DeviceError):
        reply_parsing.block(BLOCK | wrong, 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(BLOCK, VALUES)))
def test_any_block_is_right_or_refused(changes):
    try:
        found = reply_parsing.block(BLOCK | changes, 2)
    except DeviceError:
        return
    assert all(math.isfinite(value) and value > 0 for value in found["wall_ms"])
    assert all(math.isfinite(found[name]) for name in ("peak_mb", "load_ms", "load_average"))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FACTS, VALUES)))
def test_any_facts_are_right_or_refused(changes):
    try:
        found = reply_parsing.facts(FACTS | changes)
    except DeviceError:
        return
    assert found.cores >= 1 and found.cpu.isprintable()


@pytest.mark.parametrize(
    ("kind", "kept"), [("crashed", CandidateError), ("cancelled", CancelledError), ("no_space", DeviceError)]
)
def test_whose_fault_an_error_is(kind, kept):
    assert type(reply_parsing.error({"kind": kind, "reason": "so"})) is kept


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_refused(data):
    stream = io.BytesIO(data)
    try:
        while True:
            found = read_frame(stream, lambda request: 50)
            assert found.kind in (RESPONSE, ERROR, EVENT, BLOB)
    except (DeviceError, EOFError):
        pass


FRAMES = st.lists(
    st.builds(
        lambda kind, request, value: (kind, request, b"blob" if kind == BLOB else value),
        st.sampled_from([RESPONSE, ERROR, EVENT, BLOB]),
        st.integers(0, 2**32 - 1),
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(FRAMES)
def test_frames_come_back_as_they_went(frames):
    stream = io.BytesIO(b"".join(frame(*parts) for parts in frames))
    assert [read_frame(stream, lambda request: 4) for _ in frames] == [Frame(*parts) for parts in frames]


@given(FRAMES, st.data())
def test_a_damaged_stream_is_read_or_refused(frames, data):
    whole = bytearray(b"".join(frame(*parts) for parts in frames))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    stream = io.BytesIO(bytes(whole))
    try:
        for _ in frames:
            read_frame(stream, lambda request: 4)
    except (DeviceError, EOFError):
        pass


@pytest.mark.parametrize("data", [b'{"a": NaN}', b'{"a": -Infinity}', b"\xff", b"[1]", b"{'a': 1}"])
def test_json_that_is_not_an_object(data):
    with pytest.raises(DeviceError):
        parse_json(data)
