"""Quantization-aware fine-tuning: a trained network learns to live with ranges that cost it dearly."""

from dataclasses import replace

import numpy as np
import pytest

from evaluators.data.dataset import TRAIN, VALIDATION
from evaluators.data.loading import arrays, calibration_images, open_dataset
from evaluators.data.preprocessing import normalise
from evaluators.export.onnx_export import export
from evaluators.quantization.calibration import extremes
from evaluators.quantization.host_scoring import EvaluationSet
from evaluators.quantization.qat import tune
from evaluators.quantization.qdq import QuantizationPlan, initializers, list_quantized, prepare
from evaluators.training.batches import BatchSource
from evaluators.training.jobs import LadderConfig, ParentJob, TrainingFailedError, TrainingRecipe
from evaluators.training.trainer import train_parent
from spaces.network import build, normalisation
from tests.evaluators.quantization.nets import RECIPES, top1

FAMILY, VARIANT, PX = "tiny_resnet", "res8_w16_s2", 24
NORMALISATION = normalisation(FAMILY, VARIANT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The prepared graph of a network that knows digits, a feed, an exam and calibration images."""
    import torch

    folder = tmp_path_factory.mktemp("trained")
    digits, recipe = open_dataset(None, 0), TrainingRecipe(parent_epochs=3, threads=1)
    train_parent(
        ParentJob(
            dataset=digits,
            cache=folder,
            family=FAMILY,
            variant=VARIANT,
            image_px=PX,
            recipe=recipe,
            out=folder / "parent.pt",
        )
    )
    net = build(FAMILY, VARIANT, len(digits.classes), PX)
    net.load_state_dict(torch.load(folder / "parent.pt", weights_only=True)["state"])
    export(net, PX, folder / "fp32.onnx")
    images, labels = arrays(digits, TRAIN, PX, folder)
    shown, right = arrays(digits, VALIDATION, PX, folder)
    chosen = normalise(images[calibration_images(digits, 64, 0)], *NORMALISATION)
    feed = BatchSource(images, labels, NORMALISATION, recipe)
    return prepare(folder / "fp32.onnx"), feed, EvaluationSet(normalise(shown, *NORMALISATION), right), chosen


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_it_gives_back_what_narrow_ranges_cost(trained, recipe):
    plain, feed, exam, chosen = trained
    cut = {name: (low / 2.5, high / 2.5) for name, (low, high) in extremes(plain, chosen).items()}
    plan = QuantizationPlan(plain, recipe, cut)
    fp32, before = top1(exam, plain), top1(exam, plan.graph())
    after = top1(exam, tune(plan, plain, feed, LadderConfig(qat_epochs=2, qat_lr=1e-3)).graph())
    assert before < fp32 - 0.1 and after > before + 0.5 * (fp32 - before), (fp32, before, after)


def test_weights_and_ranges_change_and_operators_do_not(trained):
    plain, feed, _, chosen = trained
    plan = QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, chosen))
    after = tune(plan, plain, small(feed), LadderConfig(qat_epochs=1))
    assert [n.op_type for n in after.graph().graph.node] == [n.op_type for n in plan.graph().graph.node]
    before, now = initializers(plan.plain), initializers(after.plain)
    assert all(np.abs(now[name] - before[name]).max() > 0 for name in before if before[name].ndim == 4)
    cut = set(list_quantized(plan.graph())) & plan.ranges.keys()
    moved = {name for name in plan.ranges if after.ranges[name] != plan.ranges[name]}
    assert moved <= cut and len(moved) > 0.9 * len(cut)
    for name in moved:
        (low, high), (was_low, was_high) = after.ranges[name], plan.ranges[name]
        assert low <= 0 <= high and high - low == pytest.approx(was_high - was_low, rel=0.3)


def small(feed):
    few = replace(feed.recipe, epoch_images=64)
    return replace(feed, images=feed.images[:64], labels=feed.labels[:64], recipe=few)


def test_a_range_that_is_far_too_wide_is_brought_in(trained):
    """Weights alone can't mend it: half the steps of every activation stand for values that never come."""
    plain, feed, _, chosen = trained
    whole = extremes(plain, chosen)
    wide = {name: (3 * low, 3 * high) for name, (low, high) in whole.items()}
    after = tune(
        QuantizationPlan(plain, RECIPES["TensorRT"], wide), plain, feed, LadderConfig(qat_epochs=3, qat_lr=1e-3)
    )
    names = [name for name in list_quantized(after.graph()) if name in whole and whole[name][1] > 0]
    now = [after.ranges[name][1] / whole[name][1] for name in names]
    assert len(now) > 5 and np.median(now) < 2.5


def test_a_loss_that_explodes_is_the_networks_failure(trained):
    plain, feed, _, chosen = trained
    plan = QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, chosen))
    with pytest.raises(TrainingFailedError, match="the loss became"):
        tune(plan, plain, replace(feed, recipe=replace(feed.recipe, temperature=0.0)), LadderConfig(qat_epochs=1))
