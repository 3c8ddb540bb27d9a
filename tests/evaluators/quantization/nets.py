"""Small networks with random weights, as graphs, and images whose labels are what the float32 graph says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from evaluators.export.onnx_export import export
from evaluators.quantization.host_scoring import EvaluationSet, logits
from evaluators.quantization.qdq import prepare
from evaluators.stages.structure import random_net
from remote.device import Int8Recipe
from spaces.candidate import Candidate

PX = 32
RECIPES = {
    "cpu without VNNI": Int8Recipe("uint8", symmetric=False, weight_bits=7),
    "cpu with VNNI": Int8Recipe("uint8", symmetric=False, weight_bits=8),
    "TensorRT": Int8Recipe("int8", symmetric=True, weight_bits=8),
}


def images(count, seed=0, px=PX):
    return np.random.default_rng(seed).standard_normal((count, 3, px, px), dtype=np.float32)


def plain_graph(folder: Path, family="tiny_resnet", variant="res8_w16_s2", px=PX, seed=0, change=None):
    """The prepared float32 graph; `change` is done to the net first."""
    torch.manual_seed(seed)
    net = random_net(Candidate(family=family, variant=variant, image_px=px), 7)
    if change:
        change(net)
    export(net, px, folder / "fp32.onnx")
    return prepare(folder / "fp32.onnx")


def unbalance(net, block=""):
    """The same function, channels up to 1000 times apart between the two convolutions of each block (or one block)."""
    torch.manual_seed(1)
    layers = dict(net.named_modules())
    pairs = [(n, n.replace("bn1", "conv2")) for n in layers if n.startswith("layer") and n.endswith("bn1")]
    for norm, conv in ((layers[a], layers[b]) for a, b in pairs if block in a):
        factor = 10 ** (3 * torch.rand(norm.num_features))
        with torch.no_grad():
            norm.weight.mul_(factor)
            norm.bias.mul_(factor)
            conv.weight.div_(factor.reshape(1, -1, 1, 1))


def exam_of(plain, count=200, seed=5):
    """Accuracy on it is agreement with the float32 graph, which has 1.0."""
    shown = images(count, seed)
    return EvaluationSet(shown, logits(plain, shown).argmax(axis=1))


def right(exam: EvaluationSet, model) -> np.ndarray:
    """bool (N,): which of the exam's images a graph has right."""
    return exam.grade(logits(model, exam.images))


def top1(exam: EvaluationSet, model) -> float:
    """Share of them."""
    return float(right(exam, model).mean())
