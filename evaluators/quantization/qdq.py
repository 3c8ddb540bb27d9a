"""Insert explicit Q/DQ operators into a float32 graph: the target's recipe gives their places, `ranges` their scales.

One function inserts them, for random weights and for trained ones, so that a network that was timed before it was
trained keeps its layout: only numbers differ.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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

Ranges = Mapping[str, tuple[float, float]]  # tensor -> least and greatest value of its int8 form

KINDS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
QUANTIZED = frozenset((*QLinearOpsRegistry, *QDQRegistry))
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class QuantizationPlan:
    """Define an int8 graph completely.

    Attributes:
        plain: Prepared float32 ModelProto, which is never modified in place.
        recipe: Int8 recipe of the device.
        ranges: Ranges by tensor.
        floating: Names of the nodes that stay in floating point.
    """

    plain: onnx.ModelProto
    recipe: Int8Recipe
    ranges: Ranges
    floating: frozenset[str] = frozenset()

    def graph(self) -> onnx.ModelProto:
        """Build the ModelProto with Q/DQ operators."""
        return _with_qdq(self)

    def with_weights(self, weights: Mapping[str, np.ndarray]) -> QuantizationPlan:
        """Return the same plan with other values of some initializers."""
        return replace(self, plain=with_weights(self.plain, weights))


def prepare(fp32_path: Path) -> onnx.ModelProto:
    """Load a graph with batch norm and padding folded into convolutions, so that no Q/DQ pair is inserted between them.

    Every tensor of it has a shape and every node a name.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "prepared.onnx"
        quant_pre_process(str(fp32_path), str(path), skip_symbolic_shape=True)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def activations(plain: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the float tensors that may get a Q/DQ pair."""
    fixed = {tensor.name for tensor in plain.graph.initializer}
    floats = {
        value.name
        for value in (*plain.graph.value_info, *plain.graph.input, *plain.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    touched = (name for node in plain.graph.node if node.op_type in QUANTIZED for name in (*node.input, *node.output))
    return tuple(dict.fromkeys(name for name in touched if name in floats and name not in fixed))


def list_quantized(graph: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the activations that have a Q/DQ pair in an int8 graph."""
    fixed = {tensor.name for tensor in graph.graph.initializer}
    pairs = (node.input[0] for node in graph.graph.node if node.op_type == "QuantizeLinear")
    return tuple(dict.fromkeys(name for name in pairs if name not in fixed))


def layers(plain: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the nodes of each layer: a node with weights and all nodes after it up to the next such node."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for node in plain.graph.node:
        if node.op_type in WEIGHTED:
            current = found[node.name] = [*current, node.name] if not found else [node.name]
        elif node.op_type in QUANTIZED:
            current.append(node.name)
    return {name: tuple(nodes) for name, nodes in found.items()}


def macs(plain: onnx.ModelProto) -> dict[str, int]:
    """Return the multiply-accumulates of one image, by layer."""
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


def with_weights(plain: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return a copy of the model with other values of some initializers.

    Args:
        plain: ModelProto.
        weights: New values by initializer; others stay.
    """
    model = copy.deepcopy(plain)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return model


def initializers(model: onnx.ModelProto, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return the values of the initializers.

    Args:
        model: ModelProto.
        names: Names of the initializers to return; None returns all.
    """
    wanted = None if names is None else set(names)
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if wanted is None or tensor.name in wanted
    }


def _with_qdq(plan: QuantizationPlan) -> onnx.ModelProto:
    # TensorRT needs Q/DQ at the inputs of layers with weights only, and fuses the operators between them on its own. A
    # CPU's integer kernels begin and end in int8, so there every operator that has such a kernel is quantized.
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
        quantizer.model.topological_sort()  # readers other than ONNX Runtime require that order
    return quantizer.model.model
