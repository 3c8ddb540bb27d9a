"""Store every latency sample in a gzip file that stays readable after a kill or on a full disk."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from evaluators.measurement import Block
from remote.files import append, write_file

SAMPLES = "samples.jsonl.gz"
MAGIC = b"\x1f\x8b\x08"  # first bytes of a gzip member
PIECE = 1 << 16  # bytes that are decompressed at once


class SampleLog:
    """Store lines of JSON, each in its own gzip member; `pandas.read_json(path, lines=True)` reads them all.

    A member that a kill truncated would make all later ones unreadable, so opening the file drops it.

    Args:
        path: File of the samples; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            data = path.read_bytes()
            whole = b"".join(data[start:end] for start, end in whole_members(data))
            if whole != data:
                write_file(path, whole)

    def add(self, line: Mapping[str, object]) -> None:
        """Append a line.

        Raises:
            HostError: The disk is full; no part of the line remains.
        """
        packed = gzip.compress((json.dumps(line, default=dict) + "\n").encode(), mtime=0)
        with self._path.open("ab", buffering=0) as file:
            append(file, packed, self._path, is_synced=False)

    def add_block(self, name: str, block: Block) -> None:
        """Append a raw block.

        Args:
            name: Key of the candidate, or `reference RUNTIME`.
            block: Timed block.

        Raises:
            HostError: The disk is full; no part of the line remains.
        """
        self.add({"candidate": name, **asdict(block)})


def whole_members(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every complete member of a gzip file, whatever bytes lie between them."""
    at = 0
    while at >= 0:
        end = _end(data, at)
        if end is not None:
            yield at, end
        at = data.find(MAGIC, at + 1 if end is None else end)


def _end(data: bytes, begin: int) -> int | None:
    """Return the end of the member that begins there; None if there is none, or it is truncated or damaged."""
    reader, at = zlib.decompressobj(zlib.MAX_WBITS | 16), begin
    while not reader.eof and at < len(data):
        piece = data[at : at + PIECE]
        at += len(piece)
        try:
            reader.decompress(piece)
        except zlib.error:
            return None
    return at - len(reader.unused_data) if reader.eof else None
