"""Define a data set as plain, picklable data: sources and labels, split once into disjoint parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from evaluators.data.resizing import SQUASH
from remote.errors import UserError
from remote.link.reply_parsing import printable

SplitName = Literal["train", "validation", "test"]
TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
SPLITS = (TRAIN, VALIDATION, TEST)


class DataError(UserError):
    """Raised when the data cannot be used as requested.

    The message is one line with the request, what exists, and a remedy. File names in it are made printable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class Split:
    """Hold the images of one purpose.

    Attributes:
        sources: Image names as the kind of set defines them (a path below its root, a number).
        labels: Index of each image's class in the classes of the set.
    """

    sources: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Hold labelled images in three disjoint splits. The search uses `validation`, the report `test`.

    Attributes:
        name: Display name.
        kind: folder | digits | cifar10 | cifar100.
        root: Folder of the images; None for `digits`.
        seed: Seed of the split.
        classes: Printable class names.
        splits: Splits `train`, `validation` and `test`.
        note: Description of the split for the report.
        left_out: Printable lines with the images that were omitted and the reasons.
        sizes: Native (width, height) of the images, most frequent first.
        digest: 12 hex digits over contents, labels, splits and resizing, which name the data in caches.
        resize: Method that makes images square, one of `evaluators.data.resizing.RESIZES`.
    """

    name: str
    kind: str
    root: Path | None
    seed: int
    classes: tuple[str, ...]
    splits: dict[str, Split]
    note: str
    left_out: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    digest: str
    resize: str = SQUASH

    def describe(self) -> dict[str, str]:
        """Return lines for the report: set, classes, images per split, sizes, kind of split, omitted images."""
        count = {name: len(split) for name, split in self.splits.items()}
        width, height = self.sizes[0]
        others = f" and {len(self.sizes) - 1} other sizes" if len(self.sizes) > 1 else ""
        lines = {
            "set": self.name,
            "classes": f"{len(self.classes)}: {', '.join(self.classes)}",
            "images": ", ".join(f"{n} {name}" for name, n in count.items()),
            "size": f"{width}x{height}{others}",
            "split": self.note,
        }
        return lines | ({"left out": "; ".join(self.left_out)} if self.left_out else {})


def cap_validation(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return the data set with about `count` validation images if it has more, every class with its share of them.

    The test split stays whole. The capped set has a digest of its own: accuracies on other images are not mixed.

    Args:
        dataset: Data set of any kind.
        count: Number of validation images; each class keeps at least one.
        seed: Random seed of the choice.
    """
    validation = dataset.splits[VALIDATION]
    if len(validation) <= count:
        return dataset
    labels = np.array(validation.labels)
    _, kept = split_stratified(labels, (1 - count / len(labels), count / len(labels)), seed)
    part = Split(tuple(validation.sources[i] for i in kept), tuple(validation.labels[i] for i in kept))
    return replace(
        dataset,
        splits=dataset.splits | {VALIDATION: part},
        note=f"{dataset.note}; {len(part)} of {len(validation)} validation images are used (--val-images)",
        digest=digest_of(dataset.digest, "validation", count, seed),
    )


def digest_of(*parts: object) -> str:
    """Return 12 hex digits that identify these plain JSON values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def split_stratified(labels: np.ndarray, fractions: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Split indices into disjoint sets that cover `labels`, each with the same share of every class.

    The first set takes the images that the others leave. Each set gets at least one image of every class, so every
    class needs as many images as there are sets.

    Args:
        labels: Class of each image, integers (N,).
        fractions: Share of each set, 0..1.
        seed: Random seed.

    Returns:
        Sorted indices of each set.
    """
    shares: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels):
        # one random stream per class: adding images to one class does not change the split of the others
        order = np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(labels == label))
        start = 0
        for share, fraction in zip(shares[1:], fractions[1:], strict=True):
            count = max(1, round(fraction * len(order)))
            share.append(order[start : start + count])
            start += count
        shares[0].append(order[start:])
    return [np.sort(np.concatenate(share)) for share in shares]
