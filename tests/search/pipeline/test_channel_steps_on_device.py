"""On this machine: networks that show its steps are timed once, and what brought nothing is dropped before training."""

from __future__ import annotations

import json

import pandas
import pytest
from rich.console import Console

from search.run import search
from search.settings import Settings

pytestmark = pytest.mark.alone

SPACE = """
title = "one network, cut so that it is faster, and taken apart so that it is slower"
[variants]
tiny_resnet = ["res8_w8_s2"]
[axes]
image_px = [16]
prune = [0.0, 0.5]
lowrank = [0.0, 0.25]
"""


def go(folder, run, trials):
    (folder / "space.toml").write_text(SPACE)
    settings = Settings(
        budget_ms=50.0,
        space=str(folder / "space.toml"),
        trials=trials,
        time_limit_s=900.0,  # a share of it is what probing may take, however busy the machine
        rungs=(0,),
        parent_epochs=1,
        probe_share=1.0,
        out=str(folder / run),
        cache=str(folder / "cache"),
    )
    with (folder / f"{run}.log").open("w") as log:
        search(settings, Console(file=log, width=200))
    entries = [json.loads(line) for line in (folder / run / "ledger.jsonl").read_text().splitlines()]
    known = next(entry["value"] for entry in entries if entry["stage"] == "steps" and entry["key"])
    return (folder / f"{run}.log").read_text(), known, pandas.read_csv(folder / run / "trials.csv")


@pytest.mark.slow
def test_steps_are_probed_once_and_idle_cuts_dropped(tmp_path):
    told, known, trials = go(tmp_path, "first", trials=4)
    assert "latency steps of res8_w8_s2 fp32: network 8 of 8" in told
    assert [rung["channels"] for rung in known["rungs"]] == [2, 4, 6, 8, 10, 12, 14, 16] and known["seconds"] > 0
    report = (tmp_path / "first" / "report.html").read_text()
    assert "channels of res8_w8_s2 fp32 onnxruntime" in report
    # three kernels in a row for one: fewer multiply-accumulates, and no faster
    dropped = trials[trials.outcome == "no gain"]
    assert len(dropped) >= 1 and dropped.reason.str.contains("faster than the").all()
    assert dropped.validation_top1.isna().all() and all(reason[:60] in report for reason in dropped.reason)

    again_told, again, _ = go(tmp_path, "second", trials=2)
    kept = not any(rung["disturbed"] for rung in known["rungs"])
    assert ("latency steps of" not in again_told) == kept
    assert (again["seconds"] == 0.0 and again["rungs"] == known["rungs"]) == kept
