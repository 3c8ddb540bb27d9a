"""A board that can't be reached: exit code 4 and one line that says why and what to do."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from remote.exit_codes import DEVICE, USER
from tests.ssh.rig import Rig, free_port
from tests.test_command import run


def _key(rig: Rig, name: str) -> str:
    """A key that nobody has seen before."""
    path = rig.folder / name
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return str(path)


def _refused(rig: Rig) -> str:
    return rig.enter("refused", port=free_port())


def _wrong_key(rig: Rig) -> str:
    return rig.enter("wrong-key", IdentityFile=_key(rig, "other"))


def _unknown_host_key(rig: Rig) -> str:
    return rig.enter("unknown-key", UserKnownHostsFile="/dev/null")


def _changed_host_key(rig: Rig) -> str:
    words = Path(_key(rig, "another") + ".pub").read_text().split()[:2]
    (rig.folder / "old_hosts").write_text(f"board {' '.join(words)}\n")
    return rig.enter("changed-key", UserKnownHostsFile=rig.folder / "old_hosts")


def _no_python(rig: Rig) -> str:
    return rig.enter("no-python", python="/no/such/python")


def _not_a_python(rig: Rig) -> str:
    return rig.enter("not-a-python", python="/bin/true")


def _another_user(rig: Rig) -> str:
    return rig.enter("another-user", User="nobody-of-that-name")


@pytest.mark.parametrize(
    ("enter", "says"),
    [
        (_refused, "no ssh server answers"),
        (_wrong_key, "ssh-copy-id"),
        (_another_user, "none of the offered keys"),
        (_unknown_host_key, "accept the key"),
        (_changed_host_key, "ssh-keygen -R"),
        (_no_python, "that Python does not exist"),
        (_not_a_python, "exit status 0"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_"),
)
def test_a_board_out_of_reach_ends_with_one_line(rig, tmp_path, enter, says):
    name = enter(rig)
    began_s = time.monotonic()
    code, out, err = run("--budget-ms", 5, "--device", name, "--out", tmp_path / "r", timeout=60)
    assert (code, err.count("\n")) == (DEVICE, 1), (code, out, err)
    assert err.startswith("device: ") and says in err and name in err and err[:-1].isprintable(), err
    assert time.monotonic() - began_s < 50 and "trial" not in out


def test_a_name_that_no_host_has_may_be_a_slip_of_the_pen(rig, tmp_path):
    """The user's fault, told with what is entered."""
    code, _, err = run("--budget-ms", 5, "--device", "bord.invalid", "--out", tmp_path / "r", timeout=60)
    assert (code, err.count("\n")) == (USER, 1) and "unknown device bord.invalid" in err and " board" in err, err
    assert "no host has that name" in err, "what ssh says of it"


def test_nothing_is_left_running(rig):
    assert not rig.processes()
