"""Open image folders: `train/ val/ test/` as they are, or class folders that are split here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.data.dataset import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    DataError,
    Dataset,
    Split,
    digest_of,
    split_stratified,
)
from evaluators.data.decode_check import EXTENSIONS, DecodedImage, Progress, check_images
from evaluators.data.unread_files import UnreadFiles, beside, images_below, no_pictures
from remote.link.reply_parsing import printable

NAMES = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
FRACTIONS = (0.7, 0.15, 0.15)  # split of class folders: train, validation, test
VALIDATION_FRACTION = 0.2  # share of train, where the folder has only one other split, which then is the test
BROKEN_MAX = 100  # maximum number of files that are listed one by one


@dataclass(frozen=True)
class ClassFolders:
    """Hold the images of one folder of class folders.

    Attributes:
        folder: Folder that contains the class folders.
        classes: Printable names of the class folders, sorted.
        split: Images; sources are sorted paths below the root of the set.
    """

    folder: Path
    classes: tuple[str, ...]
    split: Split

    def part(self, indices: np.ndarray) -> Split:
        """Return the images at some indices."""
        return Split(tuple(self.split.sources[i] for i in indices), tuple(self.split.labels[i] for i in indices))


def open_folder(root: Path, seed: int, cache: Path | None, progress: Progress | None) -> Dataset:
    """Open the set below `root` and decode every image once to verify it.

    Args:
        root: Folder of class folders, or of splits.
        seed: Seed of the split.
        cache: Folder in which the results of decoding are stored; None stores none.
        progress: Called with the numbers of decoded and of all images.

    Raises:
        DataError: The folder does not exist, has no images or only one class, a class has too few images, splits have
            different classes, or the name of a class is not UTF-8.
    """
    given = _split_folders(root)
    found = {name: _pool(root, folder) for name, folder in given.items()}
    passed = [line for _, below in found.values() for line in below.lines()]
    checked = check_images(root, [s for p, _ in found.values() for s in p.split.sources], cache, progress)
    pools = {name: _decodable(pool, checked) for name, (pool, _) in found.items()}
    classes = _same_classes(pools)
    splits, note = _splits(pools, seed)
    whole = [checked[source] for split in splits.values() for source in split.sources]
    sizes = Counter(image.size for image in whole)
    return Dataset(
        name=printable(root.name),
        kind="folder",
        root=root,
        seed=seed,
        classes=classes,
        splits=splits,
        note=printable(note)
        + _describe_shared(splits, checked)
        + _dim(whole)
        + no_pictures(below for _, below in found.values()),
        left_out=(*beside(root, given), *passed, *_broken(checked)),
        sizes=tuple(size for size, _ in sizes.most_common()),
        digest=digest_of([image.sha256 for image in whole], [split.labels for split in splits.values()]),
    )


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split; {'train': root} if `root` contains class folders to be split."""
    if not root.exists():
        raise DataError(f"no such data folder: {root}; give a folder of class folders, or leave out --data")
    if not root.is_dir():
        raise DataError(f"{root} is a file; --data takes a folder with one folder of images per class")
    found: dict[str, Path] = {}
    for entry in sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in NAMES):
        if (name := NAMES[entry.name.lower()]) in found:
            raise DataError(f"{root} has two {name} folders, {found[name].name} and {entry.name}; keep one")
        found[name] = entry
    # a class may be called "train" as well: a split holds class folders, a class holds images
    if TRAIN in found and any(p.is_dir() and not p.name.startswith(".") for p in found[TRAIN].iterdir()):
        return {name: found[name] for name in SPLITS if name in found}
    return {TRAIN: root}


def _pool(root: Path, folder: Path) -> tuple[ClassFolders, UnreadFiles]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for name in names:
        if "\udc80" <= max(name) <= "\udcff":  # bytes that are not UTF-8
            raise DataError(f"class folder {name} in {folder}: its name is not UTF-8; rename it (convmv does many)")
    shown = tuple(printable(name) for name in names)
    if not names:
        loose = sum(1 for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS)
        has = f"{loose} images but no class folders" if loose else "no class folders"
        raise DataError(f"{folder} has {has}; put the images of each class into a folder named after it")
    passed = UnreadFiles()
    labelled = [
        (path, label) for label, name in enumerate(names) for path in sorted(images_below(root, folder / name, passed))
    ]
    if not labelled:
        raise DataError(
            f"no images in {folder} (folders: {', '.join(names[:5])}); accepted: {' '.join(sorted(EXTENSIONS))}"
            + "".join(f"; {line}" for line in passed.lines()[:3])
        )
    sources, labels = zip(*labelled, strict=True)
    return ClassFolders(folder, shown, Split(sources, labels)), passed


