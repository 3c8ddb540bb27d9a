"""The ledger: no torn line stays, and a damaged one is named."""

import json
import subprocess
import sys

import pytest

from search.settings import SettingsError
from search.storage.ledger import OF_THE_FILE, REMADE, Ledger


def filled(path, count=3):
    ledger = Ledger(path)
    for place in range(count):
        ledger.put("latency", str(place), {"x": place}, {"timing": 0.5}, 1.0)
    ledger.close()
    return path.read_bytes()


def test_ledger_cut_at_every_byte_keeps_all_whole_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    data = filled(path)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        ledger = Ledger(path)
        assert len(list(ledger.entries())) == data[:cut].count(b"\n")
        ledger.put("latency", "after", {}, {}, 0.0)
        ledger.close()
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    "damage",
    [b"{", b"", b"null", b"[1]", b"\x00\x00", b"\xff\xfe", b'{"stage": 1}', b"[" * 100000, b'{"a": {}}'],
    ids=["torn", "empty", "null", "list", "zeros", "no-text", "foreign", "deep", "other"],
)
def test_ledger_damaged_in_the_middle_names_file_and_line(tmp_path, damage):
    path = tmp_path / "ledger.jsonl"
    first, second, third = filled(path).splitlines()
    path.write_bytes(b"\n".join([first, damage, third]) + b"\n")
    with pytest.raises(SettingsError, match=r"ledger\.jsonl is damaged in line 2: remove that line") as caught:
        Ledger(path)
    assert "\n" not in str(caught.value)
    path.write_bytes(first + b"\n" + third + b"\n")  # as it says
    assert [entry.key for entry in Ledger(path).entries()] == ["0", "2"] and second


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by ulimit")
def test_put_without_room_leaves_whole_lines(tmp_path):
    """A limit on a file's size cuts a write in the middle, as a full disk does, and needs no root."""
    code = (
        "import resource, sys, pathlib\n"
        "from search.storage.ledger import Ledger\n"
        "from remote.files import HostError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]))\n"
        "try:\n"
        "    for place in range(99): ledger.put('latency', str(place), {}, {}, 0.0)\n"
        "except HostError as error: print(error)\n"
    )
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "writing" in done.stdout and done.stdout.count("\n") == 1 and "ulimit" in done.stdout
    lines = path.read_bytes()
    assert lines.endswith(b"\n") and 0 < len(lines) <= 1000 and all(json.loads(line) for line in lines.splitlines())


def test_remade_voids_what_was_measured_of_the_old_file(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for stage in (*OF_THE_FILE, "structure"):
        ledger.put(stage, "k@1", 1, {}, 0.0)
        ledger.put(stage, "k@0", 1, {}, 0.0)
    ledger.put(REMADE, "k@1", {}, {}, 0.0)
    ledger.put("test", "k@1", 2, {}, 0.0)
    for again in (ledger, Ledger(path)):
        assert [again.get(stage, "k@1") is None for stage in OF_THE_FILE] == [stage != "test" for stage in OF_THE_FILE]
        assert again.get("structure", "k@1") and all(again.get(stage, "k@0") for stage in OF_THE_FILE)
