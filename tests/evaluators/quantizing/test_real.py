"""int8 of a network that knows CIFAR-10: the ladder loses a point at most, on images it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.int8_ladder import RECIPES, SHARED, Pictures, lost
from spaces import weights
from spaces.network import build, normalisation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason=f"no pretrained weights and images in {SHARED}"),
]


def cifar(split):
    folder = SHARED / "data" / "cifar10_subset"
    pixels = np.asarray(Image.open(folder / f"{split}.png")).reshape(-1, 32, 32, 3)
    order = np.random.default_rng(0).permutation(len(pixels))
    return Pictures(pixels[order], np.load(folder / f"{split}_labels.npy")[order].astype(np.int64))


@pytest.mark.parametrize("target", RECIPES)
def test_a_cifar_network_loses_a_point_at_most(target, tmp_path):
    net = build("cifar_resnet", "cifar_resnet20", 10, 32)
    weights.load(net, SHARED / "weights" / "cifar10_resnet20.safetensors")
    norm, shown = normalisation("cifar_resnet", "cifar_resnet20"), cifar("test")  # the net knows the training images
    exam, test = shown.exam(norm, slice(0, None, 2)), shown.exam(norm, slice(1, None, 2))
    loss, noise = lost(tmp_path, net.eval(), norm, 32, cifar("train"), exam, test, RECIPES[target])
    assert loss <= max(0.01, noise)
