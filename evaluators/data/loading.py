"""Open the data set that the user names, and return its images as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from evaluators.cache_lock import hold_lock
from evaluators.data.dataset import TRAIN, DataError, Dataset, SplitName, digest_of
from evaluators.data.decode_check import Progress
from evaluators.data.image_folders import open_folder
from evaluators.data.preprocessing import decoding_threads, fit, load_image
from evaluators.data.resizing import SQUASH
from remote.files import SHORT, remove_parts, replace_file, reserve

IN_USE_S = 3600.0  # seconds without a write after which another process's unfinished file counts as abandoned


def open_dataset(
    spec: str | None, seed: int, cache: Path | None = None, progress: Progress | None = None, resize: str = SQUASH
) -> Dataset:
    """Open the set that `spec` names: None or `digits`, `cifar10[:ROOT]`, `cifar100[:ROOT]`, or an image folder.

    Args:
        spec: Name of the set. A folder called `digits` is opened as `./digits`.
        seed: Seed of splits that are made here.
        cache: Folder in which the results of decoding are stored; None stores none.
        progress: Called with the numbers of decoded and of all images.
        resize: Method that makes images square, one of `evaluators.data.resizing.RESIZES`.

    Raises:
        DataError: The set can't be used; one line.
    """
    dataset = _open_kind(spec, seed, cache, progress)
    if resize == SQUASH:
        return dataset
    return replace(dataset, resize=resize, digest=digest_of(dataset.digest, resize))


def _open_kind(spec: str | None, seed: int, cache: Path | None, progress: Progress | None) -> Dataset:
    if spec is None or spec == "digits":
        from evaluators.data.digits import open_digits  # the import of scikit-learn takes a second

        return open_digits(seed)
    kind, _, place = spec.partition(":")
    if kind in ("cifar10", "cifar100"):
        from evaluators.data.cifar import open_cifar  # the import of torchvision takes four

        return open_cifar(kind, Path(place or "data").expanduser().resolve(), seed)
    try:
        spec.encode()
    except UnicodeEncodeError:
        raise DataError(f"data folder {spec}: its name is not UTF-8; rename it, or name a link to it") from None
    try:
        root = Path(spec).expanduser().resolve()
        root.exists()  # raises an error for an invalid name
    except (RuntimeError, ValueError, OSError) as error:  # an unknown user's home, a zero in a name, a long name
        raise DataError(
            f"data folder {spec[:300]} cannot be opened ({str(error)[:300]}); give a folder of class folders"
        ) from error
    try:
        return open_folder(root, seed, cache, progress)
    except PermissionError as error:
        if not str(error.filename).startswith(str(root)):
            raise  # the error concerns the cache
        raise DataError(f"{spec} cannot be read ({error}); get permission to read it, or copy it") from error


def arrays(
    dataset: Dataset, split: SplitName, image_px: int, cache: Path, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a split's images, decoded once into `cache`, and its labels.

    A cached file that is truncated or has other contents is rebuilt. If another process is writing the same file, this
    one waits for it, up to a limit.

    Args:
        dataset: Data set of any kind.
        split: One of `SPLITS`.
        image_px: Side of the images, in pixels.
        cache: Folder of decoded images, which is created if it does not exist.
        progress: Called with the numbers of decoded and of all images.

    Returns:
        Images, uint8 (N, image_px, image_px, 3), read from disk on use, and labels, int64 (N,).

    Raises:
        DataError: An image can no longer be decoded.
        OSError: The cache can't be written, or the disk is full.
    """
    labels = np.array(dataset.splits[split].labels, dtype=np.int64)
    shape = (len(labels), image_px, image_px, 3)
    file = cache / f"{dataset.digest}-{split}-{image_px}-{dataset.resize}.npy"
    images = _map_cached(file, shape)
    if images is None:
        cache.mkdir(parents=True, exist_ok=True)
        with hold_lock(file.with_suffix(".lock")) as is_held:
            images = _map_cached(file, shape)  # another process may have written it meanwhile
            if images is None:
                if is_held:
                    remove_parts(file.parent, file.name, IN_USE_S)
                _decode(dataset, split, file, shape, progress)
                images = _map_cached(file, shape)
    if images is None:
        raise DataError(f"{file} is not as it was written; name another --cache")
    return images, labels


def _map_cached(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the images of a cached file; None where it is missing, truncated or of another kind."""
    try:
        images = np.load(file, mmap_mode="r")
    except MemoryError:
        raise
    except Exception as error:  # the error depends on where the file is truncated
        if isinstance(error, OSError) and error.errno in SHORT:
            raise  # this machine's fault, not the file's
        return None
    return images if isinstance(images, np.memmap) and images.dtype == np.uint8 and images.shape == shape else None


def calibration_images(dataset: Dataset, count: int, seed: int) -> np.ndarray:
    """Return sorted indices of training images for calibration, the classes in equal parts.

    Args:
        dataset: Data set of any kind.
        count: Number of images; all training images if there are fewer.
        seed: Random seed.
    """
    labels = np.array(dataset.splits[TRAIN].labels)
    order = np.random.default_rng([seed, 1]).permutation(len(labels))
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    in_turn = [int(i) for i in chain(*zip_longest(*by_class)) if i is not None]
    return np.sort(np.array(in_turn[:count]))


def _decode(dataset: Dataset, split: SplitName, file: Path, shape: tuple[int, ...], progress: Progress | None) -> None:
    """Write the file completely or not at all.

    Its disk space is reserved first, because a write to a memory map on a full disk kills the process.
    """
    sources = dataset.splits[split].sources
    load = _loader(dataset, shape[1])
    with replace_file(file) as part:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with part.open("wb") as start:
            np.lib.format.write_array_header_1_0(start, header)
            begin = start.tell()
        reserve(part, begin + math.prod(shape))
        images = np.memmap(part, dtype=np.uint8, mode="r+", offset=begin, shape=shape)
        with ThreadPoolExecutor(decoding_threads()) as threads:
            for at in range(0, len(sources), 64):  # in small parts, since a big set may not fit into memory
                for i, pixels in enumerate(threads.map(load, sources[at : at + 64]), at):
                    images[i] = pixels
                if progress:
                    progress(min(at + 64, len(sources)), len(sources))
        images.flush()


def _loader(dataset: Dataset, image_px: int) -> Callable[[str], np.ndarray]:
    """Return the function that turns a source into uint8 (image_px, image_px, 3)."""
    if dataset.kind == "folder":
        return lambda source: _load_file(dataset, source, image_px)
    picture: Callable[[str], Image.Image]
    if dataset.kind == "digits":
        from evaluators.data.digits import DigitPictures

        picture = DigitPictures(dataset.seed)
    else:
        from evaluators.data.cifar import CifarPictures

        assert dataset.root is not None  # open_cifar sets it
        picture = CifarPictures(dataset.kind, dataset.root)
    return lambda source: fit(picture(source), image_px, dataset.resize)


def _load_file(dataset: Dataset, source: str, image_px: int) -> np.ndarray:
    assert dataset.root is not None  # open_folder sets it
    try:
        return load_image(dataset.root / source, image_px, dataset.resize)
    except MemoryError:
        raise
    except Exception as error:  # the plugin of the format determines which error a broken file raises
        raise DataError(
            f"{dataset.root / source} could be read when the run began but not now ({error}); "
            f"put it back, or start the run again to leave it out"
        ) from error
