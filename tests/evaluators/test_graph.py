"""From a trained network to its graph: what it took is told, and whether it is still the one that was timed."""

import json
from dataclasses import replace

import onnx
import pytest

from evaluators.ceiling import Unsupported
from evaluators.data import TRAIN, Split, open_dataset
from evaluators.graph import make_graph
from evaluators.jobs import CandidateJob, GraphJob, Ladder, ParentJob, Recipe, beside, graph_from_json
from evaluators.structure import measure
from evaluators.training import start_candidate, train_parent
from remote.device import Int8Recipe
from spaces.candidate import Candidate

CANDIDATE = Candidate("tiny_mobile", "mb_w8", 24)
RECIPE = Recipe(parent_epochs=1, threads=1, epoch_images=300)
OFFSET, SYMMETRIC = Int8Recipe("uint8", False, 7), Int8Recipe("int8", True, 8)


@pytest.fixture(scope="module")
def digits():
    whole = open_dataset(None, 0)
    train = whole.splits[TRAIN]
    some = Split(train.sources[::7], train.labels[::7])
    return replace(whole, splits=whole.splits | {TRAIN: some}, digest=whole.digest + "-few")


@pytest.fixture(scope="module")
def net(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    common = {"family": CANDIDATE.family, "variant": CANDIDATE.variant, "image_px": CANDIDATE.image_px}
    parent = train_parent(ParentJob(digits, folder, **common, recipe=RECIPE, out=folder / "parent.pt"))
    job = CandidateJob(digits, folder, **common, steps=(), recipe=RECIPE, parent=parent.path, out=folder / "net.pt")
    return start_candidate(job).path


def job(digits, net, folder, precision, int8=OFFSET, ladder=None, runtimes=("onnxruntime",)):
    candidate = replace(CANDIDATE, precision=precision)
    timed = measure(candidate, len(digits.classes), int8, folder, 13, 0)[1]
    return GraphJob(
        candidate=candidate,
        dataset=digits,
        cache=net.parent,
        net=net,
        plain=folder / "plain.onnx",
        out=folder / "graph.onnx",
        timed=timed,
        int8=int8,
        opset=13,
        runtimes=runtimes,
        calibration_images=32,
        ladder=ladder or Ladder(images=100),
        recipe=RECIPE,
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_trained_graph_is_laid_out_as_the_random_one_that_was_timed(precision, digits, net, tmp_path):
    made = make_graph(job(digits, net, tmp_path, precision, ladder=Ladder(allowed_drop=0.99)))
    assert made.path == tmp_path / "graph.onnx" and not made.relaid
    assert bool(made.rungs) == (precision == "int8")
    onnx.checker.check_model(onnx.load(made.path), full_check=True)


@pytest.mark.parametrize("int8", [OFFSET, SYMMETRIC], ids=["offset", "symmetric"])
def test_what_int8_took_lies_beside_it(int8, digits, net, tmp_path):
    ladder = Ladder(allowed_drop=0.99, methods=("min-max", "entropy"), images=100)
    made = make_graph(job(digits, net, tmp_path, "int8", int8, ladder))
    told = json.loads(beside(made.path).read_text())
    assert [rung["name"] for rung in told["rungs"]][:2] == ["fp32", "int8 min-max"]
    assert all(0 <= rung["top1"] <= 1 and rung["seconds"] >= 0 for rung in told["rungs"])
    assert graph_from_json(made.path) == made
    assert not list(tmp_path.glob("*.part"))


def test_a_graph_that_is_not_the_timed_one_says_so(digits, net, tmp_path):
    asked = job(digits, net, tmp_path, "int8", ladder=Ladder(allowed_drop=0.99))
    assert make_graph(replace(asked, timed=asked.plain)).relaid


def test_a_trained_network_that_cannot_be_folded_says_so(monkeypatch, digits, net, tmp_path):
    monkeypatch.setattr("evaluators.graph.deployed", lambda net, px, is_cut: (net, "its branches can't be folded: why"))
    made = make_graph(job(digits, net, tmp_path, "fp32"))
    assert made.unfolded == "its branches can't be folded: why" and graph_from_json(made.path) == made


def test_a_graph_above_the_ceiling_is_not_written(digits, net, tmp_path):
    with pytest.raises(Unsupported, match="around 0 only"):
        make_graph(job(digits, net, tmp_path, "int8", OFFSET, Ladder(allowed_drop=0.99), ("tensorrt",)))
    assert not (tmp_path / "graph.onnx").exists()
