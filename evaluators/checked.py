"""Which images can be decoded: each is read once, and not again while it does not change."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from evaluators.images import decoding_threads, rgb

# what Pillow reads as a picture; its own list also has documents, video and formats it can only name
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "webp", "tif", "tiff"),
        *("gif", "ppm", "pgm", "pbm", "pnm", "jp2", "tga", "avif"),
    )
)
Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Checked:
    """What was seen of one image file."""

    size: tuple[int, int]  # width, height
    sha256: str
    broken: str  # empty, or why it cannot be decoded


def check_images(
    root: Path, sources: Sequence[str], cache: Path | None, progress: Progress | None
) -> dict[str, Checked]:
    """Each source (a path below root) with what was seen of it. `cache` remembers it by size and time."""
    stamps = {source: _stamp(root / source) for source in sources}
    memory = cache / "checked.json" if cache else None
    known = _remembered(memory)
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


def check(path: Path) -> Checked:
    """The image at `path`, decoded to the last byte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Checked((0, 0), "", f"cannot be read ({error.strerror})")
    digest = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            image.draft(None, (1, 1))  # a JPEG is read whole but built at 1/8 size, which is faster
            rgb(image)
    except Image.UnidentifiedImageError:
        return Checked((0, 0), digest, "not an image" if content else "an empty file")
    except Exception as error:  # which one a broken file raises is up to the plugin of its format
        return Checked((0, 0), digest, " ".join(str(error).split()) or type(error).__name__)
    return Checked(size, digest, "")


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        return f"{path} {error.strerror}"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _remembered(memory: Path | None) -> dict[str, Checked]:
    if memory is None or not memory.is_file():
        return {}
    entries = json.loads(memory.read_text(encoding="utf-8"))
    return {
        stamp: Checked(**(entry | {"size": tuple(entry["size"])}))  # JSON has no tuples
        for stamp, entry in entries.items()
    }


def _remember(memory: Path, known: dict[str, Checked]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    part = memory.with_suffix(f".{os.getpid()}.part")
    kept = {stamp: asdict(seen) for stamp, seen in known.items() if seen.sha256}  # others may be unlocked later
    part.write_text(json.dumps(kept), encoding="utf-8")
    part.replace(memory)
