"""A file system that fills up wherever a search writes, on a real one: one line, exit code 5, and it goes on with room.

`EDGEFRONT_DISK_KB=60,200,…` sets other sizes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from remote.exit_codes import HOST, OK
from tests.ending_runs import check_whole, start, whole_lines, words

SIZES_KB = [int(size) for size in os.environ.get("EDGEFRONT_DISK_KB", "40,900").split(",")]


def _mounted(folder, options):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root on Linux, to make a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mounted(folder, f"size={SIZES_KB[0]}k"):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.slow
def test_search_on_a_full_disk_says_so_and_goes_on_with_room(disk, tmp_path):
    """Run folder, cache and TMPDIR are on it; every size lets the search come a little further."""
    (disk / "tmp").mkdir()
    arguments, output, before = words(tmp_path / "run", disk / "cache"), tmp_path / "output", b""
    arguments[arguments.index("--out") + 1] = str(disk / "run")
    for size_kb in SIZES_KB:
        subprocess.run(["mount", "-o", f"remount,size={size_kb}k", disk], check=True)
        code = start(arguments, output, TMPDIR=str(disk / "tmp")).wait(600)
        said = output.read_text()
        assert code == HOST and "Traceback" not in said, said
        errors = [line for line in said.splitlines() if not line.startswith("[") and "connecting" not in line]
        assert len(errors) == 1 and re.match("host: .*(no space left|out of disk)", errors[0]), said
        after = (disk / "run" / "ledger.jsonl").read_bytes() if (disk / "run" / "ledger.jsonl").exists() else b""
        assert after == whole_lines(disk / "run" / "ledger.jsonl") and after.startswith(before), "a torn line stayed"
        assert b'"Failure"' not in after, "it was held against a candidate"
        before = after
    subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
    assert start(arguments, output, TMPDIR=str(disk / "tmp")).wait(600) == OK, output.read_text()
    assert whole_lines(disk / "run" / "ledger.jsonl").startswith(before)
    check_whole(disk / "run")
