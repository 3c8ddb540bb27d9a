"""Read CIFAR-10 and CIFAR-100 through torchvision from an existing folder, without downloading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from evaluators.data.dataset import TEST, TRAIN, VALIDATION, DataError, Dataset, Split, digest_of, split_stratified

SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
VALIDATION_FRACTION = 0.1


def open_cifar(kind: str, root: Path, seed: int) -> Dataset:
    """Open a CIFAR set. Its test images are the test split; 10 % of its training images, stratified, are validation.

    Args:
        kind: `cifar10` or `cifar100`.
        root: Folder that contains the unpacked set.
        seed: Seed of the split.

    Raises:
        DataError: `root` does not contain the complete set.
    """
    train, test = _read(kind, root, True), _read(kind, root, False)
    labels = np.array(train.targets)
    kept, held = split_stratified(labels, (1 - VALIDATION_FRACTION, VALIDATION_FRACTION), seed)
    splits = {
        TRAIN: Split(tuple(f"train/{i}" for i in kept), tuple(labels[kept].tolist())),
        VALIDATION: Split(tuple(f"train/{i}" for i in held), tuple(labels[held].tolist())),
        TEST: Split(tuple(f"test/{i}" for i in range(len(test))), tuple(test.targets)),
    }
    return Dataset(
        name=kind,
        kind=kind,
        root=root,
        seed=seed,
        classes=tuple(train.classes),
        splits=splits,
        note=f"its own test images; validation is 10 % of its training images, stratified, seed {seed}",
        left_out=(),
        sizes=((32, 32),),
        digest=digest_of(kind, VALIDATION_FRACTION, seed),
    )


class CifarPictures:
    """Load the pictures of sources, named `train/number` or `test/number`."""

    def __init__(self, kind: str, root: Path) -> None:
        """Load the images of a set from its folder `root`."""
        self.parts = {TRAIN: _read(kind, root, True).data, TEST: _read(kind, root, False).data}

    def __call__(self, source: str) -> Image.Image:
        """Return the picture of a source."""
        part, number = source.split("/")
        return Image.fromarray(self.parts[part][int(number)])


def _read(kind: str, root: Path, train: bool) -> CIFAR10:
    try:
        return SETS[kind](root, train=train, download=False)
    except (RuntimeError, OSError) as error:
        base, url = SETS[kind].base_folder, SETS[kind].url
        found = "the checksums do not match" if (root / base).is_dir() else "not found"
        raise DataError(
            f"{kind} in {root}: {found}; unpack {url} there "
            f"so that {root / base}/ exists, or name another folder with --data {kind}:ROOT"
        ) from error
