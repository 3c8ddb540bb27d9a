"""From an image file to the numbers a network sees."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def load_image(path: Path | str, image_px: int) -> np.ndarray:
    """uint8 (image_px, image_px, 3), RGB. For an 8-bit image the very same as
    `np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize((px, px), Image.BILINEAR))`.

    Raises OSError (or what Pillow raises of broken files: SyntaxError, ValueError) if it cannot be decoded.
    """
    with Image.open(path) as image:
        return fit(image, image_px)


def fit(image: Image.Image, image_px: int) -> np.ndarray:
    """uint8 (image_px, image_px, 3). Squashed, not cropped: what is looked for may sit at the border."""
    upright = ImageOps.exif_transpose(image)
    return np.asarray(rgb(upright).resize((image_px, image_px), Image.Resampling.BILINEAR))


def rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB; alpha is dropped, deep grey is scaled."""
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip at 255
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((deep / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise OSError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def normalise(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """float32 (N, 3, px, px), C-contiguous: `(images / 255 - mean) / std` of uint8 (N, px, px, 3)."""
    scaled = (images / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def decoding_threads() -> int:
    """How many images to decode at a time: Pillow lets go of the interpreter while it decodes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
