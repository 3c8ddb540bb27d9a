"""Open image files of unknown content: never block on a pipe, and decode no more at once than fits into memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from remote.errors import EdgefrontError

BYTES_MAX = 10**9  # of a file: size of the largest image with 16 bits and four channels
PIXELS_MAX = 10**8  # of an image
AT_ONCE = 2 * 10**8  # pixels that all threads together decode at the same time, at about 8 bytes each
LARGE_BYTES = 1 << 24  # only one larger file is open at a time: some formats are read whole to find their size
KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
         stat.S_IFDIR: "a folder"}  # fmt: skip

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # this module has its own limit


class TooLargeError(EdgefrontError, OSError):
    """Raised for a file or an image beyond the limits."""


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Context manager that opens a regular file of at most `BYTES_MAX` for reading.

    Raises:
        OSError: It is not a regular file, can't be read, or is too large (TooLargeError).
    """
    _regular(path.stat())  # before opening: to open a device may have side effects
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _regular(os.fstat(file.fileno()))
        yield file


def _regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{KINDS.get(stat.S_IFMT(found.st_mode), 'something')}, not a file")
    if found.st_size > BYTES_MAX:
        raise TooLargeError(f"larger than {BYTES_MAX // 10**6} MB, the limit")


def sha256(file: BinaryIO) -> str:
    """Return the digest of the remaining bytes of an open file. Raises TooLargeError if they exceed `BYTES_MAX`."""
    digest, left = hashlib.sha256(), BYTES_MAX
    while block := file.read(1 << 20):
        digest.update(block)
        left -= len(block)
        if left < 0:
            raise TooLargeError(f"larger than {BYTES_MAX // 10**6} MB, the limit")
    return digest.hexdigest()


@contextlib.contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Context manager that opens an image, which is decoded on first use.

    Raises:
        OSError: `open_regular` fails, the image has more than `PIXELS_MAX` pixels, or the file is not an image.
    """
    with open_regular(path) as file, decoding(file) as image:
        yield image


@contextlib.contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Context manager that opens the image in an open file, and waits until enough memory is free to decode it."""
    large = os.fstat(file.fileno()).st_size > LARGE_BYTES
    with _LARGE if large else contextlib.nullcontext():
        try:
            opened = Image.open(file)
        except Image.DecompressionBombError:
            raise _too_many() from None
        with opened as image:
            pixels = image.width * image.height
            if pixels > PIXELS_MAX:
                raise _too_many()
            with _ROOM.claim(pixels):
                yield image


def _too_many() -> TooLargeError:
    return TooLargeError(f"more than {PIXELS_MAX // 10**6} megapixels, the limit; scale it down")


class _MemoryShare:
    """Share a fixed amount of decoding work between threads."""

    def __init__(self, size: int) -> None:
        self._left, self._changed = size, threading.Condition()

    @contextlib.contextmanager
    def claim(self, share: int) -> Iterator[None]:
        """Context manager that waits for a share and returns it. A share must not exceed the whole."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= share)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()


_ROOM, _LARGE = _MemoryShare(AT_ONCE), threading.Lock()
