"""Graphs replayed in torch compute what ONNX Runtime computes, in float32 and with Q/DQ operators."""

import pytest
import torch
from onnx import helper

from evaluators.quantization.calibration import extremes
from evaluators.quantization.host_scoring import decibels, logits
from evaluators.quantization.qat import TrainableGraph, largest_step
from evaluators.quantization.qdq import QuantizationPlan
from evaluators.quantization.torch_graph import TorchGraph, UnknownOperatorError
from tests.evaluators.quantization.nets import RECIPES, images, plain_graph

CPU = torch.device("cpu")


def replayed(model, shown, **options):
    with torch.inference_mode():
        return TorchGraph(model, CPU, **options)(torch.from_numpy(shown)).numpy()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("family, variant", [("tiny_mobile", "mb_w8"), ("tiny_resnet", "res8_w16_s2")])
def test_int8_is_what_the_graph_computes(family, variant, recipe, tmp_path):
    plain, shown = plain_graph(tmp_path, family, variant), images(8)
    plan = QuantizationPlan(plain, recipe, extremes(plain, images(8, 1)))
    graph = plan.graph()
    expected = logits(graph, shown)
    lost = decibels(logits(plain, shown), expected)
    # a value between two steps may be rounded either way: far less than what int8 itself costs
    assert decibels(expected, replayed(graph, shown)) > lost + 6
    # and the same with weights that are free to be trained, quantized on the way; its biases are not rounded to int32,
    # so it is held against the graph with biases as they are: in the same kernels, whatever the CPU has
    student = TrainableGraph(plan).eval()
    biases = {name: value.detach() for name, value in zip(student.names, student.values, strict=True) if value.ndim < 2}
    unrounded = replayed(graph, shown, free=biases)
    with torch.inference_mode():
        assert decibels(unrounded, student(torch.from_numpy(shown)).numpy()) > lost + 6
    # rounding biases moves values over the edges of steps: less noise than all of int8, of which it is one part
    assert decibels(replayed(graph, shown), unrounded) > lost


def test_free_weights_get_gradients_and_int8_ones_change_in_steps(tmp_path):
    plain = plain_graph(tmp_path)
    student = TrainableGraph(QuantizationPlan(plain, RECIPES["TensorRT"], extremes(plain, images(4))))
    student(torch.from_numpy(images(4))).square().sum().backward()
    missing = [n for n, v in zip(student.names, student.values, strict=True) if v.grad is None or not v.grad.any()]
    assert not missing
    assert [largest_step(r) for r in RECIPES.values()] == [64, 127, 127]


def test_what_is_seen_can_be_replaced(tmp_path):
    plain = plain_graph(tmp_path)
    last = plain.graph.node[-1].name
    out = TorchGraph(plain, CPU)(
        torch.from_numpy(images(2)), lambda n, x, _: torch.zeros_like(x) if n.name == last else x
    )
    assert not out.any()


def test_an_unknown_operator_is_told():
    values = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    node = helper.make_node("Hardmax", ["x"], ["y"])
    with pytest.raises(UnknownOperatorError, match="Hardmax is not supported"):
        TorchGraph(helper.make_model(helper.make_graph([node], "graph", values[:1], values[1:])), CPU)
