"""A board over real ssh, as another user who has nothing of ours: what it says, stores, times and predicts."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from evaluators.measurement import Block
from remote.connect import connect
from tests.ssh.rig import Rig
from tests.ssh.root import root
from tests.ssh.sessions import ORT, block, graph, opened, timing_child, wait_for


def test_it_says_what_it_is(rig):
    session, device, profile = connect("board")
    with session:
        facts = session.facts
    assert (device.host, device.runtime) == ("board", "onnxruntime") and profile and profile.name == "local"
    assert facts.machine == platform.machine() and facts.kernel == platform.release()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.runtimes == {"onnxruntime": onnxruntime.__version__}


def test_it_times_and_predicts_as_the_other_user(rig, tmp_path):
    with opened() as session:
        timed = Block(**block(session, tmp_path, pairs=8))
        images = np.random.RandomState(0).standard_normal((7, 3, 2, 2)).astype(np.float32)
        raw = session.predict(session.put(graph(tmp_path, "linear")), session.put(images.tobytes()), images.shape, ORT)
        assert all(Path(f"/proc/{pid}").stat().st_uid == rig.uid for pid in rig.processes())
        assert session.state()["memory_available_mb"] > 0
    assert len(timed.wall_ms) == len(timed.reference_cpu_ms) == 8 and min(timed.wall_ms) > 0
    here = onnxruntime.InferenceSession(graph(tmp_path, "linear"))
    want = [here.run(None, {"x": image[None]})[0][0] for image in images]
    assert np.array_equal(np.frombuffer(raw, "<f4").reshape(7, 3), np.array(want, np.float32))


def test_nothing_is_written_but_the_cache_which_is_private(rig, tmp_path):
    root("rm", "-rf", rig.home / ".cache")
    before = rig.files()
    with opened() as session:
        block(session, tmp_path)
        name = session.put(os.urandom(100_000))
    after = rig.files()
    assert {path: mode for path, mode in after.items() if not path.startswith(".cache")} == before
    assert [path for path in after if path.startswith(".cache/") and "edgefront" not in path] == []
    kept = {path: mode for path, mode in after.items() if path.startswith(".cache/edgefront")}
    assert kept[f".cache/edgefront/blobs/{name}"] == ("600", "f")
    assert {mode for mode, kind in kept.values() if kind == "f"} == {"600"}
    assert {mode for mode, kind in kept.values() if kind == "d"} == {"700"}
    assert {kind for _, kind in kept.values()} == {"f", "d"}
    places = [place for place in ("/tmp", "/var/tmp", "/dev/shm", "/run") if Path(place).is_dir()]
    left = root("find", *places, "-xdev", "-user", rig.uid, check=False).split()
    assert set(left) <= {"/run/lock/edgefront.lock"}


def test_what_is_stored_is_what_was_sent(rig):
    data = os.urandom(3_000_000)
    with opened() as session:
        name = session.put(data)
    stored = rig.home / ".cache/edgefront/blobs" / name
    assert root("sha256sum", stored).split()[0] == name == hashlib.sha256(data).hexdigest()


def test_the_agent_is_gone_when_the_session_ends(rig, tmp_path):
    with opened() as session:
        block(session, tmp_path)
        assert len(rig.processes()) == 1
    wait_for(lambda: not rig.processes(), 3.0)


def test_command_lines_tell_no_secret_and_nothing_of_ours(rig, tmp_path, monkeypatch):
    """Whoever lists the board's processes sees a Python with a fixed bootstrap and a number."""
    monkeypatch.setenv("EDGEFRONT_TEST_SECRET", "hush")
    with opened() as session:
        seen = {pid: words for pid, words in rig.processes().items() if words}
        environments = [root("cat", f"/proc/{pid}/environ") for pid in seen]
        model = session.put(graph(tmp_path, "convolution"))
    assert len(seen) == 1
    for python, *words in seen.values():
        assert Path(python).parent == Path(rig.python).parent
        assert words[:2] == ["-u", "-c"] and words[2].startswith("import sys;sys.path") and words[3].isdigit()
        assert len(words) == 4
        said = " ".join(words)
        for secret in (str(Path.cwd()), str(tmp_path), str(rig.folder), os.uname().nodename, model, "edgefront/"):
            assert secret not in said
    assert environments and not any("hush" in text or "edgefront/blobs" in text for text in environments)


def test_the_timing_process_tells_no_more(rig, tmp_path):
    from threading import Thread

    with opened() as session:
        timing = Thread(target=block, args=(session, tmp_path, "convolution", 400))
        timing.start()
        child = wait_for(lambda: timing_child(rig))
        words = rig.processes()[child]
        timing.join()
    assert words[1:3] == ["-u", "-c"] and words[4].isdigit() and words[5:] == ["child"]


@pytest.mark.parametrize(
    "noise", ["echo Welcome; echo AGENT-READY soon", "seq 1 20000", "printf 'no line end'", "echo oops >&2"]
)
def test_a_noisy_login_shell_does_not_matter(rig, tmp_path, noise):
    bashrc = rig.home / ".bashrc"
    kept = root("cat", bashrc)
    try:
        _write(rig, bashrc, f"{noise}\n{kept}")
        assert rig.run("true").stdout + rig.run("true").stderr, "bash heeds .bashrc when ssh starts it"
        with opened() as session:
            assert block(session, tmp_path)["wall_ms"]
    finally:
        _write(rig, bashrc, kept)


@pytest.mark.parametrize("file", [".bashrc", ".profile"])
@pytest.mark.parametrize("reads", ["read -t 1 answer", "timeout 1 cat >/dev/null", "timeout 1 head -c 100 >/dev/null"])
def test_start_up_file_that_reads_input_takes_nothing_of_ours(rig, tmp_path, file, reads):
    """The source is sent when the board's Python asks for it. `.profile` is read by a login shell alone."""
    path = rig.home / file
    kept = root("cat", path)
    try:
        _write(rig, path, f"{reads}\n{kept}")
        with opened() as session:
            assert block(session, tmp_path)["wall_ms"]
    finally:
        _write(rig, path, kept)


UNUSUAL = {
    "RemoteCommand": "tmux new -A -s main",
    "RequestTTY": "force",
    "StdinNull": "yes",
    "SessionType": "none",
    "ForkAfterAuthentication": "yes",
}


@pytest.mark.parametrize("name", [*UNUSUAL, "SessionType subsystem", "all"])
def test_entry_that_is_made_for_a_person_reaches_the_board_too(rig, tmp_path, name):
    word, _, value = name.partition(" ")
    options = UNUSUAL if name == "all" else {word: value or UNUSUAL[word]}
    device = rig.enter(f"unusual-{name.replace(' ', '-')}", **options)
    with opened(device) as session:
        assert block(session, tmp_path)["wall_ms"]


def _write(rig: Rig, path: Path, text: str) -> None:
    source = rig.folder / "new"
    source.write_text(text)
    root("install", "-m", "644", "-o", rig.user, "-g", rig.user, source, path)
