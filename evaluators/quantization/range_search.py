"""Fit the range of each tensor so that the operators that read it have the smallest error.

One method for all tensors clips a squeeze's few values as hard as a feature map's millions, and keeps values that a
saturating activation discards. A tensor's range is judged by the results of its readers: a depthwise convolution
amplifies small channels of its input, a hard swish maps all values far below 0 to zero. (Local errors as a
substitute for the network's: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from onnx import ModelProto, NodeProto

from evaluators.quantization.qdq import QuantizationPlan, Ranges, list_quantized
from evaluators.quantization.torch_graph import Again, TorchGraph
from remote.device import Int8Recipe

CUTS = (1.0, 0.85, 0.7, 0.58, 0.48, 0.4, 0.33, 0.25, 0.18, 0.12, 0.08, 0.05)  # shares of the extremes that are tried
SLIGHT = 0.04  # share of the upper end below which the lower end is not cut
BATCH = 8

Ends = tuple[float, float]


def fit_ranges(plain: ModelProto, images: np.ndarray, whole: Ranges, recipe: Int8Recipe) -> Ranges:
    """Fit a range within the extremes for each tensor.

    Args:
        plain: Prepared float32 ModelProto.
        images: Normalised images, float32 (N, 3, H, W).
        whole: Extremes by tensor.
        recipe: Int8 recipe of the device.

    Raises:
        UnknownOperatorError: The graph can't be replayed in torch.
    """
    replay, found = TorchGraph(plain, torch.device("cpu")), dict(whole)
    names = [name for name in list_quantized(QuantizationPlan(plain, recipe, whole).graph()) if name in whole]
    for choices in (_both,) if recipe.symmetric else (_highs, _lows):
        tried = {name: choices(found[name], whole[name]) for name in names}
        found |= _best(replay, images, recipe, tried)
    return found


def _both(now: Ends, whole: Ends) -> list[Ends]:
    top = max(-whole[0], whole[1])
    return [(max(whole[0], -cut * top), min(whole[1], cut * top)) for cut in CUTS]


def _highs(now: Ends, whole: Ends) -> list[Ends]:
    return [(now[0], cut * whole[1]) for cut in CUTS]


def _lows(now: Ends, whole: Ends) -> list[Ends]:
    if -whole[0] < SLIGHT * now[1]:
        return [now] * len(CUTS)  # a cut frees too few steps to matter: a hard swish ends at -0.375
    return [(cut * whole[0], now[1]) for cut in CUTS]


@torch.inference_mode()
def _best(replay: TorchGraph, images: np.ndarray, recipe: Int8Recipe, tried: Mapping[str, list[Ends]]) -> Ranges:
    """Return each tensor's range with the smallest relative error of its readers; of equal ranges the first."""
    errors: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(CUTS)))
    values: dict[str, torch.Tensor] = {}

    def seen(node: NodeProto, out: torch.Tensor, again: Again) -> torch.Tensor:
        power = max(float(out.square().sum()), 1e-30)
        for name in {*node.input} & tried.keys():
            known: dict[Ends, float] = {}
            for i, ends in enumerate(tried[name]):
                if ends not in known:
                    off = again({name: round_to_int8(values[name], ends, recipe)}) - out
                    known[ends] = float(off.square().sum()) / power
                errors[name][i] += known[ends]
        values[node.output[0]] = out
        for name in gone[node.name]:
            values.pop(name, None)
        return out

    gone = _last_readers(replay)
    for start in range(0, len(images), BATCH):
        values[replay.input] = torch.from_numpy(images[start : start + BATCH])
        replay(values[replay.input], seen)
    return {name: tried[name][int(error.argmin())] for name, error in errors.items()}


def round_to_int8(x: torch.Tensor, ends: Ends, recipe: Int8Recipe) -> torch.Tensor:
    """Return `x` after quantization to int8 and back.

    Args:
        x: Float tensor.
        ends: Least and greatest value of the range.
        recipe: Int8 recipe of the device.
    """
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if recipe.symmetric:
        scale, zero, least, most = max(-low, high) / 127, 0, -128, 127
    else:
        scale = (high - low) / 255
        zero, least, most = round(-low / scale) if scale else 0, 0, 255
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, least, most) if scale else torch.zeros_like(x)


def _last_readers(replay: TorchGraph) -> dict[str, list[str]]:
    """Return, for each node, the tensors that no later node reads."""
    last = {name: node.name for node in replay.nodes for name in node.input}
    gone: dict[str, list[str]] = {node.name: [] for node in replay.nodes}
    for name, reader in last.items():
        gone[reader].append(name)
    return gone
