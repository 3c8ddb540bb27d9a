"""Opens a data set by what the user typed, and hands out its images as arrays."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from evaluators.checked import Progress
from evaluators.dataset import SPLITS, TEST, TRAIN, VALIDATION, DataError, Dataset, Split
from evaluators.folders import open_folder
from evaluators.images import decoding_threads, fit, load_image, normalise

__all__ = [
    "SPLITS", "TEST", "TRAIN", "VALIDATION", "DataError", "Dataset", "Split",
    "arrays", "calibration_images", "load_image", "normalise", "open_dataset",
]  # fmt: skip


def open_dataset(spec: str | None, seed: int, cache: Path | None = None, progress: Progress | None = None) -> Dataset:
    """The set that `spec` names: None or `digits`, `cifar10[:ROOT]`, `cifar100[:ROOT]`, or an image folder.

    A folder called `digits` is opened as `./digits`. `cache` remembers which images can be decoded.
    Raises DataError.
    """
    if spec is None or spec == "digits":
        from evaluators.digits import open_digits  # scikit-learn takes a second to import

        return open_digits(seed)
    kind, _, place = spec.partition(":")
    if kind in ("cifar10", "cifar100"):
        from evaluators.cifar import open_cifar  # torchvision takes four

        return open_cifar(kind, Path(place or "data").expanduser().resolve(), seed)
    root = Path(spec).expanduser().resolve()
    try:
        return open_folder(root, seed, cache, progress)
    except PermissionError as error:
        raise DataError(f"{root} cannot be read ({error}); ask for the right to, or copy it") from error


def arrays(
    dataset: Dataset, split: str, image_px: int, cache: Path, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, image_px, image_px, 3), read from disk as they are used, and int64 labels (N,).

    Decoded once into `cache`. The file appears under its name only when whole; a second process that wants
    the same one waits for the first.
    """
    cache.mkdir(parents=True, exist_ok=True)
    whole = cache / f"{dataset.digest}-{split}-{image_px}.npy"
    part = whole.with_suffix(".part")
    if not whole.exists():
        with part.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                _decode(dataset, split, image_px, part, progress)
                part.replace(whole)
            else:  # another process was faster; what was just opened is a new, empty file
                part.unlink(missing_ok=True)
    return np.load(whole, mmap_mode="r"), np.array(dataset.splits[split].labels, dtype=np.int64)


def calibration_images(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` training images (all, if there are fewer), the classes in equal parts."""
    labels = np.array(dataset.splits[TRAIN].labels)
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    in_turn = [int(i) for i in chain(*zip_longest(*by_class)) if i is not None]
    return np.sort(np.array(in_turn[:count]))


def _decode(dataset: Dataset, split: str, image_px: int, file: Path, progress: Progress | None) -> None:
    sources = dataset.splits[split].sources
    load = _loader(dataset, image_px)
    shape = (len(sources), image_px, image_px, 3)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    with ThreadPoolExecutor(decoding_threads()) as threads:
        for start in range(0, len(sources), 64):  # a few at a time: a big set need not fit into memory
            for i, pixels in enumerate(threads.map(load, sources[start : start + 64]), start):
                images[i] = pixels
            if progress:
                progress(min(start + 64, len(sources)), len(sources))
    images.flush()


def _loader(dataset: Dataset, image_px: int) -> Callable[[str], np.ndarray]:
    """What turns a source into uint8 (image_px, image_px, 3)."""
    if dataset.kind == "folder":
        return lambda source: _load_file(dataset, source, image_px)
    picture: Callable[[str], Image.Image]
    if dataset.kind == "digits":
        from evaluators.digits import DigitPictures

        picture = DigitPictures(dataset.seed)
    else:
        from evaluators.cifar import CifarPictures

        assert dataset.root is not None  # open_cifar gives one
        picture = CifarPictures(dataset.kind, dataset.root)
    return lambda source: fit(picture(source), image_px)


def _load_file(dataset: Dataset, source: str, image_px: int) -> np.ndarray:
    assert dataset.root is not None  # open_folder gives one
    try:
        return load_image(dataset.root / source, image_px)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{dataset.root / source} could be read when the run began but not now ({error}); "
            f"put it back, or start the run again to leave it out"
        ) from error
