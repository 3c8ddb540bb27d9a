"""Build small networks of inverted residuals (as in MobileNetV2) for images of 16 to 48 px, for the demo.

Names are `mb_w<width>`. The stem halves the image at every input size on purpose, since the input size is an axis of
the search.
"""

import torch
from torch import nn
from torch.nn import functional

from spaces.network import Variant

HALF = (0.5, 0.5, 0.5)
VARIANTS = {f"mb_w{width}": Variant(width=width, mean=HALF, std=HALF) for width in (8, 16)}

# Stages: expansion inside the block, channels as a multiple of the width, blocks, stride of the first.
STAGES = ((1, 1, 1, 1), (4, 2, 2, 2), (4, 4, 2, 2))


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, filter each channel by 3 x 3, narrow by 1 x 1; add the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        widen = _convolution(inputs, inner, 1) if expansion > 1 else nn.Sequential()
        filters = _convolution(inner, inner, 3, stride, groups=inner)
        narrow = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.inside = nn.Sequential(widen, filters, narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        features: torch.Tensor = x + self.inside(x) if self.adds else self.inside(x)
        return features


class TinyMobile(nn.Module):
    """Classify images: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, width, 3, 2)]
        inputs = width
        for expansion, multiple, blocks, stride in STAGES:
            for n in range(blocks):
                layers.append(InvertedResidual(inputs, multiple * width, 1 if n else stride, expansion))
                inputs = multiple * width
        self.features = nn.Sequential(*layers, _convolution(inputs, 8 * width, 1))
        self.classifier = nn.Linear(8 * width, classes)

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
    return TinyMobile(int(VARIANTS[variant].width), classes)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())
