"""Build ResNets for 32 px images (He et al. 2015, section 4.2): three stages, shortcuts without parameters (option A).

A shortcut of option A pads channels, which ties the stages' widths together. Pruning therefore narrows only the inside
of each block (`fixed_layers` keep their width), and multiply-accumulates fall with the amount, not with its square.
"""

import torch
from torch import nn
from torch.nn import functional

from spaces.network import Variant

VARIANTS = {
    f"cifar_resnet{depth}": Variant(width=16, depth=depth, file=f"cifar10_resnet{depth}") for depth in (20, 32, 44, 56)
}


class Block(nn.Module):
    """Add a shortcut to two 3 x 3 convolutions: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        inside = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inside + self._shortcut(x))

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if not self.missing:
            return x
        thinned = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(thinned, (0, 0, 0, 0, self.missing // 2, self.missing // 2))


class CifarResNet(nn.Module):
    """Classify images with 6 n + 2 layers: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1)
        self.layer2 = _stage(width, 2 * width, blocks, 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)
        self.fixed_layers = ("conv1", *(n for n, _ in self.named_modules() if n.endswith(".conv2")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, classes) of images (N, 3, H, W)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Not used; the stem has no stride, so the network is the same at every input size.
    """
    return CifarResNet(int(VARIANTS[variant].width), VARIANTS[variant].depth, classes)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
