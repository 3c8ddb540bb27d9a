"""Name the methods that make images square, without importing the code that resizes."""

from __future__ import annotations

from typing import TypedDict

SQUASH, CROP, PAD = "squash", "crop", "pad"
RESIZES = {
    SQUASH: "squashed to a square",
    CROP: "short side to 8/7 of the input's side, the middle cut out",
    PAD: "long side to the input's side, the rest black",
}


class Preprocessing(TypedDict, total=False):
    """Hold the steps that turn a picture into a model's input; empty where there is no model file.

    `mean` and `std` are of pixels / 255, one value per channel; `resize` is one of RESIZES.
    """

    image_px: int
    mean: list[float]
    std: list[float]
    resize: str
