"""Starting from an earlier run: what is read, what is refused, and that it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from remote.exit_codes import OK, USER
from search.budget import Budget
from search.run import main
from search.runs.warm_start import read_earlier
from search.settings import SettingsError
from spaces.space import load
from tests.search.analytic import Analytic
from tests.search.runs.test_table_run import command
from tests.search.samplers.test_budget import go
from tests.spaces.test_table_space import small

__all__ = ["small"]  # a fixture
SPACE = load("tiny")


def test_latencies_and_full_accuracies_come_along_whatever_the_runtime(tmp_path):
    evaluator = Analytic()
    found = go(tmp_path, evaluator, SPACE, Budget(latency_ms=1.5), 20)
    elsewhere = replace(SPACE, axes={**SPACE.axes, "runtime": ("openvino",)})
    earlier = read_earlier(tmp_path, elsewhere)
    timed = {key for stage, key in evaluator.calls if stage == "latency"}
    assert numpy.isfinite(earlier.latency_ms).sum() == len(timed)
    full = [m.accuracies[-1].top1 for m in found if m.accuracies and m.accuracies[-1].epochs == 3]
    assert sorted(earlier.accuracy[numpy.isfinite(earlier.accuracy)]) == sorted(full), "no other fidelity"


def test_a_torn_last_line_is_left_out(tmp_path):
    go(tmp_path, Analytic(), SPACE, Budget(latency_ms=1.5), 9)
    before = read_earlier(tmp_path, SPACE)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"stage": "latency", "ke')
    assert numpy.array_equal(read_earlier(tmp_path, SPACE).latency_ms, before.latency_ms, equal_nan=True)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"stage": "late',
        b"\0" * 40,
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"stage": "latency", "key": "k", "value": {}}',
        b"[" * 9999,
    ],
    ids=["cut", "zeros", "bytes", "list", "number", "fields", "nested"],
)
def test_read_earlier_of_a_damaged_middle_uses_what_follows(tmp_path, damage):
    go(tmp_path, Analytic(), SPACE, Budget(latency_ms=1.5), 9)
    said, file = [], tmp_path / "ledger.jsonl"
    before, lines = read_earlier(tmp_path, SPACE, tell=said.append), file.read_bytes().split(b"\n")
    assert said == []
    file.write_bytes(b"\n".join([lines[0], damage, *lines[1:3], damage, *lines[3:]]))
    after = read_earlier(tmp_path, SPACE, tell=said.append)
    assert numpy.array_equal(after.latency_ms, before.latency_ms, equal_nan=True)
    assert numpy.array_equal(after.accuracy, before.accuracy, equal_nan=True)
    assert said == [f"--warm-start {tmp_path}: 2 damaged lines of ledger.jsonl left out"]


def test_no_run_and_no_candidate_in_common(tmp_path):
    with pytest.raises(SettingsError, match="is no run folder"):
        read_earlier(tmp_path / "moon", SPACE)
    go(tmp_path, Analytic(), SPACE, Budget(latency_ms=1.5), 9)
    with pytest.raises(SettingsError, match="measured no candidate of light"):
        read_earlier(tmp_path, load("light"))


def test_a_run_that_starts_from_another(small, capsys):
    assert main(command(small, "--budget-ms", "2", "--trials", "3")) == OK
    again = [word if word != str(small / "run") else str(small / "next") for word in command(small, "--budget-ms", "2")]
    assert main([*again, "--warm-start", str(small / "run")]) == USER
    assert "needs sampler budget" in capsys.readouterr().err and not (small / "next").exists()
    again[again.index("random")] = "budget"
    whole = (small / "run" / "ledger.jsonl").read_bytes()
    (small / "run" / "ledger.jsonl").write_bytes(b"not JSON\n" + whole)
    assert main([*again, "--warm-start", str(small / "run"), "--trials", "3"]) == OK
    assert "1 damaged line of ledger.jsonl left out" in " ".join(capsys.readouterr().out.split())
