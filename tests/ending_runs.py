"""Searches that are to be ended in every way: the smallest that trains for real, and what must hold of its folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pandas
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

ROOT = Path(__file__).parent.parent
SPACE = """
title = "two for a test"
[variants]
tiny_resnet = ["res8_w4_s2", "res8_w16_s2"]
[axes]
image_px = [16, 24]
prune = [0.0, 0.25]
precision = ["fp32", "int8"]
"""
# A simulated board answers at once; `local` times in earnest, beside whatever else runs.
DEVICE = os.environ.get("EDGEFRONT_ENDINGS_DEVICE", "sim:nano,seed=0")
TRIALS = 4
# What is measured once; latencies are looked at again on purpose.
ONCE = ("structure", "accuracy", "test", "coverage", "agreement")


def words(folder: Path, cache: Path) -> list[str]:
    """The command's arguments; the space lies beside the run folder."""
    space = folder.with_name("two.toml")
    space.write_text(SPACE)
    return [
        *("--budget-ms", "50", "--device", DEVICE, "--space", str(space), "--trials", str(TRIALS), "--rungs", "0,1"),
        *("--parent-epochs", "1", "--probe-share", "0", "--out", str(folder), "--cache", str(cache)),
    ]


def start(arguments: list[str], output: Path, **env: str) -> subprocess.Popen[bytes]:
    """The running command; what it says, on both streams, goes to a file."""
    command = [sys.executable, "-m", "search.run", *arguments]
    with output.open("wb") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | env, stdout=file, stderr=subprocess.STDOUT, preexec_fn=heed_signals
        )


def heed_signals() -> None:
    """A shell that starts the tests in the background makes its children ignore SIGINT; a terminal does not."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def wait_for_text(process: subprocess.Popen[bytes], output: Path, text: str, limit_s: float = 300.0) -> bool:
    """True when the output holds the text; False when the command ended without it."""
    end = time.monotonic() + limit_s
    while text not in output.read_text(errors="replace"):
        assert time.monotonic() < end, output.read_text(errors="replace")
        if process.poll() is not None:
            return text in output.read_text(errors="replace")
        time.sleep(0.02)
    return True


def worker_of(owner: int) -> int | None:
    """The worker process of a command; None while it has none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == str(owner):
                line = (stat.parent / "cmdline").read_bytes()
                if b"spawn_main" in line:
                    return int(stat.parent.name)
        except (OSError, IndexError):
            continue
    return None


def whole_lines(ledger: Path) -> bytes:
    """What of a ledger can't be lost any more."""
    data = ledger.read_bytes() if ledger.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def check_whole(folder: Path) -> None:
    """Everything in the folder of a search that ended belongs together, and nothing was measured for nothing."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert not [entry for entry in entries if '"type": "Failure"' in json.dumps(entry)]
    counts = Counter((entry["stage"], entry["key"]) for entry in entries if entry["stage"] in ONCE)
    assert [what for what, count in counts.items() if count > 1] == [], "something was measured twice"
    config = json.loads((folder / "chosen" / "config.json").read_text())
    assert sorted(file.name for file in (folder / "chosen").iterdir()) == ["config.json", "model.onnx", "predict.py"]
    model = hashlib.sha256((folder / "chosen" / "model.onnx").read_bytes()).hexdigest()
    assert config["sha256"]["model.onnx"] == model == config["measured"]["validation"]["model_sha256"]
    assert list(folder.glob(".chosen*")) == [] and list(folder.glob("**/.*.part")) == []
    journal = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    trials = optuna.load_study(study_name="edgefront", storage=journal).get_trials(deepcopy=False)
    best = max(trial.values[0] for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE)
    table = pandas.read_csv(folder / "trials.csv")
    chosen = table[table.chosen].iloc[0]
    assert len(table) == TRIALS and chosen.validation_top1 == best == config["measured"]["validation"]["top1"]
    assert chosen.trial == config["run"]["trial"]
    samples = pandas.read_json(folder / "samples.jsonl.gz", lines=True)
    whose = samples.candidate.str.partition(" ")
    assert set(whose[0]) > {"reference"} and whose[2].any(), "what every rank rests on is kept raw"
    assert (samples.runtime_mb > 9).all() and samples.wall_ms.str.len().all()
