"""The comparison with peers: what is chosen, what the table says, and that a contest meets all models alike."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from benchmarks.compression.__main__ import main as compression
from benchmarks.compression.bench import bench
from benchmarks.peers import environment
from benchmarks.peers.__main__ import Told, chosen, contest, table
from benchmarks.peers.ours import RUNTIMES, Entry, entries, parents
from evaluators.data.dataset import VALIDATION
from evaluators.export.onnx_export import export
from evaluators.stages.structure import random_net
from spaces.candidate import Candidate

COUNT = 400


def told(**models):
    """Of each model, how many of the images it has wrong, the first ones, and its milliseconds."""
    right = {name: np.arange(COUNT) >= wrong for name, (wrong, _) in models.items()}
    draw = np.random.default_rng(0)
    return Told(right, {name: ms * draw.uniform(0.99, 1.01, 100) for name, (_, ms) in models.items()})


def entry(name):
    return Entry(name, "onnxruntime", Path(name), 224)


def test_the_most_accurate_that_is_faster_is_chosen():
    seen = told(fp32=(70, 10.0), size=(84, 5.0), same=(84, 4.5), small=(100, 3.0), peer=(90, 6.0), quick=(200, 1.0))
    ours = [entry(name) for name in ("fp32", "size", "same", "small")]
    assert chosen([seen], entry("peer"), ours) == entry("same"), "as many right as another, and faster"
    assert chosen([seen], entry("fp32"), ours) == entry("same"), "not itself, which is no faster"
    assert chosen([seen], entry("quick"), ours) is None
    again = told(size=(84, 5.0), peer=(84, 5.0))
    assert chosen([again], entry("peer"), [entry("size")]) is None, "what noise alone tells apart is not faster"
    elsewhere = told(fp32=(10, 1.0), size=(30, 1.0), same=(30, 1.0), small=(10, 9.0), peer=(20, 1.0))
    assert chosen([seen, elsewhere], entry("peer"), ours) == entry("small"), "both splits, but the first's times"


def test_the_table_tells_difference_and_ratio():
    seen = told(mine=(80, 5.0), theirs=(88, 10.0), best=(70, 1.0))
    head, _, theirs, best = table(seen, {entry("theirs"): entry("mine"), entry("best"): None})
    assert head.count("|") == theirs.count("|") == best.count("|")
    cells = [cell.strip() for cell in theirs.split("|")[1:-1]]
    assert cells[0] == "theirs" and cells[1].startswith("78.0 ± 2.") and cells[4] == "mine"
    assert cells[6].startswith("+2.0 ± 0.") and cells[8].startswith("0.50 [0.")
    assert "none of ours is faster" in best


@pytest.mark.slow
def test_what_compression_scored_is_what_enters(tmp_path):
    """Its small form, in every runtime, with the images of both splits; what a search would not offer stays out."""
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    made = ["--rows", "fp32", "fp16", "int8 PTQ", "int8 ladder"]
    assert compression(["--sets", "digits", "--only", "score", *folders, *made]) == 0
    with bench(tmp_path / "work", tmp_path, tmp_path) as opened:
        (parent,) = parents(opened, "digits")
        rows = parent.rows(tmp_path / "out" / "results.csv")
        assert [row.treatment.name for row in rows] == ["fp32", "int8 ladder"]
        found = entries(opened, parent, rows, tmp_path)
    assert [one.name for one in found] == [f"{how} 24px {r}" for how in ("fp32", "int8 ladder") for r in RUNTIMES]
    assert all(one.path.is_absolute() and one.path.exists() for one in found)
    images, labels = parent.pictures(VALIDATION, 24)
    assert np.array_equal(np.load(tmp_path / "validation_24.npy"), images) and len(images) == len(labels) > 100
    assert parent.calibration().shape == (64, 3, 24, 24)
    models = [one for one in found if one.runtime == "onnxruntime"]
    seen = contest(Path(sys.executable), models, split=VALIDATION, labels=labels, folder=tmp_path, rounds=4)
    scored = pandas.read_csv(tmp_path / "out" / "results.csv").set_index("how").validation
    for one in models:
        how = one.name.removesuffix(" 24px onnxruntime")
        assert abs(seen.right[one.name].mean() - scored[how]) < 0.01


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_contest_answers_and_times(tmp_path, runtime):
    """In this environment instead of the peers': the script asks for the two runtimes only."""
    pytest.importorskip(runtime)
    files = {}
    for px in (24, 32):
        torch.manual_seed(0)
        export(
            random_net(Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=px), 7),
            px,
            tmp_path / f"{px}.onnx",
        )
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
