"""Generate the embedded set: scikit-learn's digits, made hard enough that architectures and input sizes differ."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from evaluators.data.dataset import SPLITS, Dataset, Split, digest_of, split_stratified

GROUND_PX = 48
SIDE_PX = (12, 32)  # smallest and largest digit
NOISE = 0.25  # standard deviation, for pixel values 0..1
FRACTIONS = (0.6, 0.2, 0.2)  # shares of the 1,797 originals
DRAWS = (2, 1, 1)  # pictures generated from each original


def open_digits(seed: int) -> Dataset:
    """Open train, validation and test pictures of the ten digits. Each original is in one split only."""
    originals = load_digits()
    parts = split_stratified(originals.target, FRACTIONS, seed)
    splits = {
        name: Split(
            tuple(f"{index}/{draw}" for index in part for draw in range(draws)),
            tuple(int(originals.target[index]) for index in part for _ in range(draws)),
        )
        for name, part, draws in zip(SPLITS, parts, DRAWS, strict=True)
    }
    return Dataset(
        name="digits",
        kind="digits",
        root=None,
        seed=seed,
        classes=tuple(str(digit) for digit in range(10)),
        splits=splits,
        note=(
            f"made from scikit-learn's digits, not photographs: each 8x8 digit at a random scale "
            f"({SIDE_PX[0]} to {SIDE_PX[1]} px) and place on a noisy {GROUND_PX} px ground (noise {NOISE}), "
            f"seed {seed}; {DRAWS[0]} pictures of each train digit, 1 of each other, "
            f"no digit in two splits"
        ),
        left_out=(),
        sizes=((GROUND_PX, GROUND_PX),),
        digest=digest_of("digits", seed, GROUND_PX, SIDE_PX, NOISE, FRACTIONS, DRAWS),
    )


class DigitPictures:
    """Generate the pictures of sources, named `original/draw`. The same source and seed give the same picture."""

    def __init__(self, seed: int) -> None:
        """Load the originals; `seed` varies the pictures."""
        self.originals = load_digits().images / 16.0  # (1797, 8, 8), 0..1
        self.seed = seed

    def __call__(self, source: str) -> Image.Image:
        """Return the picture of a source."""
        index, draw = (int(part) for part in source.split("/"))
        random = np.random.default_rng([self.seed, index, draw])
        side = int(random.integers(SIDE_PX[0], SIDE_PX[1] + 1))
        top, left = random.integers(0, GROUND_PX - side + 1, size=2)
        digit = Image.fromarray((255 * self.originals[index]).round().astype(np.uint8))
        ground = random.normal(0.0, NOISE, (GROUND_PX, GROUND_PX))
        ground[top : top + side, left : left + side] += (
            np.asarray(digit.resize((side, side), Image.Resampling.BILINEAR)) / 255.0
        )
        return Image.fromarray((255 * np.clip(ground, 0, 1)).round().astype(np.uint8))
