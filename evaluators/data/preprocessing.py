"""From an image file to the numbers a network sees.

`rgb`, `resized` and `fit` need Pillow and numpy alone, of old versions, too: their text is a part of the `predict.py`
that a run writes, so that a deployed model is fed what it was scored on.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from evaluators.data.image_files import open_image
from evaluators.data.resizing import SQUASH


def load_image(path: Path | str, image_px: int, resize: str = SQUASH) -> np.ndarray:
    """Return a file's image as a network sees it. For an 8-bit image that is squashed the very same as
    `np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize((px, px), Image.Resampling.BILINEAR))`.

    Args:
        path: Any file. What is no regular one is not opened.
        image_px: Side of the result.
        resize: A word of `evaluators.data.resizing.RESIZES`.

    Returns:
        uint8 (image_px, image_px, 3), RGB.

    Raises:
        OSError: It can't be decoded, or right values can't be had of it; one line. Of broken files Pillow raises
            whatever its plugin does.
    """
    with open_image(Path(path)) as image:
        return fit(image, image_px, resize)


def fit(image: Image.Image, image_px: int, resize: str = "squash") -> np.ndarray:
    """Return the image as uint8 (image_px, image_px, 3), upright and RGB."""
    return np.asarray(resize_image(rgb(image), image_px, resize))


def rgb(image: Image.Image) -> Image.Image:
    """Return the image upright in 8-bit RGB. Alpha is dropped. Of deeper pixels the full range of their type becomes
    0 to 255: of 16 bits 65535 is white, whatever the brightest pixel is."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits, kinds = tags.get(258, (8,)), tags.get(339, (1,))  # BitsPerSample, SampleFormat
    if image.mode == "F":
        raise OSError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if 2 in kinds and max(bits) < 32:
        raise OSError("signed pixels have no known range; save it with 8 or 16 bits, unsigned")
    # Pillow gives wrong values for colours plane by plane, not compressed, and for 32 bits big-endian, compressed
    planar = len(bits) > 1 and tags.get(284) == 2 and tags.get(259) == 1
    swapped = image.mode == "I" and getattr(tags, "prefix", b"") == b"MM" and tags.get(259) != 1
    if max(bits) > 8 and (planar or swapped):
        raise OSError("a TIFF whose deep pixels are stored in a way that can't be read; save it as PNG")
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
    """Return the image as a square, by `squash`, `crop` (the middle, of short side 8/7 of it) or `pad`."""
    if resize not in ("squash", "crop", "pad"):
        raise ValueError(f"resize {resize!r} is not known; there are squash, crop, pad")
    width, height = image.size
    box: tuple[float, float, float, float] = (0, 0, width, height)
    if resize == "crop":
        short, least = image_px * 8 // 7, min(width, height)
        wide, high = (int(short * side / least) for side in (width, height))
        left, top = (round((side - image_px) / 2) for side in (wide, high))
        # what is cut away is never made: a long and thin image would be of any size at this scale
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
    """float32 (N, 3, px, px), C-contiguous: `(images / 255 - mean) / std` of uint8 (N, px, px, 3)."""
    scaled = (images / np.float32(255) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def decoding_threads() -> int:
    """How many images to decode at a time: Pillow lets go of the interpreter while it decodes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
