"""What a user types to try it all out without a board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

ROOT = Path(__file__).parents[3]
SPACE = """
title = "two for a test"
[variants]
tiny_resnet = ["res8_w4_s2", "res8_w16_s2"]
[axes]
image_px = [16, 24]
prune = [0.0, 0.5]
precision = ["fp32", "fp16", "int8"]
"""


def search(folder: Path, device: str, *words: str) -> subprocess.CompletedProcess[str]:
    space = folder / "two.toml"
    space.write_text(SPACE)
    command = [sys.executable, "-m", "search.run", "--device", device, "--space", str(space), "--rungs", "0,1"]
    command += ["--parent-epochs", "1", "--out", str(folder / "run"), "--cache", str(folder / "cache"), *words]
    env = os.environ | {"COLUMNS": "200", "XDG_CACHE_HOME": str(folder / "home")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_whole_search_says_that_it_is_simulated(tmp_path):
    """Two faults among the six kinds, in calls that a search is made of."""
    done = search(tmp_path, "sim:nano,reboot=0.03,throttle=0.1", "--budget-ms", "2", "--trials", "3")
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "SIMULATED" in done.stdout and "none was measured" in done.stdout
    report = (tmp_path / "run" / "report.html").read_text()
    assert "SIMULATED Jetson Nano" in report and "none was measured" in report
    trials = pandas.read_csv(tmp_path / "run" / "trials.csv")
    assert len(trials) == 3 and trials.simulated.all() and set(trials.precision) <= {"fp32", "fp16"}
    assert set(trials.runtime) == {"tensorrt"} and set(trials.runtime_version) == {"8.2.1.8"}
    assert trials.validation_top1.max() > 0.2, "accuracy is real: chance is 0.1"
    told = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert {entry["value"]["kind"] for entry in told if entry["stage"] == "incident"} <= {"link", "rebooted"}


def test_a_board_that_is_not_simulated_is_named(tmp_path):
    done = search(tmp_path, "sim:moon", "--budget-ms", "2")
    assert done.returncode not in (0, 1) and "accepted: nano or jetson-nano" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
