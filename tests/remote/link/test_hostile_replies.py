"""A device that lies, by every reply it can give: one clear error at most, soon, nothing run, nothing written.

The peer is a process that takes our source and answers each operation as it is told. A right answer is changed in one
way, as hypothesis likes: a field replaced by any JSON, a frame cut short, a length that lies, bytes that are no frame.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluators.layer_precision import sentence, summarise
from evaluators.timing.latency import TimingRules, TimingTarget
from evaluators.timing.latency import time_block as judged_block
from remote.agent import BLOB, ERROR, EVENT, PROTOCOL, RESPONSE
from remote.connect import open_session
from remote.device import Device, capabilities
from remote.errors import CandidateError, DeviceError
from remote.link.session import Job, Session

pytestmark = pytest.mark.slow

DIGEST = "a" * 64
JOB = Job(runtime="onnxruntime", build_deadline_s=0.1)
LONGEST_S = 8.0  # a peer that says nothing is given up after half a second, here
TIMES = {name: [1.0, 1.5] for name in ("wall_ms", "cpu_ms", "reference_wall_ms", "reference_cpu_ms")}
DURING = {"cpu_mhz_min": 1490, "cpu_mhz_limit": 1500, "temperature_c_start": 40.0, "throttled_bits": "0", "samples": 9}
RIGHT: dict[str, dict[str, Any]] = {
    "hello": {
        "machine": "aarch64",
        "cpu": "Cortex-A57",
        "cpu_flags": ["fp", "asimd"],
        "cores": 4,
        "memory_mb": 3956,
        "python": "3.6.9",
        "boot_id": "b",
        "kernel": "4.9.337-tegra",
        "runtimes": {"onnxruntime": "1.10.0", "tensorrt": "8.2.1.9"},
        "board": "NVIDIA Jetson Nano Developer Kit",
        "compatible": ["nvidia,p3450-0000", "nvidia,tegra210"],
        "release": "L4T 32.7.6",
        "gpu": {"name": "NVIDIA Tegra X1", "sm": "5.3", "memory_mb": 3956, "unified": True},
        "simulated": False,
        "protocol": PROTOCOL,
    },
    "stat": {"have": False, "partial": 0},
    "put": {"have": True},
    "time": TIMES
    | {"gpu_ms": [0.9, 0.9], "reference_gpu_ms": [0.9, 0.9], "peak_mb": 50.0, "runtime_mb": 40.0, "device_mb": 12.0}
    | {"load_ms": 3.0, "build_s": 0.0, "energy_mj": 5.0, "warmup_runs": 20, "load_average": 0.1, "taken_mb": 30}
    | {"during": DURING, "ended_at_s": 100.0},
    "predict": {"shape": [2, 3], "bytes": 24},
    "layers": {"layers": [{"name": "a", "type": "QLinearConv", "precision": "int8", "ms": 0.5}], "why": ""},
    "state": {"load_average": 0.1, "memory_available_mb": 2000, "cpu_busy_s": 10.0, "at_s": 50.0, "cpu_stolen_s": 0.0},
    "survey": {"load_average": 0.1, "disk_free_mb": 9000, "holder": "", "temperature_c": {"CPU": 41.0}},
}
RAW = {"predict": bytes(24)}

# Answers come from a file beside it: operation -> ([(type, body, length or None, request or None)], the number of
# bytes after which it stops (None: all), whether it goes then). A type of None is a body without a frame.
PEER = """#!{python} -IS
import os, struct, sys
def take(n):
    d = b''
    while len(d) < n:
        part = os.read(0, n - len(d))
        if not part: os._exit(0)
        d += part
    return d
answers = eval(open({answers!r}).read())
os.write(1, b"\\nAGENT-BOOT\\n")
take(int(sys.argv[-1]))
os.write(1, {ready!r})
asked = ''
while True:
    kind, request, length = struct.unpack('!BIQ', take(13))
    body = take(length)
    if kind == 1:
        asked = body.split(b'"op": "')[1].split(b'"')[0].decode()
        if asked == 'quit': os._exit(0)
        if asked == 'put': continue
    frames, cut, goes = answers.get(asked, ([], None, False))
    out = b''
    for k, b, n, r in frames:
        head = struct.pack('!BIQ', k, request if r is None else r, len(b) if n is None else n) if k is not None else b''
        out += head + b
    out = out[:cut]
    while out:
        out = out[os.write(1, out):]
    if goes: os._exit(0)
