"""Fitted ranges: each tensor is cut for what its readers make of it, none is worse off than with its extremes."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from evaluators.quantization.calibration import extremes
from evaluators.quantization.host_scoring import decibels, logits
from evaluators.quantization.qdq import QuantizationPlan
from evaluators.quantization.range_search import fit_ranges, round_to_int8
from evaluators.quantization.torch_graph import UnknownOperatorError
from tests.evaluators.quantization.nets import RECIPES, images, plain_graph

UNSIGNED, SIGNED = RECIPES["cpu with VNNI"], RECIPES["TensorRT"]


def graph(nodes, weights, shapes):
    """A prepared graph of image -> logits, (1, 3, 8, 8) -> (1, 4, 8, 8)."""
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "made",
            [value("image", TensorProto.FLOAT, (1, 3, 8, 8))],
            [value("logits", TensorProto.FLOAT, (1, 4, 8, 8))],
            [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    model.graph.value_info.extend(value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    return model


@pytest.fixture(scope="module")
def swish():
    """Two convolutions with a hard swish between, before which most values are far below 0."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["x"], "first"),
        helper.make_node("HardSigmoid", ["x"], ["gate"], "gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["x", "gate"], ["y"], "swish"),
        helper.make_node("Conv", ["y", "w2"], ["logits"], "second"),
    ]
    weights = {
        "w1": random.standard_normal((4, 3, 1, 1)),
        "b1": np.array([-40.0, 0.0, 1.0, 2.0]),
        "w2": random.standard_normal((4, 4, 1, 1)),
    }
    return graph(nodes, weights, dict.fromkeys(("x", "gate", "y"), (1, 4, 8, 8)))


def test_what_an_activation_throws_away_is_not_kept(swish):
    shown = images(8, px=8)
    whole = extremes(swish, shown)
    cut = fit_ranges(swish, shown, whole, UNSIGNED)
    assert whole["x"][0] < -35 and -8 < cut["x"][0] < -2.5, "a hard swish is 0 below -3"
    assert cut["x"][1] > 0.6 * whole["x"][1]
    before, after = (logits(QuantizationPlan(swish, UNSIGNED, r).graph(), shown) for r in (whole, cut))
    assert decibels(logits(swish, shown), after) > decibels(logits(swish, shown), before) + 6


def test_a_channel_that_its_reader_makes_large_decides():
    """The same values, read by a depthwise convolution: one that evens the channels wants the fine steps."""
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["x"], "first"),
        helper.make_node("Conv", ["x", "w2"], ["logits"], "second", group=4),
    ]
    first = random.standard_normal((4, 3, 1, 1)) * np.array([0.02, 0.02, 0.02, 1.0]).reshape(4, 1, 1, 1)
    even = np.array([50.0, 50.0, 50.0, 0.05]).reshape(4, 1, 1, 1)
    tops = []
    for second in (even, np.ones((4, 1, 1, 1))):
        model = graph(nodes, {"w1": first, "w2": second}, {"x": (1, 4, 8, 8)})
        whole = extremes(model, images(8, px=8))
        tops.append(fit_ranges(model, images(8, px=8), whole, SIGNED)["x"][1] / whole["x"][1])
    assert tops[0] < 0.3 < 0.5 < tops[1], tops


@pytest.mark.parametrize("recipe", [UNSIGNED, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("family, variant", [("tiny_mobile", "mb_w8"), ("mobilenet_v3", "mobilenet_v3_small")])
def test_ranges_lie_within_the_extremes_and_lose_less(tmp_path, recipe, family, variant):
    plain = plain_graph(tmp_path, family, variant)
    shown = images(16)
    whole = extremes(plain, shown)
    cut = fit_ranges(plain, shown, whole, recipe)
    assert cut.keys() == whole.keys()
    assert all(low >= whole[name][0] and high <= whole[name][1] for name, (low, high) in cut.items())
    assert all(low <= 0 <= high for low, high in cut.values())
    heard = [
        decibels(logits(plain, shown), logits(QuantizationPlan(plain, recipe, r).graph(), shown)) for r in (whole, cut)
    ]
    assert heard[1] > heard[0] - 1, heard


def test_rounding_is_that_of_the_graph(swish):
    shown = images(1, px=8)
    for recipe in RECIPES.values():
        for ends in ((-2.0, 3.0), (0.0, 1.5), (-1.0, 0.0)):
            made = QuantizationPlan(swish, recipe, extremes(swish, shown) | {"image": ends}).graph()
            scale, zero = (
                numpy_helper.to_array(t)
                for kind in ("image_scale", "image_zero_point")
                for t in made.graph.initializer
                if t.name == kind
            )
            x = torch.from_numpy(shown)
            low, high = (0, 255) if zero.dtype == np.uint8 else (-128, 127)
            want = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), low, high)
            assert torch.allclose(round_to_int8(x, ends, recipe), want, atol=1e-5)


def test_dead_tensors_and_unknown_operators(swish):
    dead = onnx.ModelProto.FromString(swish.SerializeToString())
    next(t for t in dead.graph.initializer if t.name == "b1").CopyFrom(
        numpy_helper.from_array(np.full(4, -1e3, dtype=np.float32), "b1")
    )
    shown = images(2, px=8)
    cut = fit_ranges(dead, shown, extremes(dead, shown), SIGNED)
    assert np.isfinite(list(cut.values())).all()
    dead.graph.node[1].op_type = "Celu"
    with pytest.raises(UnknownOperatorError):
        fit_ranges(dead, shown, cut, SIGNED)
