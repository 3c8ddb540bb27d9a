"""Compute an ONNX graph in torch, with access to intermediate values and gradients for corrections and training.

It supports the operators of convolutional classifiers at opset 13. QuantizeLinear and DequantizeLinear compute the same
as in the graph, in floating point and with straight-through gradients (Jacob et al. 2018), so the trained graph is
the graph that is written. The module needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, cast

import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch.nn import functional

from remote.errors import CandidateFaultError

Tensor = torch.Tensor
Values = dict[str, Tensor]
Again = Callable[[Mapping[str, Tensor]], Tensor]  # returns a node's result for other values of some inputs
Seen = Callable[[NodeProto, Tensor, Again], Tensor]
WEIGHT_SUFFIX = "_quantized"  # of an int8 initializer; the rest of its name is that of the float32 one


class Attributes(TypedDict, total=False):
    """Hold the attributes of a node that are read here, in the types that the operators' definitions give them."""

    alpha: float
    axes: list[int]
    axis: int
    beta: float
    ceil_mode: int
    count_include_pad: int
    dilations: list[int]
    epsilon: float
    group: int
    keepdims: int
    kernel_shape: list[int]
    mode: bytes
    pads: list[int]
    perm: list[int]
    strides: list[int]
    transA: int
    transB: int


class UnknownOperatorError(CandidateFaultError, ValueError):
    """Raised when a graph contains an operator that is not supported here; one line."""


class TorchGraph:
    """Run a graph's nodes and constants on batches of any size.

    Attributes:
        free: Float tensors by the name of their initializer in the graph without Q/DQ. They replace it, and its int8
            form too, so that gradients reach them. Their scales follow them: the largest of a channel is `steps`.
        ends: Ends of activation ranges, scalars by the tensor's name, which then have gradients too.
    """

    ends: Mapping[str, tuple[Tensor, Tensor]] = {}

    def __init__(
        self, model: ModelProto, device: torch.device, free: Mapping[str, Tensor] | None = None, steps: int = 127
    ) -> None:
        """Convert the constants of a graph to torch.

        Args:
            model: ModelProto.
            device: Device of the constants.
            free: Initial value of `free`.
            steps: Integer to which the largest weight of a channel is quantized.

        Raises:
            UnknownOperatorError: The graph contains an unsupported operator.
        """
        self.nodes = list(model.graph.node)
        for node in self.nodes:
            if node.op_type not in OPERATORS and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                raise UnknownOperatorError(f"{node.op_type} is not supported by the replay of graphs")
        self.attributes = [
            cast("Attributes", {a.name: helper.get_attribute_value(a) for a in node.attribute}) for node in self.nodes
        ]
        self.constants = {
            t.name: torch.from_numpy(numpy_helper.to_array(t).copy()).to(device) for t in model.graph.initializer
        }
        self.free, self.steps = dict(free or {}), steps
        self.input, self.output = model.graph.input[0].name, model.graph.output[0].name

    def __call__(self, images: Tensor, seen: Seen | None = None) -> Tensor:
        """Return the logits (N, classes) of normalised images (N, 3, H, W).

        Args:
            images: Input of the graph.
            seen: Called with each node, its result and a function that recomputes it; its return value replaces the
                result.
        """
        values: Values = self.constants | self.free | {self.input: images}
        last = {name: i for i, node in enumerate(self.nodes) for name in node.input}
        for i, (node, attributes) in enumerate(zip(self.nodes, self.attributes, strict=True)):
            out = self._result(node, attributes, values)
            if seen:

                def again(others: Mapping[str, Tensor], node: NodeProto = node, a: Attributes = attributes) -> Tensor:
                    return self._result(node, a, values | dict(others))

                out = seen(node, out, again)
            values[node.output[0]] = out
            for name in node.input:
                if last[name] == i and name not in self.constants and name not in self.free:
                    values.pop(name, None)
        return values[self.output]

    def _result(self, node: NodeProto, attributes: Attributes, values: Values) -> Tensor:
        if node.op_type == "QuantizeLinear":
            x, scale, zero = (values[name] for name in node.input)
            if node.input[0] in self.ends:
                low, high = self.ends[node.input[0]]
                return FakeQuantize.apply(x, low, high, zero.dtype == torch.uint8)
            return fake_quantized(x, scale, zero)
        if node.op_type == "DequantizeLinear":
            return self._dequantize(node, attributes, values)
        return OPERATORS[node.op_type]([values[name] if name else None for name in node.input], attributes)

    def _dequantize(self, node: NodeProto, attributes: Attributes, values: Values) -> Tensor:
        name, scale = node.input[0], values[node.input[1]]
        if name not in self.constants:
            return values[name]  # a fake-quantized tensor has its real value already
        whole, axis = self.constants[name], attributes.get("axis", 1)
        shape = [-1 if i == axis else 1 for i in range(whole.ndim)] if scale.ndim and whole.ndim else []
        spread = scale.reshape(shape) if shape else scale
        trained = self.free.get(name.removesuffix(WEIGHT_SUFFIX))
        if trained is None:
            return (whole.float() - values[node.input[2]].reshape(shape or []).float()) * spread
        if whole.dtype != torch.int8:
            return trained  # an int32 bias is finer than the sums it is added to
        others = [d for d in range(whole.ndim) if d != axis or not scale.ndim]
        spread = trained.detach().abs().amax(others, keepdim=True) / self.steps
        spread = spread.clamp(min=1e-12)
        real = trained / spread
        return (real + (real.round() - real).detach()) * spread


