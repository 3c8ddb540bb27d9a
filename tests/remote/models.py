"""Small ONNX graphs that behave in one known way each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def saved(folder: Path, name: str, model: ModelProto) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _model(nodes, inputs, outputs, initializers=(), domain: str = "", opset: int = 13) -> ModelProto:
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


def _value(name: str, shape, kind: int = FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def linear(features: int = 12, classes: int = 3, kind: int = FLOAT) -> ModelProto:
    """(1, 3, 2, 2) -> (1, classes): flatten and one matrix, whose values are 0, 1, 2 ..."""
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights = np.arange(features * classes, dtype=dtype).reshape(features, classes) / 16
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return _model(
        nodes,
        [_value("x", [1, 3, 2, 2], kind)],
        [_value("y", [1, classes], kind)],
        [numpy_helper.from_array(weights, "w")],
    )


def convolution(channels: int = 24, image_px: int = 24) -> ModelProto:
    """(1, 3, px, px) -> (1, channels): about a tenth of a millisecond."""
    random = np.random.RandomState(0)
    first = random.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    second = random.standard_normal((channels, channels, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "b"], ["g"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["g"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return _model(
        nodes,
        [_value("x", [1, 3, image_px, image_px])],
        [_value("y", [1, channels])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")],
    )


def endless() -> ModelProto:
    """Loads, and never comes back from its first run: 2**62 turns of a loop."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            _value("turn", [], TensorProto.INT64),
            _value("go", [], TensorProto.BOOL),
            _value("state", [1, 3, 2, 2]),
        ],
        [_value("go_on", [], TensorProto.BOOL), _value("next", [1, 3, 2, 2])],
    )
    node = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    constants = [
        numpy_helper.from_array(np.array(1 << 62, dtype=np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    return _model([node], [_value("x", [1, 3, 2, 2])], [_value("y", [1, 3, 2, 2])], constants)


def huge() -> ModelProto:
    """Asks for 64 TB when run."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "k"], ["big"]),
        helper.make_node("ConstantOfShape", ["big"], ["field"]),
        helper.make_node("ReduceMax", ["field"], ["y"], keepdims=0),
    ]
    factors = numpy_helper.from_array(np.array([1 << 14, 1 << 14, 1 << 9, 1], dtype=np.int64), "k")
    return _model(nodes, [_value("x", [1, 3, 2, 2])], [_value("y", [])], [factors])


def unknown_op() -> ModelProto:
    """Uses an operator that nobody has."""
    node = helper.make_node("Nonsense", ["x"], ["y"], domain="nowhere")
    return _model([node], [_value("x", [1, 3, 2, 2])], [_value("y", [1, 3, 2, 2])], domain="nowhere")
