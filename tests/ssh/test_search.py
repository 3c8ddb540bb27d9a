"""The whole search on a board over ssh: by a good line, a slow one, and ones that die under it."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import optuna
import pandas
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from remote.exit_codes import OK
from search.storage.ledger import Ledger
from tests.ssh.rig import Rig
from tests.ssh.root import root
from tests.ssh.saboteur import Saboteur, Strike
from tests.test_command import SPACE, run

TRIALS = 2
SETTINGS = """
budget_ms = 50.0
space = "{folder}/two.toml"
cache = "{folder}/cache"
trials = {trials}
sampler = "tpe"  # ours looks at some latencies again, on purpose
rungs = [0, 1]
parent_epochs = 1
probe_share = 0.0
"""
MBIT = 1e6 / 8


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """Settings of a search that is a test: two small networks, few epochs, parents trained once for all tests."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "two.toml").write_text(SPACE)
    (folder / "settings.toml").write_text(SETTINGS.format(folder=folder, trials=TRIALS))
    return folder / "settings.toml"


@pytest.fixture(autouse=True)
def forgotten(rig: Rig) -> None:
    """The board has nothing of an earlier test: all is sent again."""
    root("rm", "-rf", rig.home / ".cache" / "edgefront")


def searched(name: str, config: Path, out: Path) -> str:
    """Return what a search on the device printed, which found a choice."""
    code, said, err = run("--device", name, "--config", config, "--out", out)
    assert code == OK, said + err
    return " ".join(said.split())  # lines are broken to the terminal's width


def check_books(folder: Path) -> dict[str, int]:
    """No trial is lost, none counted twice, no block either; how often which operation was interrupted."""
    ledger = Ledger(folder / "ledger.jsonl")
    entries = list(ledger.entries())
    ledger.close()
    # an entry that took no time was not measured: a session's end, a device that is faster or slower for good
    once = Counter((entry.stage, entry.key) for entry in entries if entry.spent_s or entry.stage == "incident")
    assert [key for key, times in once.items() if times > 1 and key[0] != "latency"] == [], "measured twice"
    assert max(times for key, times in once.items() if key[0] == "latency") <= 3, (
        "but leaders, whose timings may differ"
    )
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    asked = optuna.load_study(study_name="edgefront", storage=storage).get_trials()
    done = [trial for trial in asked if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(done) == TRIALS, "every trial is told once"
    assert all(trial.user_attrs.get("repeat") for trial in asked if trial not in done), "and none is left open"
    table = pandas.read_csv(folder / "trials.csv")
    assert sorted(table.trial) == sorted(trial.number for trial in done)
    assert len(table.drop_duplicates(["variant", "image_px", "prune", "precision"])) == TRIALS
    assert set(table.outcome) <= {"kept", "no gain", "unpromising"}, "a broken line is no candidate's fault"
    timed = [entry.value for entry in entries if entry.stage in ("latency", "confirm")]
    with gzip.open(folder / "samples.jsonl.gz", "rt") as file:
        blocks = [json.loads(line) for line in file]
    blocks = [block for block in blocks if not str(block["candidate"]).startswith("reference")]  # the calibration's
    assert len(blocks) == sum(value["blocks"] + value["repeated"] for value in timed)
    return dict(Counter(entry.value["op"] for entry in entries if entry.stage == "incident"))


def told(folder: Path) -> dict[str, int]:
    """The failures survived, as the report tells them, but for timings that other load disturbed."""
    table = re.search(r'<table id="incidents">(.*?)</table>', (folder / "report.html").read_text(), re.S)
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table[1]) if table else []
    found = {what: int(times) for what, times in pairwise(cells) if times.isdigit()}
    return {what: times for what, times in found.items() if not what.startswith("disturbed")}


@pytest.mark.slow
def test_a_search_through_a_slow_line(rig, config, line, tmp_path):
    name, link = line(rtt_s=0.020, bytes_per_s=10 * MBIT)
    said = searched(name, config, tmp_path / "r")
    assert check_books(tmp_path / "r") == {} == told(tmp_path / "r")
    assert f"device {name}: " in said and "device: " not in said
    choice = json.loads((tmp_path / "r" / "chosen" / "config.json").read_text())
    assert choice["measured"] and (tmp_path / "r" / "chosen" / "model.onnx").stat().st_size > 0
    assert link.connections == 1 and link.up_bytes > 1_000_000
    assert not rig.processes(), "nothing stays on the board but its cache"


@pytest.mark.slow
def test_a_search_whose_uploads_are_cut(rig, config, line, tmp_path):
    """Every 400 kB, which is in the midst of a model or of the images, four times."""
    name, link = line(bytes_per_s=20 * MBIT)
    link.cut_every(400_000, times=4)
    said = searched(name, config, tmp_path / "r")
    interrupted = check_books(tmp_path / "r")
    assert link.cuts == 4 == sum(interrupted.values()), interrupted
    assert interrupted.keys() <= {"put", "predict"}, "a scoring begins with the upload of its images"
    assert told(tmp_path / "r") == {"connection lost": 4} and said.count("retried") == 4


@pytest.mark.slow
def test_a_search_whose_timings_are_cut(rig, config, line, tmp_path):
    """While the reference is timed, and while candidates are: as the process starts, twice in a row, in the midst of
    the timing, and once by a line that stays open but lets nothing through, which is given up after 20 s.
    """
    name, link = line()
    starting, midway = Strike(link.cut, loaded=False), Strike(link.cut, loaded=True)
    silenced = Strike(link.black_hole, loaded=True)
    plan = {2: midway, 7: starting, 8: starting, 10: silenced, 12: midway}
    with Saboteur(rig, plan) as saboteur:
        said = searched(name, config, tmp_path / "r")
    struck = Counter(struck.strike for struck in saboteur.done)
    assert struck == {starting: 2, midway: 2, silenced: 1}, "and each while it was so"
    assert link.cuts == 4 and link.connections == 6
    assert check_books(tmp_path / "r") == {"time": 5}
    assert said.count("retried") == 5
    told_of = told(tmp_path / "r")
    assert told_of.pop("silent for too long", 0) + told_of.pop("connection lost") == 5 and not told_of
