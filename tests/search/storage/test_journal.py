"""Optuna's journal: cut anywhere it is gone on with; damaged inside it is one line that names the place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from search.budget import Budget
from search.sampling.optuna_study import open_study
from search.settings import SettingsError
from spaces.space import load

ROOT = Path(__file__).parents[3]
FULL = """
import resource, sys, pathlib
from remote.files import HostError
from tests.search.storage.test_journal import opened
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
study = opened(pathlib.Path(sys.argv[1]))
try:
    for place in range(99): study.tell(study.ask(), state=__import__("optuna").trial.TrialState.FAIL)
except HostError as error: print(error)
"""


def opened(folder):
    return open_study(folder, "random", 0, load("tiny"), Budget(latency_ms=1.0))


def trials(folder):
    study = opened(folder)
    for _ in range(3):
        study.enqueue_trial({})
    return (folder / "study.journal").read_bytes()


def test_journal_cut_at_any_byte_is_gone_on_with(tmp_path):
    data = trials(tmp_path)
    for cut in range(0, len(data) + 1, 7):
        (tmp_path / "study.journal").write_bytes(data[:cut])
        opened(tmp_path).enqueue_trial({})
        assert all(json.loads(line) for line in (tmp_path / "study.journal").read_bytes().splitlines())


@pytest.mark.parametrize("damage", [b"{", b"", b"null", b"\xff", b"\0\0", b"{}"])
def test_journal_damaged_in_the_middle_names_file_and_line(tmp_path, damage):
    lines = trials(tmp_path).splitlines()
    (tmp_path / "study.journal").write_bytes(b"\n".join([lines[0], damage, *lines[2:]]) + b"\n")
    with pytest.raises(SettingsError, match=r"study\.journal is damaged in line 2: remove the file") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "study.journal").unlink()  # as it says
    assert len(opened(tmp_path).trials) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by ulimit")
def test_journal_without_room_keeps_whole_lines(tmp_path):
    command = [sys.executable, "-c", FULL, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "study.journal" in done.stdout and "ulimit" in done.stdout, done
    data = (tmp_path / "study.journal").read_bytes()
    assert data.endswith(b"\n") and all(json.loads(line) for line in data.splitlines())
    assert opened(tmp_path).trials
