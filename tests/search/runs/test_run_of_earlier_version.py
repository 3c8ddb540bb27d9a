"""A run folder that an earlier version left is resumed: nothing is measured again, and the front is the same.

`fixtures/run_of_6d6af9d` was made by commit 6d6af9d, before modules and classes were renamed, with

    python -m search.run --budget-ms 50 --device sim:orin,seed=0 --space small.toml --trials 6 --rungs 0,1 \
        --parent-epochs 2 --probe-share 0 --out run --cache cache

Of its run folder it has the settings, ledger, journal and tables, and of the models the chosen one alone. The cache is
missing, so a key that changed would show as a training.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

ROOT = Path(__file__).parents[3]
FIXTURE = Path(__file__).parent / "fixtures" / "run_of_6d6af9d"
ADDED = {"data", "device", "runtimes", "recipe", "weights"}  # which that version did not record


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    place = tmp_path_factory.mktemp("old") / "place"
    shutil.copytree(FIXTURE, place)
    command = [sys.executable, "-m", "search.run", "--resume", "--out", "run", "--cache", "cache"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


@pytest.mark.parametrize("name", ["front", "trials"])
def test_resumed_run_of_an_earlier_version_reports_the_same_values(resumed, name):
    place, _ = resumed
    old, new = (pandas.read_csv(folder / "run" / f"{name}.csv") for folder in (FIXTURE, place))
    assert len(old.columns) > 50 and set(old.columns) <= set(new.columns)
    names = [f"{before} {runtime}" for before, runtime in zip(old.candidate, old.runtime, strict=True)]
    assert list(new.candidate) == names  # today the runtime stands in the name
    pandas.testing.assert_frame_equal(new[old.columns].drop(columns="candidate"), old.drop(columns="candidate"))


def test_resumed_run_of_an_earlier_version_measures_nothing_again(resumed):
    place, said = resumed
    old, new = ((folder / "run" / "ledger.jsonl").read_text().splitlines() for folder in (FIXTURE, place))
    assert new[: len(old)] == old
    added = [json.loads(line) for line in new[len(old) :]]
    assert {(entry["stage"], entry["key"]) for entry in added} == {("state", key) for key in ADDED}
    assert not any((place / "cache" / "parents").iterdir()) and not any((place / "run" / "nets").iterdir())
    assert "resuming: 6 trials" in said and "training" not in said.partition("trials  6 kept")[0]


def test_resumed_run_of_an_earlier_version_deploys_the_same_model(resumed):
    place, _ = resumed
    [graph] = (FIXTURE / "run" / "graphs").glob("*.onnx")
    assert (place / "run" / "chosen" / "model.onnx").read_bytes() == graph.read_bytes()
