"""The agent's own manners: old Pythons, blobs that lie, frames that are none, nothing outside the cache."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote.agent import BLOB, ERROR, FRAME, PROTOCOL, REQUEST, RESPONSE
from remote.connect import open_session
from remote.device import Device
from remote.link.transport import Frame, bundle, local_argv, read_exactly, read_frame

REMOTE = Path(__file__).parents[2] / "remote"
SENT = [REMOTE / "agent.py", *sorted(REMOTE.glob("onboard/[a-z]*.py")), *sorted(REMOTE.glob("runtimes/[a-z]*.py"))]
STANDARD = sys.stdlib_module_names


class Bare:
    """An agent spoken to frame by frame."""

    def __init__(self, python: str = sys.executable, source: bytes = b"") -> None:
        source = source or bundle()
        self.process = subprocess.Popen(
            [*local_argv(python)[:-1], str(len(source))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.send(source)
        ready = f"\nAGENT-BOOT\n\nAGENT-READY {PROTOCOL}\n".encode()
        assert read_exactly(self.process.stdout, len(ready)) == ready

    def send(self, data: bytes) -> None:
        self.process.stdin.write(data)

    def ask(self, request: int, **fields) -> None:
        body = json.dumps(fields).encode()
        self.send(FRAME.pack(REQUEST, request, len(body)) + body)

    def blob(self, request: int, data: bytes) -> None:
        self.send(FRAME.pack(BLOB, request, len(data)) + data)

    def hear(self) -> Frame:
        return read_frame(self.process.stdout, lambda request: 1 << 20)

    def works(self) -> bool:
        """True if it answers the next ping with that ping's answer."""
        self.ask(99, op="ping")
        answer = self.hear()
        return (answer.kind, answer.request) == (RESPONSE, 99)

    def end(self) -> int:
        self.process.stdin.close()
        status = self.process.wait(5)
        self.process.stdout.close()
        return status


@pytest.fixture
def agent(home: Path) -> Iterator[Bare]:
    agent = Bare()
    yield agent
    assert agent.end() == 0


def stored(home: Path) -> set[str]:
    return {path.name for path in (home / "edgefront" / "blobs").iterdir()}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------ what may run on a device


@pytest.mark.parametrize("path", SENT, ids=lambda path: path.name)
def test_sent_files_are_python_3_6_by_vermin(path):
    argv = [
        sys.executable,
        "-c",
        "import vermin; vermin.main()",
        "-t=3.6-",
        "--eval-annotations",
        "--no-tips",
        str(path),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SENT, ids=lambda path: path.name)
def test_sent_files_parse_as_3_6_and_import_the_standard_library_only(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).split(".")[0])
    assert names and names <= STANDARD, names - STANDARD


def old_pythons() -> list:
    """Every interpreter from 3.6 on that can be found, one a minor version."""
    found = {}
    for minor in range(6, 15):
        roots = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        path = str(roots[-1]) if roots else shutil.which(f"python3.{minor}")
        reason = pytest.mark.skip(reason=f"no Python 3.{minor} on this machine")
        found[minor] = pytest.param(path, id=f"3.{minor}", marks=() if path else reason)
    return list(found.values())


@pytest.mark.parametrize("python", old_pythons())
def test_each_python_serves(home, python):
    with open_session(Device(name="old", profile="old", host=None, python=python, runtime="onnxruntime")) as session:
        data = os.urandom(300_000)
        name = session.put(data)
        session._known.clear()
        assert session.put(data) == name
        assert (home / "edgefront" / "blobs" / name).read_bytes() == data
        assert f".{session.facts.python.split('.')[1]}" in python
        assert session.state()["load_average"]


def test_the_bootstrap_needs_no_quoting():
    """It goes through a remote login shell one day: nothing in it may mean something inside single quotes."""
    assert "'" not in local_argv("python3")[3] and local_argv("python3")[3].isprintable()


