"""Image folders for tests."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 14)) -> Path:
    """A noisy picture, different for every seed, in the format its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def image_folder(root: Path, counts: Mapping[str, int]) -> Path:
    """`counts`: class folder (`train/cat`) -> how many pictures it gets."""
    root.mkdir(parents=True, exist_ok=True)
    seed = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(root / folder / f"{number:03}.png", seed)
            seed += 1
    return root
