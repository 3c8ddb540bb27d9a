"""Check which images can be decoded; each file is read once, and again only after it changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from evaluators.data.image_files import TooLargeError, decoding, open_regular, sha256
from evaluators.data.preprocessing import decoding_threads, rgb
from remote.files import SHORT, read_or_none, write_file

# formats that Pillow reads as pictures; its own list also has documents, video and formats that it only identifies
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "webp", "tif", "tiff"),
        *("gif", "ppm", "pgm", "pbm", "pnm", "jp2", "tga", "avif"),
    )
)
Progress = Callable[[int, int], None]  # done, total
VERSION = 2  # of the check: results that another version stored are discarded
DIM = 16  # of 255: deep images without brighter pixels probably have 12 bits, which the file does not declare


@dataclass(frozen=True)
class DecodedImage:
    """Describe the result of decoding one image file.

    Attributes:
        size: Width and height, in pixels.
        sha256: SHA-256 of the file.
        broken: Reason why it cannot be decoded; empty if it can.
        dim: Whether it has more than 8 bits a pixel and uses so few of them that it is nearly black.
    """

    size: tuple[int, int]
    sha256: str
    broken: str
    dim: bool = False


def check_images(
    root: Path, sources: Sequence[str], cache: Path | None, progress: Progress | None
) -> dict[str, DecodedImage]:
    """Decode every image that was not decoded before.

    Args:
        root: Folder of the set.
        sources: Paths below `root`.
        cache: Folder in which results are stored by size and time of each file; None stores none.
        progress: Called with the numbers of decoded and of all images.

    Returns:
        Results by source.
    """
    stamps = {source: _stamp(root / source) for source in sources}
    memory = cache / "checked.json" if cache else None
    known = _read_memory(memory)
    fresh = [source for source in sources if stamps[source] not in known]
    with ThreadPoolExecutor(decoding_threads()) as threads:
        for done, (source, seen) in enumerate(
            zip(fresh, threads.map(lambda s: check(root / s), fresh), strict=True), start=1
        ):
            known[stamps[source]] = seen
            if progress:
                progress(done, len(fresh))
    if memory and fresh:
        _remember(memory, known)
    return {source: known[stamps[source]] for source in sources}


def check(path: Path) -> DecodedImage:
    """Decode the image at `path` to the last byte. The check always ends, whatever kind of file it is."""
    digest = start = ""
    try:
        with open_regular(path) as file:
            digest = sha256(file)
            file.seek(0)
            start = file.read(4).decode("latin-1")
            file.seek(0)
            with decoding(file) as image:
                size = image.size
                deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
                image.draft(None, (1, 1))  # a JPEG is read completely but decoded at 1/8 size, which is faster
                seen = rgb(image)
                seen.load()
                dim = deep and 0 < int(np.asarray(seen).max()) <= DIM
    except Image.UnidentifiedImageError:
        tiff = start in ("II*\0", "MM\0*")
        unread = "an unsupported kind of TIFF; save it with 8 or 16 bits, grey or RGB" if tiff else "not an image"
        return DecodedImage((0, 0), digest, unread if start else "an empty file")
    except TooLargeError as error:
        return DecodedImage((0, 0), digest, str(error))
    except OSError as error:
        if error.errno in SHORT:
            raise  # this machine's fault, not the image's
        return DecodedImage((0, 0), digest, f"cannot be read ({error.strerror})" if error.strerror else _line(error))
    except MemoryError:
        raise
    except Exception as error:  # the plugin of the format determines which error a broken file raises
        return DecodedImage((0, 0), digest, _line(error))
    return DecodedImage(size, digest, "", dim)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        return f"{path} {error.strerror}"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _read_memory(memory: Path | None) -> dict[str, DecodedImage]:
    """Return the stored results by stamp; empty where the file is missing, truncated or of another version."""
    try:
        found = read_or_none(memory, _parse_memory) if memory else None
    except RecursionError:  # nested too deeply
        found = None
    return found if isinstance(found, dict) else {}


def _parse_memory(text: str) -> dict[str, DecodedImage]:
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("version") != VERSION or not isinstance(told.get("images"), dict):
        return {}
    found = {}
    for stamp, entry in told["images"].items():
        (width, height), digest, broken, dim = (entry[name] for name in ("size", "sha256", "broken", "dim"))
        if not (isinstance(digest, str) and isinstance(broken, str) and digest):
            raise ValueError(stamp)
        found[stamp] = DecodedImage((int(width), int(height)), digest, broken, bool(dim))
    return found


def _remember(memory: Path, known: dict[str, DecodedImage]) -> None:
    kept = {stamp: asdict(seen) for stamp, seen in known.items() if seen.sha256}  # others may become readable later
    write_file(memory, json.dumps({"version": VERSION, "images": kept}))
