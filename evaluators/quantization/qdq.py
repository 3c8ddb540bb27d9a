"""Explicit Q/DQ operators in a float32 graph: where they stand is the target's recipe, what they scale by is `ranges`.

One function puts them in, for random weights and for trained ones, so that a network that was timed before it was
trained keeps its layout: only numbers differ.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from evaluators.export.onnx_export import quiet
from remote.device import Int8Recipe

Ranges = Mapping[str, tuple[float, float]]  # tensor -> least and greatest value that its int8 form has

KINDS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
QUANTIZED = frozenset((*QLinearOpsRegistry, *QDQRegistry))
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything an int8 graph is made of."""

    plain: Any  # the float32 ModelProto, prepared; never changed in place
    recipe: Int8Recipe
    ranges: Ranges
    floating: frozenset[str] = frozenset()  # nodes that stay in floating point

    def graph(self) -> Any:
        """The ModelProto with Q/DQ operators."""
        return _with_qdq(self)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> QuantizationPlan:
        """The same plan for other values of some initializers."""
        return replace(self, plain=with_weights(self.plain, weights))


def prepare(fp32_path: Path) -> Any:
    """The graph with batch norm and padding folded into convolutions, so that no Q/DQ pair is put between them.

    Every tensor has its shape and every node a name.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32_path), str(path), skip_symbolic_shape=True)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def activations(plain: Any) -> tuple[str, ...]:
    """Names of the float tensors that may get a Q/DQ pair."""
    fixed = {tensor.name for tensor in plain.graph.initializer}
    floats = {
        value.name
        for value in (*plain.graph.value_info, *plain.graph.input, *plain.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    touched = (name for node in plain.graph.node if node.op_type in QUANTIZED for name in (*node.input, *node.output))
    return tuple(dict.fromkeys(name for name in touched if name in floats and name not in fixed))


def list_quantized(graph: Any) -> tuple[str, ...]:
    """Names of the activations that have a Q/DQ pair in an int8 graph."""
    fixed = {tensor.name for tensor in graph.graph.initializer}
    pairs = (node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear")
    return tuple(dict.fromkeys(name for name in pairs if name not in fixed))


def layers(plain: Any) -> dict[str, tuple[str, ...]]:
    """Nodes by layer: a layer is a node with weights and what follows it up to the next such node."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for node in plain.graph.node:
        if node.op_type in WEIGHTED:
            current = found[node.name] = [*current, node.name] if not found else [node.name]
        elif node.op_type in QUANTIZED:
            current.append(node.name)
    return {name: tuple(nodes) for name, nodes in found.items()}


def macs(plain: Any) -> dict[str, int]:
    """Multiply-accumulates of one image, by layer."""
    shapes = {
        value.name: [max(1, d.dim_value) for d in value.type.tensor_type.shape.dim]
        for value in (*plain.graph.value_info, *plain.graph.input, *plain.graph.output)
    } | {tensor.name: list(tensor.dims) for tensor in plain.graph.initializer}
    counted = {}
    for node in plain.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        out, weight = np.prod(shapes[node.output[0]], dtype=int), shapes[node.input[1]]
        if node.op_type == "Conv":
            each = np.prod(weight[1:], dtype=int)
        elif node.op_type == "ConvTranspose":
            each = np.prod(weight, dtype=int) // weight[1]
        else:
            each = shapes[node.input[0]][-1]
        counted[node.name] = int(out * each)
    return counted


def with_weights(plain: Any, weights: Mapping[str, np.ndarray]) -> Any:
    """A copy of the model with other values of some initializers."""
    model = copy.deepcopy(plain)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return model


def initializers(model: Any, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Values of the initializers, of all or of the named ones."""
    wanted = None if names is None else set(names)
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if wanted is None or tensor.name in wanted
    }


def _with_qdq(plan: QuantizationPlan) -> Any:
    # TensorRT is to be shown what layers with weights take, and fuses what stands between them as it sees fit. A CPU's
    # integer kernels begin and end in int8, so there every operator that has one is quantized.
    recipe = plan.recipe
    ranges = TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in plan.ranges.items()},
    )
    with quiet():
        quantizer = QDQQuantizer(
            copy.deepcopy(plan.plain),
            True,  # per channel
            recipe.weight_bits == 7,
            QuantType.QInt8,
            KINDS[recipe.activation],
            ranges,
            [],
            sorted(plan.floating),
            list(WEIGHTED) if recipe.symmetric else sorted(QUANTIZED),
            {
                "OpTypesToExcludeOutputQuantization": list(WEIGHTED) if recipe.symmetric else [],
                "ActivationSymmetric": recipe.symmetric,
                "WeightSymmetric": True,
                # TensorRT keeps biases in floating point and refuses to dequantize an int32
                "QuantizeBias": not recipe.symmetric,
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # which readers other than ONNX Runtime insist on
    return quantizer.model.model
