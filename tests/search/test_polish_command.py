"""`python -m search.polish RUN`: a finished run whose leaders are trained on, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas
import pytest

from remote.exit_codes import OK, USER
from search.polish import main, resume_words
from search.settings import Settings, SettingsError, write


def run(module, *words):
    return subprocess.run([sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True)


def test_main_folder_without_a_run_is_told_and_left_alone(tmp_path, capsys):
    assert main([str(tmp_path / "no"), "--time-limit", "1m"]) == USER
    assert "nothing to polish" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_main_invalid_time_is_told(tmp_path, capsys):
    assert main([str(tmp_path), "--time-limit", "soon"]) == USER
    assert "soon" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "kept"), [(0.5, "0.5"), (0.0, "0.25")])
def test_resume_words_add_the_time_to_that_of_all_sessions(tmp_path, share, kept):
    write(Settings(budget_ms=5.0, polish_share=share, out=str(tmp_path)), tmp_path / "config.toml")
    about = {"stage": "state", "key": "data", "value": "x", "spent_s": {}, "state": ""}
    lines = [
        json.dumps(about | {"session": session, "at_s": at_s}) for session, at_s in ((0, 30.0), (0, 100.0), (1, 50.0))
    ]
    (tmp_path / "ledger.jsonl").write_text("\n".join([*lines, '{"torn']))
    words = resume_words(tmp_path, 60.0)
    assert words[words.index("--time-limit") + 1] == "210s" and words[words.index("--polish-share") + 1] == kept
    assert (tmp_path / "ledger.jsonl").read_text().endswith('{"torn'), "a search that runs there may be writing it"


def test_main_unreadable_run_is_told(tmp_path, capsys):
    write(Settings(budget_ms=5.0), tmp_path / "config.toml")
    (tmp_path / "ledger.jsonl").mkdir()
    assert main([str(tmp_path), "--time-limit", "1m"]) == USER
    assert "can't be read" in capsys.readouterr().err


def test_resume_words_damaged_ledger_is_told(tmp_path):
    write(Settings(budget_ms=5.0), tmp_path / "config.toml")
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    with pytest.raises(SettingsError, match="damaged in line 1"):
        resume_words(tmp_path, 60.0)


SPACE = """
title = "A small network"
[variants]
tiny_resnet = ["res8_w8_s2"]
[axes]
image_px = [24, 16]
prune = [0.0]
precision = ["fp32"]
runtime = ["onnxruntime"]
threads = [1]
"""


@pytest.mark.slow
def test_polish_of_a_run_trains_its_leader_on_and_tries_no_new_candidate(tmp_path):
    """A search of two trials of one epoch, then forty seconds for its leader: more epochs, never a lower accuracy."""
    out, space = tmp_path / "run", tmp_path / "small.toml"
    space.write_text(SPACE)
    words = ["--budget-ms", 5, "--trials", 2, "--rungs", "0,1", "--parent-epochs", 1, "--probe-share", 0]
    words += ["--space", space]
    assert run("search.run", *words, "--out", out, "--cache", tmp_path / "cache").returncode == OK
    before = pandas.read_csv(out / "trials.csv")
    # as on another machine: neither the folder nor the cache is where it was
    moved, other = tmp_path / "elsewhere", tmp_path / "other"
    out = out.rename(moved)
    done = run("search.polish", out, "--time-limit", "40s", "--cache", other)
    assert done.returncode == OK, done.stderr
    after = pandas.read_csv(out / "trials.csv")
    assert list(after.candidate) == list(before.candidate) and "epochs in all" in done.stdout
    leader, was = after[after.chosen].iloc[0], before[before.chosen].iloc[0]
    assert leader.validation_score > was.validation_score and leader.epochs > was.epochs == 1
    model = json.loads((out / "chosen" / "config.json").read_text())
    assert model["candidate"]["description"] == leader.candidate
    again = run("search.run", "--resume", "--out", out)
    assert again.returncode == OK, again.stderr
    assert pandas.read_csv(out / "trials.csv").validation_score.tolist() == after.validation_score.tolist()
