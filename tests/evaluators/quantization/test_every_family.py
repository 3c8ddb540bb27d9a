"""What other precisions keep of every family, from the same exported graphs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.export.onnx_export import export
from evaluators.export.operator_support import ceiling
from evaluators.quantization.host_scoring import logits
from evaluators.quantization.precision import layout, to_precision
from evaluators.quantization.qdq import prepare
from evaluators.quantization.torch_graph import TorchGraph
from evaluators.stages.structure import random_net
from spaces.candidate import Candidate
from spaces.network import family_names, variants
from tests.evaluators.quantization.nets import PX, RECIPES, images

QUICK = ("mobilenet_v3", "tiny_mobile", "tiny_resnet")
SEEDS = (0, 1)


def recipes(family):
    """A symmetric one quantizes fewer kinds of operators, which families have or not; bits of weights do not count."""
    return {name: recipe for name, recipe in RECIPES.items() if family in QUICK or name != "cpu without VNNI"}


@pytest.fixture(
    scope="module", params=[pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in family_names()]
)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def graphs(family, tmp_path_factory) -> Path:
    """The folder of a family's graphs of two seeds: `fp32 0.onnx`, `TensorRT 0.onnx` and so on, and `fp16 0.onnx`."""
    folder = tmp_path_factory.mktemp(family)
    for seed in SEEDS:
        torch.manual_seed(seed)
        net = random_net(Candidate(family=family, variant=next(iter(variants(family))), image_px=PX), 7)
        export(net, PX, folder / f"fp32 {seed}.onnx")
        shown = images(4, seed) * np.float32(1 + seed)
        for name, recipe in recipes(family).items():
            to_precision(folder / f"fp32 {seed}.onnx", folder / f"{name} {seed}.onnx", "int8", recipe, shown)
    to_precision(folder / "fp32 0.onnx", folder / "fp16 0.onnx", "fp16", calibration=images(2))
    return folder


def test_random_and_other_weights_have_one_layout(family, graphs):
    """What is timed before training is what is scored after it."""
    for name in recipes(family):
        first, other, plain = (layout(graphs / f"{which}.onnx") for which in (f"{name} 0", f"{name} 1", "fp32 0"))
        assert first == other != plain, name


def test_every_family_stays_below_the_ceiling_at_every_precision(graphs):
    """A runtime for TensorRT reads them all; its int8 is symmetric."""
    for name in ("fp32", "fp16", "TensorRT"):
        assert ceiling(graphs / f"{name} 0.onnx", 13, ("tensorrt", "onnxruntime")) == [], name


def test_every_family_is_replayed_in_torch_and_takes_batches(graphs):
    plain, shown = prepare(graphs / "fp32 0.onnx"), images(2)
    with torch.inference_mode():
        replayed = TorchGraph(plain, torch.device("cpu"))(torch.from_numpy(shown)).numpy()
    assert np.abs(replayed - logits(plain, shown)).max() < 2e-3 * np.abs(logits(plain, shown)).max()
