"""Build small ResNets for images of 16 to 48 px, which train from scratch in seconds, for the demo.

Names are `res<depth>_w<width>_s<stride of the stem>`. The stem halves the image at every input size on purpose, since
the input size is an axis of the search.
"""

import torch
from torch import nn
from torch.nn import functional

from spaces.network import Variant

HALF = (0.5, 0.5, 0.5)
VARIANTS = {
    f"res{depth}_w{width}_s2": Variant(width=width, depth=depth, mean=HALF, std=HALF)
    for depth, width in ((8, 4), (8, 8), (8, 16), (8, 32), (14, 8), (14, 16))
}


class Block(nn.Module):
    """Add a shortcut, 1 x 1 if shapes differ, to two 3 x 3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        inside = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inside + self.shortcut(x))


class TinyResNet(nn.Module):
    """Classify images, (N, 3, H, W) -> (N, classes), by three stages of (depth - 2) / 6 blocks, each twice as wide."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks = [
            Block(width << max(0, stage - (n == 0)), width << stage, 2 if stage and n == 0 else 1)
            for stage in range(3)
            for n in range((depth - 2) // 6)
        ]
        self.features = nn.Sequential(stem, *blocks)
        self.classifier = nn.Linear(width << 2, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, classes) of images (N, 3, H, W)."""
        logits: torch.Tensor = self.classifier(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Not used; the network is the same at every input size.
    """
    return TinyResNet(int(VARIANTS[variant].width), VARIANTS[variant].depth, classes)
