"""The comparison with peers: what is chosen, what the table says, and that a contest meets all models alike."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers import environment
from benchmarks.peers.__main__ import chosen, table
from benchmarks.peers.ours import Entry
from evaluators.export import export
from evaluators.structure import random_net
from spaces.candidate import Candidate

LABELS = np.zeros(400, dtype=int)


def told(**models):
    """Of each model, how many of the images it has wrong, the first ones, and its milliseconds."""
    answers = {name: (np.arange(400) < wrong).astype(int) for name, (wrong, _) in models.items()}
    noise = np.random.default_rng(0).uniform(0.99, 1.01, 100)
    return {"answers": answers, "ms": {name: ms * noise for name, (_, ms) in models.items()}}


def entry(name):
    return Entry(name, "onnxruntime", Path(name), 224)


def test_the_fastest_that_loses_little_is_chosen():
    seen = told(fp32=(80, 10.0), small=(84, 5.0), smaller=(100, 3.0), slow=(80, 20.0))
    ours = [entry(name) for name in seen["ms"]]
    assert chosen(seen, LABELS, ours[0], ours).name == "small", "20 more of 400 are too many"
    assert chosen(seen, LABELS, ours[0], [ours[0], ours[2], ours[3]]).name == "fp32"


def test_the_table_tells_difference_and_ratio():
    seen = told(mine=(80, 5.0), theirs=(88, 10.0))
    head, _, mine, theirs = table(seen, LABELS, [entry("mine"), entry("theirs")], entry("mine"))
    assert head.count("|") == mine.count("|") == theirs.count("|")
    cells = [cell.strip() for cell in theirs.split("|")[1:-1]]
    assert cells[0] == "theirs" and cells[1].startswith("78.0 ± 2.")
    assert cells[2].startswith("+2.0 ± 0.") and cells[5] == "0.50 [0.50, 0.50]"
    assert [cell.strip() for cell in mine.split("|")[1:-1]][2::3] == ["", ""]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_contest_answers_and_times(tmp_path, runtime):
    """In this environment instead of the peers': the script asks for the two runtimes only."""
    pytest.importorskip(runtime)
    files = {}
    for px in (24, 32):
        torch.manual_seed(0)
        export(random_net(Candidate("tiny_resnet", "res8_w8_s2", px), 7), px, tmp_path / f"{px}.onnx")
        files[px] = np.random.default_rng(px).standard_normal((5, 3, px, px), dtype=np.float32)
        np.save(tmp_path / f"{px}.npy", files[px])
    models = [[f"at {px}", runtime, str(tmp_path / f"{px}.onnx"), str(tmp_path / f"{px}.npy")] for px in files]
    (tmp_path / "job.json").write_text(json.dumps({"models": models, "rounds": 6, "seed": 0}))
    environment.run(
        Path(sys.executable), "contest.py", tmp_path / "job.json", tmp_path / "out.json", log=tmp_path / "log"
    )
    out = json.loads((tmp_path / "out.json").read_text())
    assert all(len(ms) == 6 and min(ms) > 0 for ms in out["ms"].values()) and set(out["ms"]) == {"at 24", "at 32"}
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "32.onnx", providers=["CPUExecutionProvider"])
    assert out["answers"]["at 32"] == [int(session.run(None, {"image": x[None]})[0].argmax()) for x in files[32]]


def test_a_script_that_fails_ends_the_benchmark_with_what_it_said(tmp_path):
    with pytest.raises(SystemExit, match=r"contest\.py failed with 1; it said"):
        environment.run(Path(sys.executable), "contest.py", tmp_path / "none.json", log=tmp_path / "log")


@pytest.mark.slow
def test_the_environment_is_made_once_and_again_when_requirements_change(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    environment.REQUIREMENTS.write_text("# nothing")
    interpreter = environment.python(tmp_path / "made")
    (tmp_path / "made" / "seen").touch()
    assert environment.python(tmp_path / "made") == interpreter and (tmp_path / "made" / "seen").exists()
    environment.REQUIREMENTS.write_text("# nothing else")
    environment.python(tmp_path / "made")
    assert not (tmp_path / "made" / "seen").exists()
