"""How much work an ONNX graph is: multiply-accumulates and bytes of every layer, and what a runtime may refuse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

# Only another view of the same memory, or folded away before anything runs.
# fmt: off
FREE = {
    "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Dropout", "Flatten", "Gather", "Identity",
    "QuantizeLinear", "Reshape", "Shape", "Slice", "Squeeze", "Unsqueeze",
}
# Done by the layer before while it writes its result.
FUSED = {
    "Add", "BatchNormalization", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul",
    "PRelu", "Pow", "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh",
}
# fmt: on
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class NotAModelError(ValueError):
    """Not a graph that any runtime could load."""


@dataclass(frozen=True)
class Layer:
    """One node. `kind` is dense, depthwise, moving (bytes only) or fused (into the layer before)."""

    kind: str
    precision: str
    macs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class GraphWork:
    """What running the graph once is, whatever it runs on."""

    layers: tuple[Layer, ...]
    weight_bytes: int
    activation_bytes: int  # the most that is alive at one time
    io_bytes: int
    opset: int
    operators: frozenset[str]
    foreign: tuple[str, ...]  # operators that are not ONNX's
    quantized: bool  # has QuantizeLinear or DequantizeLinear
    asymmetric: bool  # has a zero point other than 0


@dataclass(frozen=True)
class TensorShapes:
    """What is known of the tensors, by name."""

    shapes: dict[str, tuple[int, ...]]
    halves: frozenset[str]  # of 16 bits
    narrow: frozenset[str]  # of 8 bits
    constants: frozenset[str]

    def elements(self, name: str) -> int:
        return math.prod(self.shapes.get(name, (0,)))

    def precision(self, name: str) -> str:
        return "int8" if name in self.narrow else "fp16" if name in self.halves else "fp32"

    def bytes(self, name: str) -> int:
        return self.elements(name) * BYTES[self.precision(name)]


def work(data: bytes) -> GraphWork:
    """The work of a serialized model. Raises NoModel."""
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=False) if _foreign(model) == () else None
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # protobuf's and onnx's have no common class
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
    """Tensors that an int8 engine keeps in int8: beside Q/DQ pairs, and results that are only quantized."""
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    beside = {node.output[0] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return beside | {name for name, kinds in readers.items() if set(kinds) == {"QuantizeLinear"}}


def _constants(graph: onnx.GraphProto) -> frozenset[str]:
    """Weights, and what is made of nothing but weights."""
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
    """int8 only where both sides of a product are."""
    seen = {tensors.precision(name) for name in node.input[:2] if name}
    return seen.pop() if len(seen) == 1 else "fp16" if seen == {"fp16", "int8"} else "fp32"


def _macs(node: NodeProto, tensors: TensorShapes) -> tuple[int, bool]:
    """(multiply-accumulates, whether each channel has a filter of its own)."""
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
    """Bytes of the tensors that are needed at the same time, at the worst moment."""
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
