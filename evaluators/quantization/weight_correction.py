"""Correct weights at no cost at run time: cross-layer equalisation and bias correction.

Both are from Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from onnx import ModelProto, NodeProto, numpy_helper

from evaluators.quantization.qdq import QuantizationPlan, initializers, with_weights
from evaluators.quantization.torch_graph import Again, TorchGraph

SCALE_MAX = 64.0  # maximum factor of a channel, up or down; beyond it a nearly dead channel would set a layer's range
BATCH = 16
UNBOUNDED = np.array(6e4, dtype=np.float32)  # above any activation, and still an fp16 number


def equalise(plain: ModelProto, rounds: int = 2) -> tuple[ModelProto, int]:
    """Scale the channels of neighbouring convolutions to equal ranges.

    Two convolutions with nothing or a ReLU between them may share a factor per channel: the first's output times 1 / s,
    the second's input times s. A ReLU6 between them is not homogeneous: its bound is removed, as in the paper, which
    changes the function where an activation exceeds 6. Operators keep their places.

    Args:
        plain: Prepared float32 ModelProto.
        rounds: Number of passes over all pairs.

    Returns:
        (the scaled model, number of pairs).
    """
    pairs, bounds = _pairs(plain)
    values = {name: value.astype(np.float64) for name, value in initializers(plain).items() if value.dtype.kind == "f"}
    for _ in range(rounds):
        for first, second in pairs:
            _equalise(values, first, second)
    touched = {name for pair in pairs for node in pair for name in node.input[1:]}
    model = with_weights(plain, {name: values[name].astype(np.float32) for name in touched})
    for node in model.graph.node:  # another Clip may share the bound and must keep it
        if node.name in bounds:
            node.input[2] = "unbounded"
    if bounds:
        model.graph.initializer.append(numpy_helper.from_array(UNBOUNDED, "unbounded"))
    return model, len(pairs)


def bias_corrected(plan: QuantizationPlan, images: np.ndarray) -> QuantizationPlan:
    """Remove the mean quantization error per channel from the bias of each layer, from first to last.

    Args:
        plan: Int8 plan.
        images: Normalised images on which the errors are measured, float32 (N, 3, H, W).

    Returns:
        The plan with corrected biases.
    """
    device = torch.device("cpu")
    biases = {
        node.input[2]: value
        for node in plan.plain.graph.node
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.name not in plan.floating
        for value in [initializers(plan.plain, [node.input[2]]).get(node.input[2])]
        if value is not None
    }
    if not biases:
        return plan
    at = {node.name: node.input[2] for node in plan.plain.graph.node if len(node.input) > 2 and node.input[2] in biases}
    true = _means(TorchGraph(plan.plain, device), images, set(at))
    free = {name: torch.from_numpy(value.copy()) for name, value in biases.items()}
    shifts: dict[str, torch.Tensor] = {}

    def corrected(node: NodeProto, out: torch.Tensor, again: Again) -> torch.Tensor:
        # all images form one batch, so that a layer's inputs are corrected before its own error is measured
        if node.name not in at:
            return out
        shift = true[node.name] - _mean(out)
        shifts[at[node.name]] = shift
        return out + shift.reshape([1, -1] + [1] * (out.ndim - 2))

    with torch.inference_mode():
        TorchGraph(plan.graph(), device, free)(torch.from_numpy(images), corrected)
    return plan.with_weights({name: biases[name] + shift.numpy() for name, shift in shifts.items()})


def _mean(out: torch.Tensor) -> torch.Tensor:
    return out.mean([d for d in range(out.ndim) if d != 1])


def _means(replay: TorchGraph, images: np.ndarray, wanted: set[str]) -> dict[str, torch.Tensor]:
    """Return the mean output per channel, by node."""
    sums: dict[str, torch.Tensor] = {}

    def seen(node: NodeProto, out: torch.Tensor, again: Again) -> torch.Tensor:
        if node.name in wanted:
            sums[node.name] = sums.get(node.name, 0.0) + _mean(out) * len(out)
        return out

    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            replay(torch.from_numpy(images[start : start + BATCH]), seen)
    return {name: total / len(images) for name, total in sums.items()}


def _pairs(plain: ModelProto) -> tuple[list[tuple[NodeProto, NodeProto]], set[str]]:
    """Return pairs of convolutions that share channels and nothing else, and the names of the Clips between them."""
    nodes = list(plain.graph.node)
    readers = Counter(name for node in nodes for name in node.input) + Counter(o.name for o in plain.graph.output)
    reader = {name: node for node in nodes for name in node.input}
    fixed = initializers(plain)
    users = Counter(name for node in nodes for name in node.input if name in fixed)
    pairs, bounds = [], set()
    for first in nodes:
        if first.op_type != "Conv" or any(users[name] > 1 for name in first.input[1:]):
            continue
        between, after = None, _only_reader(first, readers, reader)
        if after is not None and (after.op_type == "Relu" or _is_relu6(after, fixed)):
            between, after = after, _only_reader(after, readers, reader)
        if after is None or after.op_type != "Conv" or any(users[name] > 1 for name in after.input[1:]):
            continue
        if _group(after) not in (1, len(fixed[first.input[1]])) or after.input[1] not in fixed:
            continue
        pairs.append((first, after))
        if between is not None and between.op_type == "Clip":
            bounds.add(between.name)
    return pairs, bounds


def _only_reader(node: NodeProto, readers: Counter[str], reader: dict[str, NodeProto]) -> NodeProto | None:
    return reader[node.output[0]] if readers[node.output[0]] == 1 and node.output[0] in reader else None


def _is_relu6(node: NodeProto, fixed: dict[str, np.ndarray]) -> bool:
    return (
        node.op_type == "Clip" and len(node.input) > 2 and node.input[1] in fixed and float(fixed[node.input[1]]) == 0
    )


def _group(conv: NodeProto) -> int:
    return next((int(a.i) for a in conv.attribute if a.name == "group"), 1)


def _equalise(values: dict[str, np.ndarray], first: NodeProto, second: NodeProto) -> None:
    before, after = values[first.input[1]], values[second.input[1]]
    depthwise = _group(second) > 1
    out = np.abs(before).reshape(len(before), -1).max(axis=1)
    into = np.abs(after).reshape(len(after), -1).max(axis=1) if depthwise else np.abs(after).max(axis=(0, 2, 3))
    if not (out.all() and into.all()):
        return  # a dead channel has no range
    scale = np.clip(np.sqrt(out / into), 1 / SCALE_MAX, SCALE_MAX)  # equal ranges: out / s = into * s
    values[first.input[1]] = before / scale.reshape(-1, 1, 1, 1)
    if len(first.input) > 2:
        values[first.input[2]] = values[first.input[2]] / scale
    values[second.input[1]] = after * (scale.reshape(-1, 1, 1, 1) if depthwise else scale.reshape(1, -1, 1, 1))
