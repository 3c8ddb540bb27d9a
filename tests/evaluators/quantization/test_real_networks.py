"""int8 of a network that knows CIFAR-10: the ladder loses a point at most, on images it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators.data.preprocessing import normalise
from evaluators.export.onnx_export import export
from evaluators.measurement import standard_error
from evaluators.quantization.host_scoring import EvaluationSet
from evaluators.quantization.ladder import climb
from evaluators.quantization.qat import tune
from evaluators.quantization.qdq import prepare
from evaluators.training.batches import BatchSource
from evaluators.training.jobs import LadderConfig, TrainingRecipe
from spaces import weights
from spaces.network import build, normalisation
from tests.evaluators.quantization.nets import RECIPES, top1

SHARED = Path(__file__).parents[4] / "shared"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason=f"no pretrained weights and images in {SHARED}"),
]


def cifar(split):
    """uint8 (N, 32, 32, 3) and labels (N,), shuffled."""
    folder = SHARED / "data" / "cifar10_subset"
    pixels = np.asarray(Image.open(folder / f"{split}.png")).reshape(-1, 32, 32, 3)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order], np.load(folder / f"{split}_labels.npy")[order].astype(np.int64)


@pytest.mark.parametrize("target", RECIPES)
def test_a_cifar_network_loses_a_point_at_most(target, tmp_path):
    net = build("cifar_resnet", "cifar_resnet20", 10, 32)
    weights.load(net, SHARED / "weights" / "cifar10_resnet20.safetensors")
    export(net.eval(), 32, tmp_path / "fp32.onnx")
    norm, plain, ladder = (
        normalisation("cifar_resnet", "cifar_resnet20"),
        prepare(tmp_path / "fp32.onnx"),
        LadderConfig(),
    )
    (seen, known), (unseen, labels) = cifar("train"), cifar("test")
    judge, test = (EvaluationSet(normalise(unseen[half::2], *norm), labels[half::2]) for half in (0, 1))
    feed = BatchSource(seen, known, norm, TrainingRecipe(epoch_images=500))
    calibration = normalise(seen[:64], *norm)
    climbed = climb(
        plain,
        RECIPES[target],
        exam=judge,
        calibration=calibration,
        ladder=ladder,
        tune=lambda plan: tune(plan, plain, feed, ladder),
    )
    fp32, int8 = top1(test, plain), top1(test, climbed.graph)
    noise = standard_error(round(fp32 * len(test.labels)), len(test.labels))
    assert fp32 - int8 <= max(0.01, noise), [(rung.name, rung.top1, rung.note) for rung in climbed.rungs]
