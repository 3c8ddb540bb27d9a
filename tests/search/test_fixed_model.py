"""`--model` as a user types it: a fixed candidate among the others, chosen, and whole in chosen/."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pandas
import pytest
from onnx import numpy_helper
from PIL import Image

from evaluators.data.loading import arrays, open_dataset
from evaluators.data.preprocessing import load_image, normalise
from evaluators.measurement import Outcome
from remote.exit_codes import OK, USER
from search.budget import Budget
from search.pipeline.stages import StageLimits, evaluate, promising
from search.run import main
from spaces.candidate import Candidate
from spaces.space import SpaceError, add_models, load
from tests.evaluators.test_fixed_models import PX, net
from tests.search.analytic import Analytic

FAMILY = "/somewhere/net.onnx@0123456789ab"
FIXED = Candidate(family=FAMILY, variant="net", image_px=PX)


def test_add_models_adds_a_plain_candidate_at_every_precision():
    tiny = load("tiny")
    space = add_models(tiny, {FAMILY: PX})
    mine = [c for c in map(space.candidate, space.params()) if c.family == FAMILY]
    assert space.size() - tiny.size() == len(mine) == 3
    assert {(c.image_px, c.steps) for c in mine} == {(PX, ())} and FIXED in space.parents()
    assert FAMILY not in space.trained and all(space.candidate(space.params_of(c)) == c for c in mine)
    with pytest.raises(SpaceError, match="names res8_w8_s2 twice"):
        add_models(tiny, {"/x/res8_w8_s2.onnx@0": PX})


def test_a_space_names_models_beside_it(tmp_path):
    text = "models = ['net.onnx']\n[axes]\nimage_px = [16]\n"
    (tmp_path / "s.toml").write_text(text)
    assert load(str(tmp_path / "s.toml")).models == (str(tmp_path / "net.onnx"),)
    (tmp_path / "s.toml").write_text(text.replace("['net.onnx']", "'net.onnx'"))
    with pytest.raises(SpaceError, match=r"models = 'net.onnx' must be a list of files"):
        load(str(tmp_path / "s.toml"))


def test_evaluate_scores_a_fixed_candidate_once_and_holds_it_against_nobody():
    gates, evaluator = StageLimits(budget=Budget(latency_ms=1000.0), rungs=(1, 3)), Analytic()
    fixed = replace(FIXED, variant="res8_w8_s2")
    measured = evaluate(fixed, evaluator, gates, [], lambda line: None)
    assert measured.outcome == Outcome.KEPT and [a.epochs for a in measured.accuracies] == [0]
    trained = evaluate(
        Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=32),
        evaluator,
        gates,
        [measured],
        lambda line: None,
    )
    assert trained.outcome == Outcome.KEPT
    worse = replace(trained.accuracies[0], top1=0.0, correct=0, epochs=1)
    assert promising(worse, trained.latency, gates, [measured]) == ""


@pytest.mark.slow
def test_a_search_with_ones_own_model_chooses_it_and_hands_it_over(tmp_path, monkeypatch, capsys):
    """Beside networks of one epoch, what knows the digits is the most accurate."""
    path = net(tmp_path / "net.onnx", batch="n")
    fitted(path, tmp_path)
    (tmp_path / "s.toml").write_text("[variants]\ntiny_resnet = ['res8_w4_s2']\n[axes]\nimage_px = [16]\n")
    monkeypatch.chdir(tmp_path)
    words = ["--budget-ms", "50", "--model", "net.onnx", "--space", "s.toml", "--device", "sim:nano", "--rungs", "0"]
    assert main([*words, "--parent-epochs", "1", "--trials", "2", "--out", "run", "--cache", "cache"]) == OK
    capsys.readouterr()
    trials = pandas.read_csv(tmp_path / "run" / "trials.csv")
    mine = trials[trials.variant == "net"]
    assert "net 16px fixed fp32 tensorrt" in set(mine.candidate) and (mine.epochs.dropna() == 0).all()
    assert mine.exporter.eq("given").all() and mine.validation_top1.max() == trials.validation_top1.max()
    chosen = tmp_path / "run" / "chosen"
    config = json.loads((chosen / "config.json").read_text())
    assert config["candidate"]["variant"] == "net" and config["candidate"]["family"].startswith("net@")
    told = json.loads(path.with_suffix(".json").read_text())["preprocessing"]
    assert {name: config["preprocessing"][name] for name in told} == told
    assert config["provenance"]["model net"].startswith("fixed, given by the user: ")
    assert "fixed, given by the user" in (tmp_path / "run" / "report.html").read_text()
    assert not list((tmp_path / "run" / "nets").glob(f"{Candidate.from_dict(candidate_of(tmp_path)).structure_key()}*"))

    Image.fromarray(np.arange(48 * 24, dtype=np.uint8).reshape(48, 24)).save(tmp_path / "image.png")
    shown = subprocess.run([sys.executable, chosen / "predict.py", "image.png"], capture_output=True, text=True)
    session = onnxruntime.InferenceSession(path)
    x = (load_image(tmp_path / "image.png", PX, "pad").astype(np.float32) / 255 - 0.5) / np.float32(0.25)
    p = session.run(None, {"logits": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    name, probability = shown.stdout.split()
    assert int(name) == p.argmax() and float(probability) == pytest.approx(p.max(), abs=0.02)

    path.with_suffix(".json").write_text(path.with_suffix(".json").read_text().replace("pad", "crop"))
    assert main(["--resume", "--out", "run"]) == USER
    err = capsys.readouterr().err
    assert "the model file or its preprocessing changed, net was" in err and err.count("\n") == 1


def candidate_of(folder):
    lines = (folder / "run" / "study.journal").read_text().splitlines()
    told = [json.loads(line).get("user_attr", {}).get("candidate") for line in lines]
    return next(one for one in told if one and one["variant"] == "net")


def fitted(path, folder):
    """The model with a matrix that knows the digits, by least squares."""
    digits = replace(open_dataset(None, 0), resize="pad")
    images, labels = arrays(digits, "train", PX, folder / "images")
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = normalise(images, (0.5,) * 3, (0.25,) * 3)
    features = session.run(["f"], {"logits": x})[0]
    wanted = 8 * np.eye(10)[labels]
    ridge = features.T @ features + 100 * np.eye(features.shape[1])
    matrix = np.linalg.solve(ridge, features.T @ wanted).astype(np.float32)
    del model.graph.output[-1]
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("traits", "says"),
    [({"classes": 7}, "returns float32 (1, 7) for one image"), (None, "no such file")],
    ids=["classes", "gone"],
)
def test_a_model_that_cannot_be_used_is_one_line(tmp_path, capsys, traits, says):
    path = tmp_path / "net.onnx"
    if traits:
        net(path, **traits)
    assert (
        main(["--budget-ms", "5", "--model", str(path), "--out", str(tmp_path / "r"), "--device", "sim:nano"]) == USER
    )
    err = capsys.readouterr().err
    assert says in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "r").exists()
