"""From a trained network to its graph: what it took is told, and whether it is still the one that was timed."""

import json
from dataclasses import replace

import onnx
import pytest

from evaluators.data.dataset import TRAIN, Split
from evaluators.data.loading import open_dataset
from evaluators.export.operator_support import UnsupportedOperatorError
from evaluators.stages.structure import measure
from evaluators.stages.trained_graph import make_graph
from evaluators.training.jobs import (
    CandidateJob,
    GraphJob,
    LadderConfig,
    ParentJob,
    TrainingRecipe,
    beside,
    graph_from_json,
)
from evaluators.training.trainer import start_candidate, train_parent
from remote.device import Int8Recipe
from spaces.candidate import Candidate

CANDIDATE = Candidate(family="tiny_mobile", variant="mb_w8", image_px=24)
RECIPE = TrainingRecipe(parent_epochs=1, threads=1, epoch_images=300)
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
    parent = train_parent(ParentJob(dataset=digits, cache=folder, **common, recipe=RECIPE, out=folder / "parent.pt"))
    job = CandidateJob(
        dataset=digits, cache=folder, **common, steps=(), recipe=RECIPE, parent=parent.path, out=folder / "net.pt"
    )
    return start_candidate(job).path


def job(digits, net, folder, precision, int8=OFFSET, ladder=None, runtimes=("onnxruntime",)):
    candidate = replace(CANDIDATE, precision=precision)
    timed = measure(candidate, len(digits.classes), int8=int8, folder=folder, opset_max=13, seed=0)[1]
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
        ladder=ladder or LadderConfig(images=100),
        recipe=RECIPE,
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_trained_graph_is_laid_out_as_the_random_one_that_was_timed(precision, digits, net, tmp_path):
    made = make_graph(job(digits, net, tmp_path, precision, ladder=LadderConfig(allowed_drop=0.99)))
    assert made.path == tmp_path / "graph.onnx" and not made.relaid
    assert bool(made.rungs) == (precision == "int8")
    onnx.checker.check_model(onnx.load(made.path), full_check=True)


@pytest.mark.parametrize("int8", [OFFSET, SYMMETRIC], ids=["offset", "symmetric"])
def test_what_int8_took_lies_beside_it(int8, digits, net, tmp_path):
    ladder = LadderConfig(allowed_drop=0.99, methods=("min-max", "entropy"), images=100)
    made = make_graph(job(digits, net, folder=tmp_path, precision="int8", int8=int8, ladder=ladder))
    told = json.loads(beside(made.path).read_text())
    assert [rung["name"] for rung in told["rungs"]][:2] == ["fp32", "int8 min-max"]
    assert all(0 <= rung["top1"] <= 1 and rung["seconds"] >= 0 for rung in told["rungs"])
    assert graph_from_json(made.path) == made
    assert not list(tmp_path.glob("*.part"))


def test_a_graph_that_is_not_the_timed_one_says_so(digits, net, tmp_path):
    asked = job(digits, net, tmp_path, "int8", ladder=LadderConfig(allowed_drop=0.99))
    assert make_graph(replace(asked, timed=asked.plain)).relaid


def test_a_trained_network_that_cannot_be_folded_says_so(monkeypatch, digits, net, tmp_path):
    monkeypatch.setattr(
        "evaluators.stages.trained_graph.fold_for_export",
        lambda net, px, is_cut: (net, "its branches can't be folded: why"),
    )
    made = make_graph(job(digits, net, tmp_path, "fp32"))
    assert made.unfolded == "its branches can't be folded: why" and graph_from_json(made.path) == made


def test_a_graph_above_the_ceiling_is_not_written(digits, net, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match="around 0 only"):
        make_graph(
            job(
                digits,
                net,
                folder=tmp_path,
                precision="int8",
                int8=OFFSET,
                ladder=LadderConfig(allowed_drop=0.99),
                runtimes=("tensorrt",),
            )
        )
    assert not (tmp_path / "graph.onnx").exists()