def fake_quantized(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return `x` after quantization to int8 and back; the gradient is 1 inside the range and 0 outside.

    Args:
        x: Float tensor.
        scale: Scale of the quantization.
        zero: Zero point; its dtype, uint8 or int8, decides the limits.
    """
    low, high = (0, 255) if zero.dtype == torch.uint8 else (-128, 127)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), low, high)


class FakeQuantize(torch.autograd.Function):
    """Quantize to int8 between two trainable ends (Esser et al. 2019, Bhalgat et al. 2020).

    The range is unsigned from `low` to `high`, or signed and symmetric around 0 up to the farther of both ends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, unsigned: bool) -> Tensor:
        """Return `x` after quantization and dequantization."""
        if not unsigned:
            high = torch.maximum(-low, high)
            low = -high
        scale = ((high - low) / (255 if unsigned else 254)).clamp(min=1e-12)
        zero = (-low / scale).round() if unsigned else torch.zeros_like(scale)
        out = torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), *((0, 255) if unsigned else (-128, 127)))
        ctx.save_for_backward(x, out, low, high)
        ctx.unsigned = unsigned
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of `x` and of both ends."""
        (gradient,) = gradients
        x, out, low, high = ctx.saved_tensors
        below, above = x < low, x > high
        inside = gradient.masked_fill(below | above, 0.0)
        # inside the range, y - x is the rounding error, which grows with the step
        step = (inside * (out - x)).sum() / (high - low).clamp(min=1e-12)
        upper, lower = (gradient * above).sum() + step, (gradient * below).sum() - step
        if ctx.unsigned:
            return inside, lower, upper, None
        return inside, -(upper - lower) / 2, (upper - lower) / 2, None


def _ints(tensor: Tensor | None) -> list[int]:
    return [] if tensor is None else [int(v) for v in tensor.flatten().tolist()]


def _pad_unequal(x: Tensor, attributes: Attributes, value: float) -> tuple[Tensor, list[int]]:
    """Return `x` padded where the two sides differ, and the padding that remains for the operator."""
    pads = list(attributes.get("pads", [0] * (2 * (x.ndim - 2))))
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half]
    sides = [side for i in reversed(range(half)) for side in (pads[i], pads[half + i])]
    return functional.pad(x, sides, value=value), [0] * half


def _conv(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, pads = _pad_unequal(inputs[0], a, 0.0)
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return functional.conv2d(x, inputs[1], bias, tuple(strides), tuple(pads), tuple(dilations), a.get("group", 1))


def _gemm(inputs: list[Tensor], a: Attributes) -> Tensor:
    left = inputs[0].T if a.get("transA") else inputs[0]
    right = inputs[1].T if a.get("transB") else inputs[1]
    out = a.get("alpha", 1.0) * (left @ right)
    return out + a.get("beta", 1.0) * inputs[2] if len(inputs) > 2 else out


def _max_pool(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, pads = _pad_unequal(inputs[0], a, float("-inf"))
    strides = a.get("strides", [1, 1])
    return functional.max_pool2d(x, a["kernel_shape"], strides, pads, ceil_mode=bool(a.get("ceil_mode")))


def _average_pool(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, pads = _pad_unequal(inputs[0], a, 0.0)
    counted = bool(a.get("count_include_pad")) or x is not inputs[0]
    strides = a.get("strides", [1, 1])
    return functional.avg_pool2d(x, a["kernel_shape"], strides, pads, bool(a.get("ceil_mode")), counted)


def _reshape(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, shape = inputs[0], _ints(inputs[1])
    shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    if shape[0] == 1:  # the batch size in the written graph
        shape[0] = x.shape[0]
    return x.reshape(shape)


def _clip(inputs: list[Tensor], a: Attributes) -> Tensor:
    low, high = (inputs[i] if len(inputs) > i else None for i in (1, 2))
    return inputs[0].clamp(None if low is None else float(low), None if high is None else float(high))


def _pad(inputs: list[Tensor], a: Attributes) -> Tensor:
    pads = _ints(inputs[1])
    half = len(pads) // 2
    sides = [side for i in reversed(range(half)) for side in (pads[i], pads[half + i])]
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return functional.pad(inputs[0], sides, mode=a.get("mode", b"constant").decode(), value=value)


def _slice(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, starts, ends = inputs[0], _ints(inputs[1]), _ints(inputs[2])
    axes = _ints(inputs[3]) if len(inputs) > 3 else list(range(len(starts)))
    steps = _ints(inputs[4]) if len(inputs) > 4 else [1] * len(starts)
    cuts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cuts[axis] = slice(start, min(end, x.shape[axis]), step)
    return x[tuple(cuts)]


def _axes(inputs: list[Tensor], a: Attributes) -> list[int]:
    return _ints(inputs[1]) if len(inputs) > 1 else list(a.get("axes", []))


def _unsqueeze(inputs: list[Tensor], a: Attributes) -> Tensor:
    x = inputs[0]
    for axis in sorted(_axes(inputs, a)):
        x = x.unsqueeze(axis)
    return x


def _batch_norm(inputs: list[Tensor], a: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


# An input is a tensor, or None where an optional one is left out; each operator names what it takes.
OPERATORS: dict[str, Callable[[list[Any], Attributes], Tensor]] = {
    "Add": lambda i, a: i[0] + i[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda i, a: torch.cat(i, a["axis"]),
    "Conv": _conv,
    "Div": lambda i, a: i[0] / i[1],
    "Erf": lambda i, a: torch.erf(i[0]),
    "Flatten": lambda i, a: i[0].flatten(a.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda i, a: i[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda i, a: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda i, a: functional.hardswish(i[0]),
    "Identity": lambda i, a: i[0],
    "LeakyRelu": lambda i, a: functional.leaky_relu(i[0], a.get("alpha", 0.01)),
    "MatMul": lambda i, a: i[0] @ i[1],
    "MaxPool": _max_pool,
    "Mul": lambda i, a: i[0] * i[1],
    "Pad": _pad,
    "Pow": lambda i, a: i[0] ** i[1],
    "ReduceMean": lambda i, a: i[0].mean(_axes(i, a), keepdim=bool(a.get("keepdims", 1))),
    "Relu": lambda i, a: functional.relu(i[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda i, a: torch.sigmoid(i[0]),
    "Slice": _slice,
    "Softmax": lambda i, a: torch.softmax(i[0], a.get("axis", -1)),
    "Sqrt": lambda i, a: torch.sqrt(i[0]),
    "Squeeze": lambda i, a: i[0].squeeze(_axes(i, a) or [d for d in range(i[0].ndim) if i[0].shape[d] == 1]),
    "Sub": lambda i, a: i[0] - i[1],
    "Tanh": lambda i, a: torch.tanh(i[0]),
    "Transpose": lambda i, a: i[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}
