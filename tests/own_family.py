"""A family as a user writes one, for tests."""

NETS = """
from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from spaces.network import Variant

HALF = (0.5, 0.5, 0.5)
VARIANTS = {
    "mine_s": Variant(width=8, depth=1, mean=HALF, std=HALF),
    "mine_m": Variant(width=16, depth=1, mean=HALF, std=HALF),
}


@dataclass
class Shape:
    width: int


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    width = Shape(int(VARIANTS[variant].width)).width
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        nn.Conv2d(width, 4 * width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
"""

SPACE = """
families = ["nets.py"]
[axes]
image_px = [16, 24]
prune = [0.0, 0.5]
precision = ["fp32", "fp16"]
"""
