"""Multiply-accumulates, bytes and memory of graphs that can be counted by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators.timing.reference_model import reference_model
from remote.simulated.boards import BOARDS
from remote.simulated.graph import NotAModelError, work
from remote.simulated.roofline import latency_ms
from tests.remote import models

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def layer(kind: int = FLOAT, groups: int = 1, channels: int = 16, image_px: int = 8, tail: tuple[str, ...] = ()):
    """(1, channels, px, px) -> the same: one 3x3 convolution, then `tail` one after the other."""
    dtype = np.float16 if kind == HALF else np.float32
    weights = numpy_helper.from_array(np.ones((channels, channels // groups, 3, 3), dtype), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y0"], pads=[1, 1, 1, 1], group=groups)]
    for i, name in enumerate(tail):
        nodes.append(helper.make_node(name, [f"y{i}"], [f"y{i + 1}"]))
    shape = [1, channels, image_px, image_px]
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", f"y{len(tail)}")]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return model.SerializeToString()


def quantized(zero_point: int = 0):
    """The same convolution between Q/DQ pairs."""
    numbers = {"s": np.float32(0.1), "z": np.int8(zero_point), "zw": np.int8(0)}
    weights = [numpy_helper.from_array(np.ones((16, 16, 3, 3), np.int8), "w8")]
    weights += [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w8", "s", "zw"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, 16, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "quantized", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return model.SerializeToString()


def test_a_convolution():
    found = work(layer())
    (conv,) = found.layers
    assert (conv.kind, conv.precision, conv.macs) == ("dense", "fp32", 16 * 64 * 16 * 9)
    assert conv.bytes == 4 * (16 * 64 * 2 + 16 * 16 * 9)
    assert found.weight_bytes == 4 * 16 * 16 * 9 and found.activation_bytes == 4 * 2 * 16 * 64
    assert found.opset == 13 and not found.quantized and not found.foreign


def test_half_precision_moves_half_the_bytes():
    full, half = work(layer()), work(layer(HALF))
    assert half.layers[0].precision == "fp16" and half.layers[0].macs == full.layers[0].macs
    assert 2 * half.layers[0].bytes == full.layers[0].bytes and 2 * half.weight_bytes == full.weight_bytes


def test_depthwise_is_told_apart():
    (conv,) = work(layer(groups=16)).layers
    assert (conv.kind, conv.macs) == ("depthwise", 16 * 64 * 9)


def test_int8_is_what_has_dequantized_inputs():
    found = work(quantized())
    (conv,) = found.layers
    assert (conv.precision, conv.kind, conv.macs) == ("int8", "dense", 16 * 64 * 16 * 9)
    assert conv.bytes == 16 * 64 * 2 + 16 * 16 * 9 and found.quantized and not found.asymmetric
    assert work(quantized(3)).asymmetric


def test_activations_are_fused_and_views_are_free():
    kinds = [layer.kind for layer in work(layer(tail=("Relu", "Identity", "GlobalAveragePool"))).layers]
    assert kinds == ["dense", "fused", "moving"]


def test_a_matrix():
    (product,) = work(models.linear(12, 3).SerializeToString()).layers
    assert product.macs == 36


def test_the_reference_by_hand():
    widths, sides = (3, 16, 32, 32, 64, 64, 64), (64, 64, 32, 32, 16, 16)  # px of each result
    macs = [side**2 * out * 9 * into for side, (into, out) in zip(sides, pairwise(widths), strict=True)]
    assert [layer.macs for layer in work(reference_model()).layers if layer.macs] == macs


def test_what_nobody_knows_is_named():
    assert work(models.unknown_op().SerializeToString()).foreign == ("Nonsense",)


@pytest.mark.parametrize("data", [b"", b"nonsense", layer()[:-40], b"\x08\x07"])
def test_what_is_no_model(data):
    with pytest.raises(NotAModelError):
        work(data)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_more_work_takes_longer(board):
    for unit in (board.core, board.cuda):
        if unit:
            small, large = (latency_ms(work(layer(channels=width, image_px=64)), unit) for width in (16, 64))
            assert 0 < small < large


def test_which_precision_pays_where():
    """As the table of fast precisions has it."""
    boards = {board.name: board for board in BOARDS}
    full, half = (work(layer(kind, channels=256, image_px=28)) for kind in (FLOAT, HALF))
    for name, ratio in {"jetson-nano": 0.6, "tx2": 0.6, "orin": 0.5, "x86-cuda": 0.6}.items():
        assert latency_ms(half, boards[name].cuda) < ratio * latency_ms(full, boards[name].cuda), name
    assert latency_ms(half, boards["rpi5"].core) < 0.6 * latency_ms(full, boards["rpi5"].core)
    assert latency_ms(half, boards["rpi4"].core) > latency_ms(full, boards["rpi4"].core)


def test_threads_help_but_not_in_full():
    board = next(board for board in BOARDS if board.name == "rpi5")
    one, four = (latency_ms(work(layer(channels=256, image_px=28)), board.core, threads) for threads in (1, 4))
    assert 0.25 * one < four < 0.5 * one
