"""What a data set is: sources and labels, split once, kept apart. Plain data that fits through a pipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.data.resizing import SQUASH
from remote.link.reply_parsing import printable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)


class DataError(Exception):
    """The data cannot be used as asked: one line with what was asked, what there is, and what to do. File names in it
    are made printable."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass(frozen=True)
class Split:
    """Images of one purpose. `sources[i]` is understood by the kind of set it belongs to (a path below its
    root, a number); `labels[i]` indexes the set's classes."""

    sources: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images in three splits that share none. The search sees `validation`, the report `test`."""

    name: str
    kind: str  # folder | digits | cifar10 | cifar100
    root: Path | None  # where `folder` and `cifar` lie
    seed: int
    classes: tuple[str, ...]  # printable
    splits: dict[str, Split]  # train, validation, test
    note: str  # how it was split, for people
    left_out: tuple[str, ...]  # what was passed over and why, in printable lines
    sizes: tuple[tuple[int, int], ...]  # native (width, height) that occur, the most frequent first
    digest: str  # 12 hex digits over contents, labels, splits and resizing: names the data in caches
    resize: str = SQUASH  # how an image becomes a square: a word of `evaluators.data.resizing.RESIZES`

    @property
    def native_px(self) -> int:
        """The longer side of the most frequent size."""
        return max(self.sizes[0])

    def describe(self) -> dict[str, str]:
        """Lines for people: set, classes, images per split, sizes, how it was split, what was left out."""
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


def digest_of(*parts: object) -> str:
    """12 hex digits naming these plain JSON values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def split_stratified(labels: np.ndarray, fractions: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Disjoint index sets that cover `labels`, each with the same share of every class (at least one image).

    The first set takes what the others leave. Every class needs as many images as there are sets.
    """
    shares: list[list[np.ndarray]] = [[] for _ in fractions]
    for label in np.unique(labels):
        # one stream a class: adding images to one class leaves the split of the others alone
        order = np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(labels == label))
        start = 0
        for share, fraction in zip(shares[1:], fractions[1:], strict=True):
            count = max(1, round(fraction * len(order)))
            share.append(order[start : start + count])
            start += count
        shares[0].append(order[start:])
    return [np.sort(np.concatenate(share)) for share in shares]
