"""The comparison with a script: what is read of both contestants, and how their choices are timed."""

from __future__ import annotations

import json
import math
import sys

import pandas
import pytest

from benchmarks.opponent import __main__ as command
from benchmarks.opponent import contest
from evaluators.timing.reference_model import reference_model
from spaces.space import load

SCRIPT = """
import json, shutil, sys
from pathlib import Path
data, weights, budget, seconds, out, seed = sys.argv[1:]
Path(out).mkdir(parents=True, exist_ok=True)
print("timed 4 within", budget)
rows = [("a", 80, "fp32", 0.5, 0.4, 10), ("b", 96, "int8", 0.75, 0.7, 20), ("c", 64, "fp32", 0.6, 0.9, 30)]
for net, px, kind, val, test, at in rows:
    suffix = "-int8" if kind == "int8" else ""
    shutil.copy(Path(data) / "model.onnx", Path(out) / f"{net}-{px}{suffix}.onnx")
    print(json.dumps(dict(net=net, px=px, kind=kind, val=val, test=test, at=at)))
"""


@pytest.fixture
def task(tmp_path):
    data = tmp_path / "pictures"
    data.mkdir()
    (data / "model.onnx").write_bytes(reference_model())
    (tmp_path / "script.py").write_text(SCRIPT)
    return contest.Task(data=data, weights=tmp_path, budget_ms=1.5, minutes=0.5, seed=3)


def test_script_choice_is_the_best_on_validation_with_its_course(task, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    found = contest.script(task, tmp_path / "script.py", out)
    assert (found.name, found.validation, found.test) == ("b 96px int8", 0.75, 0.7)
    assert found.model == out / "b-96-int8.onnx" and found.model.exists()
    assert found.course == ((10, 0.5), (20, 0.75)) and found.first_s == 10


def test_script_that_prints_nothing_has_no_choice(task, tmp_path):
    (tmp_path / "script.py").write_text("print('CHOICE null')")
    found = contest.script(task, tmp_path / "script.py", tmp_path)
    assert found.model is None and math.isnan(found.validation) and found.course == ()


def test_script_that_fails_is_told_with_its_last_lines(task, tmp_path):
    (tmp_path / "script.py").write_text("raise SystemExit('no such folder')")
    with pytest.raises(RuntimeError, match="no such folder"):
        contest.script(task, tmp_path / "script.py", tmp_path)


def test_search_reads_choice_and_course_of_a_run(task, tmp_path, monkeypatch):
    space = load("light")
    candidates = [space.candidate(point) for point in list(space.params())[:3]]
    names, keys = [c.describe() for c in candidates], [c.key() for c in candidates]

    def run(command, **_):
        assert command[:3] == [sys.executable, "-m", "search.run"] and "30s" in command and "3" in command
        folder = tmp_path / "run"
        (folder / "chosen").mkdir(parents=True)
        about = {"candidate": names, "chosen": [False, True, False], "keeps_budget": [True, True, False]}
        scores = {"validation_score": [0.6, 0.8, 0.9], "test_score": [0.5, 0.7, 0.9]}
        pandas.DataFrame(about | scores).to_csv(folder / "trials.csv", index=False)
        (folder / "chosen" / "config.json").write_text(json.dumps({"candidate": {"description": names[1]}}))
        entries = [("latency", keys[0], {}, 4)]
        entries += [
            ("accuracy", f"{key}@3", {"top1": top1}, at)
            for key, top1, at in zip(keys, (0.6, 0.8, 0.9), (11, 21, 15), strict=True)
        ]
        lines = [json.dumps({"stage": s, "key": k, "value": v, "at_s": at}) for s, k, v, at in entries]
        (folder / "ledger.jsonl").write_text("\n".join(lines))
        return contest.subprocess.CompletedProcess(command, 0, "done", "")

    monkeypatch.setattr(contest.subprocess, "run", run)
    found = contest.search(task, "light", tmp_path)
    assert (found.name, found.validation, found.test) == (names[1], 0.8, 0.7)
    assert found.course == ((11, 0.6), (21, 0.8)) and found.model == tmp_path / "run" / "chosen" / "model.onnx"


def test_p95_ms_of_the_same_model_twice_is_about_the_same(task):
    model = task.data / "model.onnx"
    first, second = contest.p95_ms({"first": model, "second": model}, rounds=60).values()
    assert 0 < first < 3 * second and second < 3 * first


def test_main_skips_tasks_that_are_in_the_results(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(command, "contest", lambda task, **_: done.append(task.name()) or [_row(task)])
    words = ["opponent", "--sets", "a", "b", "--budgets", "1", "--minutes", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert command.main() == 0 and done == ["a-1ms-2m-0", "b-1ms-2m-0"]
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "0", "1"])
    assert command.main() == 0 and done[2:] == ["a-1ms-2m-1", "b-1ms-2m-1"]
    assert "edgefront" in capsys.readouterr().out


def _row(task):
    about = {"set": task.data.name, "budget_ms": task.budget_ms, "minutes": task.minutes, "seed": task.seed}
    return about | {"who": "edgefront", "validation": 0.5, "course": ""}