def test_modules_in_the_working_directory_are_not_taken(home, tmp_path, monkeypatch):
    for name in ("zlib", "json", "binascii", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert Bare().end() == 0


# ------------------------------------------------ blobs


def test_a_blob_is_stored_whole_under_its_digest(agent, home):
    data = os.urandom(700_000)
    agent.ask(1, op="put", sha256=digest(data), size=len(data))
    agent.blob(1, data)
    assert agent.hear() == Frame(RESPONSE, 1, {"have": True})
    assert (home / "edgefront" / "blobs" / digest(data)).read_bytes() == data


def test_a_wrong_hash_stores_nothing(agent, home):
    before = stored(home)
    agent.ask(1, op="put", sha256=digest(b"this"), size=4)
    agent.blob(1, b"that")
    answer = agent.hear()
    assert (answer.kind, answer.body["kind"]) == (ERROR, "wrong_hash")
    assert stored(home) == before and agent.works()


@pytest.mark.parametrize("data", [b"long enough", b"x", b""])
def test_a_blob_of_another_length_than_announced(agent, home, data):
    before = stored(home)
    agent.ask(1, op="put", sha256=digest(data), size=5)
    agent.blob(1, data)
    assert agent.hear().kind == ERROR
    assert stored(home) == before and agent.works()


def test_a_blob_nobody_announced_is_dropped(agent, home):
    before = stored(home)
    agent.blob(1, b"surprise")
    assert agent.works() and stored(home) == before


def test_a_truncated_blob_leaves_its_beginning_alone(home):
    agent = Bare()
    before = stored(home)
    agent.ask(1, op="put", sha256=digest(b"x" * 1000), size=1000)
    agent.send(FRAME.pack(BLOB, 1, 1000) + b"x" * 10)
    assert agent.end() == 0
    assert stored(home) - before == {f"part-{digest(b'x' * 1000)}"}


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "..", "", None, 7, ["a" * 64], "é" * 64],
)
@pytest.mark.parametrize("op", ["put", "stat"])
def test_only_digests_name_blobs(agent, home, op, name):
    before = stored(home)
    agent.ask(1, op=op, sha256=name, size=4)
    answer = agent.hear()
    assert (answer.kind, answer.body["kind"]) == (ERROR, "bad_request")
    if op == "put":
        agent.blob(1, b"evil")
    assert agent.works() and stored(home) == before


def test_more_than_the_disk_holds(agent):
    agent.ask(1, op="put", sha256="a" * 64, size=1 << 70)
    assert agent.hear().body["kind"] == "bad_request"
    agent.ask(2, op="put", sha256="a" * 64, size=-1)
    assert agent.hear().body["kind"] == "bad_request"


# ------------------------------------------------ frames


def test_an_unknown_operation(agent):
    for request, op in enumerate(["eval", "__class__", None, ["put"]], 1):
        agent.ask(request, op=op)
        answer = agent.hear()
        assert (answer.kind, answer.request, answer.body["kind"]) == (ERROR, request, "unknown_op")
    assert agent.works()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nul", b"\xff\xfe", b"[" * 100_000, b'"text"'])
def test_a_request_that_is_no_object(agent, body):
    agent.send(FRAME.pack(REQUEST, 5, len(body)) + body)
    assert agent.hear().body["kind"] == "bad_request"
    assert agent.works()


@pytest.mark.parametrize(("kind", "length"), [(0, 4), (77, 4), (REQUEST, 1 << 40), (BLOB, 1 << 60)])
def test_a_frame_that_is_none_ends_the_agent(home, kind, length):
    agent = Bare()
    agent.send(FRAME.pack(kind, 1, length))
    assert agent.hear().body["kind"] == "bad_frame"
    assert agent.process.wait(5) == 0
    agent.end()


WORDS = st.sampled_from(["hello", "stat", "put", "time", "predict", "layers", "cancel", "state", "ping", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70)
FIELDS = ["sha256", "size", "model", "reference", "data", "shape", "runtime", "threads", "pairs", "protocol"]
REQUESTS = st.fixed_dictionaries(
    {"op": WORDS}, optional={name: SCALARS | st.lists(SCALARS, max_size=3) for name in FIELDS}
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(fields=REQUESTS)
def test_any_request_is_answered_once(shared_agent, home, fields):
    before = stored(home)
    shared_agent.ask(7, **fields)
    valid_put = fields["op"] == "put" and isinstance(fields.get("size"), int)
    if not valid_put:  # a right one waits for its blob
        assert shared_agent.hear().request == 7
    else:
        shared_agent.blob(7, b"")
        assert shared_agent.hear().request == 7
    assert shared_agent.works() and stored(home) == before


@pytest.fixture(scope="module")
def shared_agent(home: Path) -> Iterator[Bare]:
    agent = Bare()
    yield agent
    agent.end()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.binary(min_size=1, max_size=200))
def test_random_bytes_end_it_cleanly(home_of_agents, data):
    agent = Bare()
    before = stored(home_of_agents)
    agent.send(data)
    assert agent.end() == 0
    assert stored(home_of_agents) == before


@pytest.fixture(scope="module")
def home_of_agents(home: Path) -> Path:
    Bare().end()
    return home
