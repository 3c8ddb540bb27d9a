"""Build MobileNetV1 (Howard et al. 2017) at widths 0.25 and 0.5, with TensorFlow's SAME padding.

Layer names are those of the converted Keras and TensorFlow weights: `features.0` convolution, batch norm, ReLU6;
`features.1..13` depthwise (0), batch norm (1), pointwise (3), batch norm (4).
"""

import torch
from torch import nn
from torch.nn import functional

from spaces.network import Variant, fit_stem

HALF = (0.5, 0.5, 0.5)
VARIANTS = {
    "mobilenet_v1_025": Variant(width=0.25, mean=HALF, std=HALF),
    "mobilenet_v1_050": Variant(width=0.5, mean=HALF, std=HALF),
}
WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
HALVING = (2, 4, 6, 12)  # blocks of stride 2, counted from 1


class SameConv2d(nn.Conv2d):
    """Convolve by 3 x 3 with TensorFlow's padding: at stride 2 an even input is padded only right and below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad and convolve (N, inputs, H, W)."""
        total = 1 if self.stride[0] == 2 and int(x.shape[-1]) % 2 == 0 else 2
        before = total // 2
        return super().forward(functional.pad(x, (before, total - before) * 2))


class MobileNetV1(nn.Module):
    """Classify images: (N, 3, H, W) -> (N, classes); `width` scales every channel count."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        channels = [int(32 * width), *(int(n * width) for n in WIDTHS)]
        stem = nn.Sequential(SameConv2d(3, channels[0], 3, 2, bias=False), _norm(channels[0]), nn.ReLU6())
        blocks = [_block(channels[i - 1], channels[i], 2 if i in HALVING else 1) for i in range(1, len(channels))]
        self.features = nn.Sequential(stem, *blocks)
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits (N, classes) of images (N, 3, H, W)."""
        logits: torch.Tensor = self.classifier(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Side of the square input in px; it decides how many halvings the stem keeps.
    """
    return fit_stem(MobileNetV1(VARIANTS[variant].width, classes), image_px, conv="features.0.0")


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        SameConv2d(inputs, inputs, 3, stride, groups=inputs, bias=False),
        _norm(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        _norm(outputs),
        nn.ReLU6(),
    )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
