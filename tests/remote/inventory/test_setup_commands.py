"""Commands that prepare a board: undone on every ending, those that a process can't see by the next connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from remote.device import Device, Facts
from remote.errors import DeviceError
from remote.inventory.setup_commands import prepare_device, undo_left
from tests.ending_runs import heed_signals
from tests.remote.test_device import FACTS

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, which notes are kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgefront" / "prepared"


def board(tmp_path: Path, *more: str, restore: tuple[str, ...] = ()) -> Device:
    """This machine, `locked` by the first command."""
    prepare = (f"touch {tmp_path}/locked", *more)
    return Device(
        name="board",
        profile="local",
        host=None,
        python=None,
        runtime=None,
        prepare=prepare,
        restore=(*restore, f"rm {tmp_path}/locked"),
    )


def is_locked(tmp_path: Path) -> bool:
    return (tmp_path / "locked").exists()


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_preparing_is_undone_however_the_block_ends(tmp_path, cache, ending):
    try:
        with prepare_device(board(tmp_path), FACTS):
            assert is_locked(tmp_path) and list(cache.glob("*.json"))
            if ending:
                raise ending
    except BaseException as error:
        assert isinstance(error, ending)
    assert not is_locked(tmp_path) and not list(cache.glob("*.json"))


def test_preparing_whose_second_command_fails_undoes_the_first(tmp_path, cache):
    with (
        pytest.raises(DeviceError, match="`exit 1` ended with status 1"),
        prepare_device(board(tmp_path, "exit 1"), FACTS),
    ):
        pytest.fail("it was not prepared")
    assert not is_locked(tmp_path) and not list(cache.glob("*.json"))


def test_restoring_goes_on_after_a_command_that_fails_and_says_so(tmp_path, cache):
    said: list[str] = []
    with prepare_device(board(tmp_path, restore=("echo no such mode >&2; exit 3",)), FACTS, said.append):
        pass
    assert not is_locked(tmp_path) and len(said) == 1 and "no such mode" in said[0] and "by hand" in said[0]
    assert not list(cache.glob("*.json")), "another try would fail the same way"


KILLED = """
import sys, time
from remote.inventory.setup_commands import prepare_device
from tests.remote.test_device import FACTS
from tests.remote.inventory.test_setup_commands import board
from pathlib import Path
with prepare_device(board(Path(sys.argv[1])), FACTS):
    print("prepared", flush=True)
    time.sleep(60)
"""


def run_until_prepared(tmp_path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "prepared\n"
    return process


def test_run_that_was_killed_is_undone_by_the_next_connection_which_says_so(tmp_path, cache):
    """Not while the run lives: that would change the clocks under what it times."""
    said: list[str] = []
    with run_until_prepared(tmp_path) as process:
        undo_left(board(tmp_path), FACTS, said.append)
        assert is_locked(tmp_path) and not said
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert is_locked(tmp_path)
    bare = Device(
        name="elsewhere", profile=None, host=None, python=None, runtime=None
    )  # the same board by another entry
    undo_left(bare, FACTS, said.append)
    assert not is_locked(tmp_path) and len(said) == 1 and "ended without undoing" in said[0]
    undo_left(bare, FACTS, said.append)
    assert len(said) == 1 and not list(cache.glob("*.json"))


def test_board_that_two_runs_prepared_is_restored_by_the_last(tmp_path, cache):
    with run_until_prepared(tmp_path) as process:
        with prepare_device(board(tmp_path), FACTS):
            pass
        assert is_locked(tmp_path), "the other run still times on it"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with prepare_device(board(tmp_path), FACTS):
        pass
    assert not is_locked(tmp_path)


def test_board_that_was_restarted_has_nothing_to_undo(tmp_path, cache):
    with run_until_prepared(tmp_path) as process:
        process.kill()
    said: list[str] = []
    undo_left(board(tmp_path), replace(FACTS, boot_id="another"), said.append)
    assert is_locked(tmp_path) and not said and not list(cache.glob("*.json"))


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"board": 1}'])
def test_note_that_is_damaged_is_as_good_as_none(tmp_path, cache, torn):
    cache.mkdir(parents=True)
    (cache / "0.json").write_text(torn)
    undo_left(board(tmp_path), FACTS)
    with prepare_device(board(tmp_path), FACTS):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_note_that_cannot_be_written_is_said_and_does_not_stop_the_run(tmp_path, cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where a folder should be")
    said: list[str] = []
    with prepare_device(board(tmp_path), FACTS, said.append):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path) and len(said) == 1 and "can't be recorded" in said[0]


def test_board_that_is_out_of_reach_at_the_end_is_restored_later(tmp_path, cache, monkeypatch):
    """ssh's status of a lost link, by a stand-in for the client."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\n[ -e {tmp_path}/off ] && exit 255\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    device, said = replace(board(tmp_path), host="nano"), []
    with prepare_device(device, FACTS, said.append):
        (tmp_path / "off").touch()
    assert is_locked(tmp_path) and "next connection" in said[0] and len(list(cache.glob("*.json"))) == 1
    (tmp_path / "off").unlink()
    undo_left(device, FACTS, said.append)
    assert not is_locked(tmp_path) and not list(cache.glob("*.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_search_that_is_ended_leaves_the_board_restored_or_the_doctor_does(tmp_path, number):
    """The whole way: a real search ended while it times, then a doctor; its ending by kill is seen by nobody else."""
    config = tmp_path / "config" / "edgefront"
    config.mkdir(parents=True)
    words = json.dumps([f"touch {tmp_path}/locked"]), json.dumps([f"rm {tmp_path}/locked"])
    entry = '[board]\nprofile = "local"\nruntime = "onnxruntime"\nprepare = %s\nrestore = %s\n'
    (config / "devices.toml").write_text(entry % words)
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "config"), "EDGEFRONT_LOCK_DIR": str(tmp_path)}
    argv = [sys.executable, "-m", "search.run", "--budget-ms", "5", "--device", "board", "--out", str(tmp_path / "r")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, cwd=ROOT, env=env, preexec_fn=heed_signals, **quiet) as search:
        end_s = time.monotonic() + 60
        while not is_locked(tmp_path):
            assert time.monotonic() < end_s and search.poll() is None
            time.sleep(0.02)
        search.send_signal(number)
        search.wait(60)
    if number == signal.SIGKILL:
        assert is_locked(tmp_path)
        show = [sys.executable, "-m", "remote.devices", "show", "board", "--connect"]
        done = subprocess.run(show, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "ended without undoing" in done.stderr, done.stderr
    assert not is_locked(tmp_path)


def test_facts_without_a_boot_identifier_still_name_a_board(tmp_path):
    facts: Facts = replace(FACTS, boot_id="")
    with prepare_device(board(tmp_path), facts):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
