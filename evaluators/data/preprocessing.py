"""Convert image files to network inputs.

`rgb`, `resize_image` and `fit` need only Pillow and numpy, including old versions: their source text becomes a part of
the `predict.py` that a run writes, so that a deployed model receives the same inputs as during scoring.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from evaluators.data.image_files import open_image
from evaluators.data.resizing import SQUASH


def load_image(path: Path | str, image_px: int, resize: str = SQUASH) -> np.ndarray:
    """Return the image of a file at the size of a network's input.

    For an 8-bit image that is squashed, the result equals
    `np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize((px, px), Image.Resampling.BILINEAR))`.

    Args:
        path: Path of any file; one that is not regular is not opened.
        image_px: Side of the result, in pixels.
        resize: Method that makes images square, one of `evaluators.data.resizing.RESIZES`.

    Returns:
        RGB pixels, uint8 (image_px, image_px, 3).

    Raises:
        OSError: The file can't be decoded, or not with correct values; one line. For broken files, Pillow raises any
            error of its plugins.
    """
    with open_image(Path(path)) as image:
        return fit(image, image_px, resize)


def fit(image: Image.Image, image_px: int, resize: str = "squash") -> np.ndarray:
    """Convert an image to the pixels of a network's input.

    Args:
        image: Image of any size and mode.
        image_px: Side of the result, in pixels.
        resize: `squash`, `crop` or `pad`.

    Returns:
        Upright RGB pixels, uint8 (image_px, image_px, 3).
    """
    return np.asarray(resize_image(rgb(image), image_px, resize))


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image to upright 8-bit RGB.

    Alpha is dropped. The full range of deeper pixels' type is scaled to 0 to 255: of 16 bits, 65535 is white, whatever
    the brightest pixel is.

    Raises:
        OSError: The pixels have no known range, or Pillow can't read them correctly.
    """
    tags = getattr(image, "tag_v2", {})  # tags of a TIFF
    bits, kinds = tags.get(258, (8,)), tags.get(339, (1,))  # BitsPerSample, SampleFormat
    if image.mode == "F":
        raise OSError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if 2 in kinds and max(bits) < 32:
        raise OSError("signed pixels have no known range; save it with 8 or 16 bits, unsigned")
    # Pillow returns wrong values for uncompressed colours in planes, and for compressed big-endian 32-bit pixels
    planar = len(bits) > 1 and tags.get(284) == 2 and tags.get(259) == 1
    swapped = image.mode == "I" and getattr(tags, "prefix", b"") == b"MM" and tags.get(259) != 1
    if max(bits) > 8 and (planar or swapped):
        raise OSError("a TIFF whose pixels of more than 8 bits are stored in an unsupported way; save it as PNG")
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise OSError("32-bit pixels beyond 0 to 65535 have no known range; save it with 8 or 16 bits")
        white = 2 ** min(bits[0], 16) - 1 if tags else 65535
        scaled = np.round(np.arange(65536) * (255.0 / white)).clip(0, 255).astype(np.uint8)
        if tags.get(262) == 0:  # PhotometricInterpretation: white is zero
            scaled = 255 - scaled
        image = Image.fromarray(scaled[deep])
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def resize_image(image: Image.Image, image_px: int, resize: str) -> Image.Image:
    """Resize an image to a square.

    Args:
        image: Image in mode RGB.
        image_px: Side of the result, in pixels.
        resize: `squash`, `crop` (the centre, after the short side is scaled to 8/7 of the result's) or `pad`.

    Raises:
        ValueError: The method is unknown.
    """
    if resize not in ("squash", "crop", "pad"):
        raise ValueError(f"unknown resize {resize!r}; accepted: squash, crop, pad")
    width, height = image.size
    box: tuple[float, float, float, float] = (0, 0, width, height)
    if resize == "crop":
        short, least = image_px * 8 // 7, min(width, height)
        wide, high = (int(short * side / least) for side in (width, height))
        left, top = (round((side - image_px) / 2) for side in (wide, high))
        # only the cropped part is computed: a long and thin image could become arbitrarily large at this scale
        right, bottom = min((left + image_px) * width / wide, width), min((top + image_px) * height / high, height)
        box = (left * width / wide, top * height / high, right, bottom)
    if resize == "pad":
        wide, high = (max(round(side / max(width, height) * image_px), 1) for side in (width, height))
        ground = Image.new("RGB", (image_px, image_px))
        corner = round((image_px - wide) / 2), round((image_px - high) / 2)
        ground.paste(image.resize((wide, high), Image.Resampling.BILINEAR), corner)
        return ground
    return image.resize((image_px, image_px), Image.Resampling.BILINEAR, box)


def normalise(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return `(images / 255 - mean) / std` as float32 (N, 3, px, px), C-contiguous.

    Args:
        images: Pixels, uint8 (N, px, px, 3).
        mean: Mean by channel of pixels / 255.
        std: Standard deviation by channel of pixels / 255.
    """
    scaled = (images / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def decoding_threads() -> int:
    """Return the number of images to decode in parallel: Pillow releases the interpreter lock while it decodes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