"""
Frame = tuple[int | None, bytes, int | None, int | None]
Answer = tuple[list[Frame], int | None, bool]


def body(value: object) -> bytes:
    return json.dumps(value).encode()  # NaN and Infinity as Python writes them, which is not JSON


def right(op: str) -> Answer:
    """What an honest agent answers."""
    frames: list[Frame] = [(RESPONSE, body(RIGHT[op]), None, None)]
    frames += [(BLOB, RAW[op], None, None)] if op in RAW else []
    return frames, None, False


def use(op: str, session: Session) -> object:
    """The session's call that asks for the operation, and what a search makes of the answer."""
    calls: dict[str, Callable[[], object]] = {
        "hello": lambda: (session.facts.fingerprint(), capabilities(session.facts, list(session.facts.runtimes))),
        "stat": lambda: session.put(b"x" * 1000),
        "put": lambda: session.put(b"x" * 1000),
        "time": lambda: session.time_block(DIGEST, DIGEST, JOB, 2, 0.1, deadline_s=0.5),
        "predict": lambda: session.predict(DIGEST, DIGEST, (2, 3, 2, 2), JOB, deadline_s=0.5),
        "layers": lambda: sentence(summarise("int8", *session.layers(DIGEST, JOB, 0.1, deadline_s=0.5))),
        "state": lambda: judged_block(
            session,
            TimingTarget(
                model_sha256=DIGEST,
                reference_sha256=DIGEST,
                job=JOB,
                runtime_version="",
                percentile=95.0,
                reference_ms=1.0,
            ),
            TimingRules(pairs=2),
        ),
        "survey": session.survey,
    }
    return calls[op]()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Answer]], Device]:
    """Makes a device of answers."""
    folder = tmp_path_factory.mktemp("peer")
    script, answers = folder / "python", folder / "answers"
    ready = f"\nAGENT-READY {PROTOCOL}\n".encode()
    script.write_text(PEER.format(python=os.path.realpath(sys.executable), answers=str(answers), ready=ready))
    script.chmod(0o700)

    def make(changed: dict[str, Answer]) -> Device:
        answers.write_text(repr({op: right(op) for op in RIGHT} | changed))
        return Device(name="fake", profile=None, host=None, python=str(script), runtime="onnxruntime")

    return make


# ------------------------------------------------ nothing is written, nothing is run

DEEDS: list[str] = []
WATCHED = [False]
FORBIDDEN: tuple[str, ...] = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
)
FORBIDDEN += ("os.system", "os.exec", "pickle.find_class", "shutil.rmtree", "shutil.copyfile", "shutil.move")


