"""Every latency sample as it was taken, in a gzip file that a kill or a full disk can't make unreadable."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remote.files import append, write_file

SAMPLES = "samples.jsonl.gz"
MAGIC = b"\x1f\x8b\x08"  # what a gzip member begins with
PIECE = 1 << 16  # bytes that are unpacked at once


class SampleLog:
    """Lines of JSON, each a gzip member of its own: `pandas.read_json(path, lines=True)` reads them all.

    A member that a kill cut short would make all after it unreadable, so it is dropped when the file is opened.

    Args:
        path: Where they are, or will be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            data = path.read_bytes()
            whole = b"".join(data[start:end] for start, end in whole_members(data))
            if whole != data:
                write_file(path, whole)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            HostError: There is no room; nothing is left of the line.
        """
        packed = gzip.compress((json.dumps(line, default=dict) + "\n").encode(), mtime=0)
        with self._path.open("ab", buffering=0) as file:
            append(file, packed, self._path, is_synced=False)


def whole_members(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every whole member of a gzip file, whatever lies between them."""
    at = 0
    while at >= 0:
        end = _end(data, at)
        if end is not None:
            yield at, end
        at = data.find(MAGIC, at + 1 if end is None else end)


def _end(data: bytes, begin: int) -> int | None:
    """Return where the member that begins there ends; None where none does, or it is cut short or damaged."""
    reader, at = zlib.decompressobj(zlib.MAX_WBITS | 16), begin
    while not reader.eof and at < len(data):
        piece = data[at : at + PIECE]
        at += len(piece)
        try:
            reader.decompress(piece)
        except zlib.error:
            return None
    return at - len(reader.unused_data) if reader.eof else None
