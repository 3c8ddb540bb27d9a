"""Compute the work of an ONNX graph: multiply-accumulates and bytes of every layer, and causes for a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from remote.errors import EdgefrontError

# Operators that only view the same memory in another way, or that are folded away before anything runs.
# fmt: off
FREE = {
    "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Dropout", "Flatten", "Gather", "Identity",
    "QuantizeLinear", "Reshape", "Shape", "Slice", "Squeeze", "Unsqueeze",
}
# Operators that the layer before computes while it writes its result.
FUSED = {
    "Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul",
    "PRelu", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh",
}
# fmt: on
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class NotAModelError(EdgefrontError, ValueError):
    """Raised for data that is no graph that any runtime could load."""


@dataclass(frozen=True)
class Layer:
    """Describe the work of one node.

    Attributes:
        kind: dense, depthwise, moving (bytes only) or fused (into the layer before).
        precision: fp32, fp16 or int8.
        macs: Multiply-accumulates.
        bytes: Bytes read and written.
    """

    kind: str
    precision: str
    macs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class GraphWork:
    """Describe the work of one run of a graph, independent of the processor.

    Attributes:
        layers: The work of each layer.
        weight_bytes: Bytes of all weights.
        activation_bytes: Most bytes of activations that are alive at one time.
        io_bytes: Bytes of inputs and outputs.
        opset: Version of ONNX's operator set.
        operators: Names of all operators.
        foreign: Operators that are not ONNX's.
        quantized: Whether it has QuantizeLinear or DequantizeLinear.
        asymmetric: Whether it has a zero point other than 0.
    """

    layers: tuple[Layer, ...]
    weight_bytes: int
    activation_bytes: int
    io_bytes: int
    opset: int
    operators: frozenset[str]
    foreign: tuple[str, ...]
    quantized: bool
    asymmetric: bool


@dataclass(frozen=True)
class TensorShapes:
    """Hold the known shapes and types of the tensors, by name.

    Attributes:
        shapes: Name -> shape.
        halves: Names of tensors of 16 bits.
        narrow: Names of tensors of 8 bits.
        constants: Names of tensors that do not depend on an input.
    """

    shapes: dict[str, tuple[int, ...]]
    halves: frozenset[str]
    narrow: frozenset[str]
    constants: frozenset[str]

    def elements(self, name: str) -> int:
        """Return the number of elements of a tensor; 0 where its shape is not known."""
        return math.prod(self.shapes.get(name, (0,)))

    def precision(self, name: str) -> str:
        """Return fp32, fp16 or int8."""
        return "int8" if name in self.narrow else "fp16" if name in self.halves else "fp32"

    def bytes(self, name: str) -> int:
        """Return the bytes of a tensor."""
        return self.elements(name) * BYTES[self.precision(name)]


def work(data: bytes) -> GraphWork:
    """Return the work of a serialized model.

    Raises:
        NotAModelError: The data is no model, or an invalid one.
    """
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=False) if _foreign(model) == () else None
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # protobuf's and onnx's errors have no common class
        raise NotAModelError(" ".join(str(error).split())[:300] or type(error).__name__) from None
    nodes, tensors = list(model.graph.node), _tensors(model)
    outputs = [value.name for value in model.graph.output]
    inputs = [value.name for value in model.graph.input if value.name not in tensors.constants]
    return GraphWork(
        layers=tuple(_layers(nodes, tensors)),
        weight_bytes=sum(_count_stored_bytes(tensor) for tensor in model.graph.initializer),
        activation_bytes=_most_alive(nodes, tensors, inputs, outputs),
        io_bytes=sum(tensors.bytes(name) for name in (*inputs, *outputs)),
        opset=max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1),
        operators=frozenset(node.op_type for node in nodes),
        foreign=_foreign(model),
        quantized=any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes),
        asymmetric=_asymmetric(model),
    )


def _foreign(model: onnx.ModelProto) -> tuple[str, ...]:
    found = (n.op_type for n in model.graph.node if not onnx.defs.has(n.op_type, n.domain.replace("ai.onnx", "")))
    return tuple(dict.fromkeys(found))


def _tensors(model: onnx.ModelProto) -> TensorShapes:
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {}
    halves: set[str] = set()
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
        if kind.elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            halves.add(value.name)
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            halves.add(tensor.name)
    return TensorShapes(shapes, frozenset(halves), frozenset(_narrow(graph)), _constants(graph))


def _narrow(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that an int8 engine keeps in int8: those beside Q/DQ pairs, and those only quantized."""
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    beside = {node.output[0] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return beside | {name for name, kinds in readers.items() if set(kinds) == {"QuantizeLinear"}}


def _constants(graph: onnx.GraphProto) -> frozenset[str]:
    """Return the names of weights, and of tensors computed from weights alone."""
    found = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:
        if node.op_type in FREE and all(name in found for name in node.input):
            found |= set(node.output)
    return frozenset(found)


def _layers(nodes: list[NodeProto], tensors: TensorShapes) -> Iterator[Layer]:
    for node in nodes:
        if node.op_type in FREE or not node.output:
            continue
        macs, depthwise = _macs(node, tensors)
        precision = _precision(node, tensors)
        moved = sum(tensors.elements(name) for name in (*node.input, *node.output)) * BYTES[precision]
        if macs:
            yield Layer("depthwise" if depthwise else "dense", precision, macs, moved)
        elif node.op_type in FUSED:
            yield Layer("fused", precision, 0, tensors.elements(node.output[0]) * BYTES[precision])
        else:
            yield Layer("moving", precision, 0, moved)


def _precision(node: NodeProto, tensors: TensorShapes) -> str:
    """Return int8 only where both sides of a product are int8."""
    seen = {tensors.precision(name) for name in node.input[:2] if name}
    return seen.pop() if len(seen) == 1 else "fp16" if seen == {"fp16", "int8"} else "fp32"


def _macs(node: NodeProto, tensors: TensorShapes) -> tuple[int, bool]:
    """Return (multiply-accumulates, whether each channel has a filter of its own)."""
    made = tensors.elements(node.output[0])
    if node.op_type in ("Conv", "ConvTranspose"):
        weights = tensors.shapes.get(node.input[1], (1, 1))
        groups = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "Conv":  # (out, in / groups, ...)
            return made * math.prod(weights[1:]), groups > 1 and weights[1] == 1
        return tensors.elements(node.input[0]) * math.prod(weights[1:]), groups > 1  # (in, out / groups, ...)
    if node.op_type == "MatMul":
        return made * tensors.shapes.get(node.input[0], (1,))[-1], False
    if node.op_type == "Gemm":
        transposed = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "transA"), 0)
        return made * tensors.shapes.get(node.input[0], (1, 1))[0 if transposed else -1], False
    return 0, False


def _most_alive(nodes: list[NodeProto], tensors: TensorShapes, inputs: list[str], outputs: list[str]) -> int:
    """Return the most bytes of tensors that are needed at the same time."""
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    last |= dict.fromkeys(outputs, len(nodes))
    alive = {name: tensors.bytes(name) for name in inputs}
    most = sum(alive.values())
    for index, node in enumerate(nodes):
        alive |= {name: tensors.bytes(name) for name in node.output if name not in tensors.constants}
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > index}
    return most


def _count_stored_bytes(tensor: TensorProto) -> int:
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _asymmetric(model: onnx.ModelProto) -> bool:
    points = {
        node.input[2]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    }
    return any(numpy.any(numpy_helper.to_array(t)) for t in model.graph.initializer if t.name in points)