def _broken(checked: dict[str, DecodedImage]) -> list[str]:
    """Return one line for each omitted image; of very many, the first ones and a count."""
    lines = [printable(f"{source}: {c.broken}") for source, c in sorted(checked.items()) if c.broken]
    more = len(lines) - BROKEN_MAX
    return lines if more <= 0 else [*lines[:BROKEN_MAX], f"and {more} more files that can't be decoded"]


def _dim(images: list[DecodedImage]) -> str:
    """Return a remark if images with deep pixels use only the darkest part of their range."""
    count = sum(1 for image in images if image.dim)
    return (
        f"; {count} images of 16 bits a pixel are nearly black: 65535 is white, and their values stay below 4200 "
        "(12-bit data?); scale them to the full range"
        if count
        else ""
    )


def _decodable(pool: ClassFolders, checked: dict[str, DecodedImage]) -> ClassFolders:
    whole = np.array([i for i, s in enumerate(pool.split.sources) if not checked[s].broken], dtype=np.int64)
    if not len(whole):
        first = pool.split.sources[0]
        raise DataError(
            f"none of the {len(pool.split)} images in {pool.folder} can be decoded "
            f"({first}: {checked[first].broken}); save them again as PNG or JPEG"
        )
    return ClassFolders(pool.folder, pool.classes, pool.part(whole))


def _same_classes(pools: dict[str, ClassFolders]) -> tuple[str, ...]:
    train = pools[TRAIN]
    for pool in pools.values():
        if pool.classes != train.classes:
            only = [f"{c} only in {train.folder.name}" for c in sorted({*train.classes} - {*pool.classes})]
            only += [f"{c} only in {pool.folder.name}" for c in sorted({*pool.classes} - {*train.classes})]
            raise DataError(
                f"{train.folder.name} and {pool.folder.name} of {train.folder.parent} have different "
                f"classes: {', '.join(only)}; give both the same class folders"
            )
    if len(train.classes) < 2:
        raise DataError(f"{train.folder} has a single class ({train.classes[0]}); telling apart takes two or more")
    return train.classes


def _splits(pools: dict[str, ClassFolders], seed: int) -> tuple[dict[str, Split], str]:
    """Return the three splits, and a description of how they were made."""
    pool = pools[TRAIN]
    labels = np.array(pool.split.labels)
    others = {name: p for name, p in pools.items() if name != TRAIN}
    for other in others.values():
        _enough(other, 1, "here")
    if len(others) == 2:
        _enough(pool, 1, "here")
        folders = ", ".join(p.folder.name for p in pools.values())
        return {name: pools[name].split for name in SPLITS}, f"{folders} as the folder has them"
    if len(others) == 1:
        _enough(pool, 2, "for train and validation")
        (reported,) = others.values()
        kept, held = split_stratified(labels, (1 - VALIDATION_FRACTION, VALIDATION_FRACTION), seed)
        note = (
            f"the folder's {reported.folder.name} is the test, which the search never sees; validation is "
            f"{VALIDATION_FRACTION:.0%} of its {pool.folder.name}, stratified, seed {seed}"
        )
        return {TRAIN: pool.part(kept), VALIDATION: pool.part(held), TEST: reported.split}, note
    _enough(pool, 3, "for train, validation and test")
    parts = split_stratified(labels, FRACTIONS, seed)
    shares = "/".join(f"{100 * fraction:.0f}" for fraction in FRACTIONS)
    note = f"class folders split {shares} into train, validation and test, stratified, seed {seed}"
    return {name: pool.part(part) for name, part in zip(SPLITS, parts, strict=True)}, note


def _enough(pool: ClassFolders, least: int, what_for: str) -> None:
    counts = np.bincount(pool.split.labels, minlength=len(pool.classes))
    few = [f"{name} has {n}" for name, n in zip(pool.classes, counts, strict=True) if n < least]
    if few:
        raise DataError(
            f"too few images in {pool.folder}: {', '.join(few)}; each class needs at least {least} "
            f"{what_for}: add images or remove the folder"
        )


def _describe_shared(splits: dict[str, Split], checked: dict[str, DecodedImage]) -> str:
    """Return a remark if two splits contain identical files: test accuracy then partly reflects memorisation."""
    where: dict[str, set[str]] = {}
    for name, split in splits.items():
        for source in split.sources:
            where.setdefault(checked[source].sha256, set()).add(name)
    twice = sum(1 for names in where.values() if len(names) > 1)
    return f"; {twice} images are in more than one split, byte for byte" if twice else ""
