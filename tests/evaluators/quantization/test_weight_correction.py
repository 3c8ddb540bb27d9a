"""Equalisation keeps what a network computes and evens its channels; bias correction takes out a mean error."""

import numpy as np
import pytest

from evaluators.quantization.calibration import extremes
from evaluators.quantization.host_scoring import logits
from evaluators.quantization.qdq import QuantizationPlan, initializers
from evaluators.quantization.weight_correction import bias_corrected, equalise
from tests.evaluators.quantization.nets import RECIPES, exam_of, images, plain_graph, top1, unbalance


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return plain_graph(tmp_path_factory.mktemp("graph"), "cifar_resnet", "cifar_resnet20", change=unbalance)


def test_equalisation_keeps_the_function_and_the_operators(uneven):
    even, pairs = equalise(uneven)
    shown = images(4)
    assert pairs >= 9, "the two convolutions of each block"
    assert np.allclose(logits(even, shown), logits(uneven, shown), rtol=1e-3, atol=1e-3)
    assert [n.op_type for n in even.graph.node] == [n.op_type for n in uneven.graph.node]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_equalisation_brings_back_what_uneven_channels_cost(uneven, recipe):
    even, _ = equalise(uneven)
    exam = exam_of(uneven, 100)
    before, after = (top1(exam, QuantizationPlan(p, recipe, extremes(p, images(16))).graph()) for p in (uneven, even))
    assert after > before + 0.05


def test_a_relu6_between_loses_its_bound_and_stays(tmp_path):
    plain = plain_graph(tmp_path, "mobilenet_v2", "mobilenet_v2")
    even, pairs = equalise(plain)
    assert pairs > 17, "expansion and depthwise, depthwise and projection"
    assert [n.op_type for n in even.graph.node] == [n.op_type for n in plain.graph.node]
    assert float(initializers(even)["unbounded"]) > 1e4
    used = [n for n in even.graph.node if n.op_type == "Clip" and n.input[2] == "unbounded"]
    assert len(used) == len({n.name for n in used}) > 17


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_bias_correction_takes_out_the_mean_error(recipe, tmp_path):
    plain = plain_graph(tmp_path, "tiny_mobile", "mb_w8")
    shown = images(32)
    cut = {name: (low / 2, high / 2) for name, (low, high) in extremes(plain, shown).items()}  # much is clipped
    plan = QuantizationPlan(plain, recipe, cut)
    whole = logits(plain, shown).mean(axis=0)
    before, after = (
        np.abs(logits(p.graph(), shown).mean(axis=0) - whole).mean() for p in (plan, bias_corrected(plan, shown))
    )
    assert after < before / 3


def test_layers_in_floating_point_are_left_alone(tmp_path):
    plain = plain_graph(tmp_path)
    every = frozenset(node.name for node in plain.graph.node)
    plan = QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, images(4)), every)
    assert bias_corrected(plan, images(4)) is plan