def _see(event: str, args: tuple[Any, ...]) -> None:
    if not WATCHED[0]:
        return
    path, flags = (args[0], args[2]) if event == "open" else (0, 0)  # a number is a pipe that is open already
    writes = not isinstance(path, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in FORBIDDEN:
        DEEDS.append(f"{event} {args[:1]}")


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    sys.addaudithook(_see)  # for the life of the process, which is why it only looks while it is told to


@contextmanager
def harmless() -> Iterator[None]:
    """Nothing in this process writes a file, runs a command or unpickles meanwhile."""
    DEEDS.clear()
    WATCHED[0] = True
    try:
        yield
    finally:
        WATCHED[0] = False
    assert DEEDS == []


def test_the_watch_sees(tmp_path):
    with pytest.raises(AssertionError, match=r"open .*proof"), harmless():
        (tmp_path / "proof").write_text("x")


def meet(op: str, device: Device, silence_s: float = 0.4) -> object:
    """The outcome, or the one error that may come of it: short, printable, soon."""
    began_s = time.monotonic()
    try:
        with harmless(), open_session(device, ping_s=0.1, silence_s=silence_s, connect_s=20.0) as session:
            return use(op, session)
    except (DeviceError, CandidateError) as error:
        assert str(error).isprintable() and 0 < len(str(error)) < 1200
        return error
    finally:
        assert time.monotonic() - began_s < LONGEST_S


# ------------------------------------------------ how an answer is changed

NASTY: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(math.nan, math.inf, -math.inf, 1e308, -1e308, 10**400, -(10**400), 2**63, -1, 0, True, False, None),
        *(
            "",
            "<script>alert(1)</script>",
            "\x1b[2J\x1b]0;x\x07",
            "\u202e",
            "9" * 5000,
            "nan",
            "NaN",
            "../../etc/passwd",
        ),
        *([], {}, [[]], [None], [math.nan], {"": None}, {"__class__": "x"}, "$(reboot)", "a\nb", "\ud800"),
    ]
)
JSON = NASTY | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
BODIES = st.binary(max_size=200) | st.sampled_from(
    [
        b"<html><body><h1>502 Bad Gateway</h1></body></html>" * 20,
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xff\xfe{}",
            b'{"cores": ' + b"9" * 10_000 + b"}",
        ),
    ]
)


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: object, drop: bool) -> Any:
    """A copy with one value inside replaced, or left out."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


@st.composite
def fields_changed(draw: st.DrawFn, op: str) -> Answer:
    """One or two fields replaced by any JSON, left out, or one added."""
    value = RIGHT[op]
    for _ in range(draw(st.integers(1, 2))):
        if there := list(paths(value)):
            value = replaced(value, draw(st.sampled_from(there)), draw(JSON), draw(st.integers(0, 5)) == 0)
    if draw(st.integers(0, 5)) == 0:
        value = value | draw(st.dictionaries(st.text(max_size=8), JSON, max_size=2))
    frames, _, _ = right(op)
    return [(RESPONSE, body(value), None, None), *frames[1:]], None, False


@st.composite
def frames_changed(draw: st.DrawFn, op: str) -> Answer:
    """Frames that lie, are cut short, come twice, in another order, with events between, or are none."""
    frames, cut, goes = right(op)
    index = draw(st.integers(0, len(frames) - 1))
    kind, data, length, request = frames[index]
    how = draw(
        st.sampled_from(["kind", "body", "length", "request", "twice", "turned", "events", "cut", "error", "junk"])
    )
    if how == "kind":
        kind = draw(st.sampled_from([0, 1, 3, 4, 5, 6, 255]))
    elif how == "body":
        data = draw(BODIES)
    elif how == "length":
        length = draw(
            st.sampled_from([0, 1, max(0, len(data) - 1), len(data) + 1, 1 << 24, 1 << 31, 1 << 62, 2**64 - 1])
        )
    elif how == "request":
        request = draw(st.sampled_from([0, 1, 999, 2**32 - 1]))
    elif how == "error":
        kind, data = ERROR, body(draw(st.fixed_dictionaries({}, optional={"kind": JSON, "reason": JSON})))
    frames[index] = (kind, data, length, request)
    if how == "twice":
        frames *= 2
    elif how == "turned":
        frames.reverse()
    elif how == "events":
        frames[:0] = [
            (EVENT, body(draw(st.dictionaries(st.sampled_from(["event", "at_s", "holder"]), JSON))), None, None)
        ]
    elif how == "cut":
        cut, goes = draw(st.integers(1, 13 + len(data))), draw(st.booleans())
    elif how == "junk":
        frames.append((draw(st.integers(0, 255)), draw(BODIES), None, draw(st.none() | st.integers(0, 9))))
    return frames, cut, goes


def tries(count: int) -> Callable[[Any], Any]:
    """The same examples at every run, as many."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


# ------------------------------------------------ what comes of it


@pytest.mark.parametrize("op", RIGHT)
def test_a_right_answer_is_taken(peer, op):
    """Else nothing below would mean anything."""
    assert not isinstance(meet(op, peer({}), silence_s=20.0), Exception)


@pytest.mark.parametrize("op", RIGHT)
def test_any_field_may_be_anything(peer, op):
    outcomes = []

    @tries(100)
    @given(fields_changed(op))
    def check(answer: Answer) -> None:
        outcomes.append(meet(op, peer({op: answer})))

    check()
    if op not in ("put", "survey"):  # of which nothing, and nothing that has a shape, is believed
        assert any(isinstance(outcome, DeviceError) for outcome in outcomes)


@pytest.mark.parametrize("op", RIGHT)
def test_any_frame_may_be_anything(peer, op):
    outcomes = []

    @tries(80)
    @given(frames_changed(op))
    def check(answer: Answer) -> None:
        outcomes.append(meet(op, peer({op: answer})))

    check()
    assert any(isinstance(outcome, DeviceError) for outcome in outcomes)


@pytest.mark.parametrize("op", ["hello", "time", "predict"])
def test_bytes_that_are_no_frames(peer, op):
    """In the place of an answer."""

    @tries(40)
    @given(BODIES, st.booleans())
    def check(junk: bytes, goes: bool) -> None:
        assert isinstance(meet(op, peer({op: ([(None, junk, None, None)], None, goes)})), DeviceError)

    check()


def test_numbers_that_pass_are_finite(peer):
    seen = []

    @tries(100)
    @given(fields_changed("time"))
    def check(answer: Answer) -> None:
        block = meet("time", peer({"time": answer}))
        if isinstance(block, dict):
            seen.append(block)

    check()
    for block in seen:
        for name, value in block.items():
            values = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else [value]
            assert all(isinstance(v, str) or v is None or math.isfinite(v) for v in values), (name, value)
    assert seen


def test_nothing_is_left_of_the_peers(peer):
    """Every process that played a device has ended."""
    meet("state", peer({"state": ([], None, False)}))
    script = str(Path(str(peer({}).python)))
    mine = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if script in _read(entry)]
    assert mine == []


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
