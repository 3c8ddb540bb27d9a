"""What a board over ssh costs beside the timing itself, by the benchmark that says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
SLACK = 10.0  # for a machine that others keep busy: only what is out of all proportion is wrong


@pytest.mark.slow
def test_overhead_keeps_its_targets(rig):
    command = [sys.executable, "benchmarks/overhead.py", "--device", "board", "--times", "5", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(done.stdout)
    rows = {row["what"].strip(): row for row in figures["rows"]}
    assert set(rows["its round trips"]["values"]) == {1.0}, "a blob sent before costs one round trip"
    assert set(rows["and once more in the same session"]["values"]) == {0.0}
    assert rows["overhead of a trial"]["median"] > 0, "what is subtracted lies within what was measured"
    assert rows["ping"]["median"] < rows["put 1 MiB sent in an earlier session"]["median"]
    aimed = {row["what"]: row for row in figures["rows"] if row["target"]}
    assert aimed.keys() >= {"connect, once a search", "overhead of a trial"}
    for what, row in aimed.items():
        assert row["median"] <= row["target"] * (1.0 if figures["calm"] else SLACK), (what, row, figures["calm"])
    print(f"\ncalm: {figures['calm']}", {what: round(row["median"], 3) for what, row in rows.items()})


@pytest.mark.slow
def test_steadiness_tells_what_it_saw(rig):
    command = [sys.executable, "benchmarks/steadiness.py", "--device", "board", "--times", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    figures = json.loads(done.stdout)
    assert figures["times"] == 2 == len(figures["median_ms"]) and min(figures["median_ms"]) > 0
    said = bool(figures["disturbed"] or figures["restless"])
    assert figures["kept"] == (figures["median_spread"] <= 0.03)
    assert done.returncode == (0 if figures["kept"] or said else 1), (figures, done.stderr)
