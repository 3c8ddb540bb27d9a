"""Prepare images for networks: batches, augmentation, logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from evaluators.data.preprocessing import normalise
from evaluators.training.augmentation import View, views
from evaluators.training.jobs import TrainingRecipe

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean, std


def device() -> torch.device:
    """Return an accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensor(images: np.ndarray, normalisation: Normalisation) -> torch.Tensor:
    """Normalise images for a network.

    The result is contiguous, because oneDNN's backward pass of a 1x1 convolution with stride 2 crashes on some CPUs
    when its input is channels-last.

    Args:
        images: Pixels, uint8 (N, px, px, 3).
        normalisation: Mean and standard deviation by channel of pixels / 255.

    Returns:
        Network input, float32 (N, 3, px, px).
    """
    return torch.from_numpy(normalise(images, *normalisation)).to(device())


@dataclass(frozen=True)
class Batch:
    """Hold some images as the network receives them.

    Attributes:
        pixels: Network input, float32 (B, 3, px, px).
        labels: Classes, int64 (B,).
        index: Indices in the split, int64 (B,).
        view: Numbers of the exact views, see `evaluators.training.augmentation.views`, int64 (B,).
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    view: torch.Tensor


@dataclass(frozen=True)
class BatchSource:
    """Iterate over the train split in batches.

    Attributes:
        images: Pixels, uint8 (N, px, px, 3), read from disk on use.
        labels: Classes, int64 (N,).
        normalisation: Mean and standard deviation by channel of pixels / 255.
        recipe: Training recipe.
    """

    images: np.ndarray
    labels: np.ndarray
    normalisation: Normalisation
    recipe: TrainingRecipe

    @property
    def passes(self) -> int:
        """Return the number of passes through the images in an epoch."""
        return max(1, math.ceil(self.recipe.epoch_images / len(self.images)))

    def __len__(self) -> int:
        whole, rest = divmod(self.passes * len(self.images), self.recipe.batch)
        return max(whole + (rest > 1), 1)  # BatchNorm cannot learn from one image

    def epoch(self, random: np.random.Generator) -> Iterator[Batch]:
        """Yield every image equally often, shuffled, and augmented at random as the recipe defines."""
        possible = views(self.recipe.augment)
        order = np.concatenate([random.permutation(len(self.images)) for _ in range(self.passes)])
        for start in range(0, len(self) * self.recipe.batch, self.recipe.batch):
            index = order[start : start + self.recipe.batch]
            view = random.integers(0, len(possible), len(index))
            varied = self._augment(self.images[index], np.array(possible)[view], random)
            numbers = (torch.from_numpy(part).to(device()) for part in (self.labels[index], index, view))
            yield Batch(tensor(varied, self.normalisation), *numbers)

    def _augment(self, images: np.ndarray, seen: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return images as their views show them, shifted and brightened at random.

        Args:
            images: Pixels, uint8 (B, px, px, 3).
            seen: Views, (B, 3).
            random: Random generator.
        """
        count, px = images.shape[:2]
        exchanged = seen[:, 0] == 1
        if exchanged.any():
            images = np.where(exchanged[:, None, None, None], images.transpose(0, 2, 1, 3), images)
        most = round(self.recipe.shift * px) if "shift" in self.recipe.augment else 0
        down, right = random.integers(-most, most + 1, (2, count, 1))
        rows = np.clip(np.arange(px) + down, 0, px - 1)  # (B, px)
        columns = np.clip(np.arange(px) + right, 0, px - 1)
        rows = np.where(seen[:, 1:2] == 1, px - 1 - rows, rows)
        columns = np.where(seen[:, 2:] == 1, px - 1 - columns, columns)
        images = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        if "brightness" in self.recipe.augment:
            factor = random.uniform(1 - self.recipe.brightness, 1 + self.recipe.brightness, (count, 1, 1, 1))
            images = np.clip(images * factor, 0, 255).round().astype(np.uint8)
        return images


def apply_view(images: np.ndarray, view: View) -> np.ndarray:
    """Return images as an exact view shows them, without a copy.

    Args:
        images: Pixels, (N, px, px, 3).
        view: Flags as in `View`.
    """
    exchanged, rows, columns = view
    images = images.transpose(0, 2, 1, 3) if exchanged else images
    images = images[:, ::-1] if rows else images
    return images[:, :, ::-1] if columns else images


@torch.inference_mode()
def logits(net: torch.nn.Module, images: np.ndarray, normalisation: Normalisation) -> torch.Tensor:
    """Compute logits; the network is left in eval mode.

    Args:
        net: Network on the device of `device()`.
        images: Pixels, uint8 (N, px, px, 3).
        normalisation: Mean and standard deviation by channel of pixels / 255.

    Returns:
        Logits on the CPU, float32 (N, classes).
    """
    net.eval()
    parts = [images[start : start + 64] for start in range(0, len(images), 64)]
    return torch.cat([net(tensor(part, normalisation)).float().cpu() for part in parts])


@torch.no_grad()
def renew_batchnorm(net: torch.nn.Module, images: np.ndarray, normalisation: Normalisation) -> None:
    """Replace the running statistics of BatchNorm by new ones; the network is left in eval mode.

    Args:
        net: Network on the device of `device()`.
        images: Pixels whose plain mean the statistics become, uint8 (N, px, px, 3).
        normalisation: Mean and standard deviation by channel of pixels / 255.
    """
    net.eval()
    norms = [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None means a plain mean in torch
        norm.train()
    for start in range(0, len(images) - 1 if norms else 0, 64):
        net(tensor(images[start : start + 64], normalisation))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
