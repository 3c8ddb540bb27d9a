"""CIFAR-10 and CIFAR-100 as torchvision reads them, from a folder that has them. Never downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from evaluators.data.dataset import TEST, TRAIN, VALIDATION, DataError, Dataset, Split, digest_of, split_stratified

SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
VALIDATION_FRACTION = 0.1


def open_cifar(kind: str, root: Path, seed: int) -> Dataset:
    """Their test images are test; 10 % of their training images, the same of each class, are validation.

    Raises DataError if `root` does not hold the set, whole.
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
    """The picture of a source, `train/number` or `test/number`."""

    def __init__(self, kind: str, root: Path) -> None:
        self.parts = {TRAIN: _read(kind, root, True).data, TEST: _read(kind, root, False).data}

    def __call__(self, source: str) -> Image.Image:
        part, number = source.split("/")
        return Image.fromarray(self.parts[part][int(number)])


def _read(kind: str, root: Path, train: bool) -> CIFAR10:
    try:
        return SETS[kind](root, train=train, download=False)
    except (RuntimeError, OSError) as error:
        base, url = SETS[kind].base_folder, SETS[kind].url
        found = "its checksums do not agree" if (root / base).is_dir() else "it is not there"
        raise DataError(
            f"{kind} was asked for from {root}, but {found}: unpack {url} there "
            f"so that {root / base}/ exists, or name another folder with --data {kind}:ROOT"
        ) from error
