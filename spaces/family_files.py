"""Families that lie in a file of the user's: `/home/me/nets.py@0123456789ab`, path and content.

A classifier in ONNX (`/home/me/net.onnx@0123456789ab`) is a family of one network, which is fixed: there is nothing to
train or to cut.

The content is part of the name, so nothing that was measured of an edited file is taken for the old one's; the path is
part of it, so every process can import the file. Built-in families are plain words and pass through unchanged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIX = ".py"
FIXED_SUFFIX = ".onnx"
BYTES_MAX = 1 << 20


def is_file(family: str) -> bool:
    """Return True for a family in a file."""
    return family.rpartition("@")[0].endswith(SUFFIX)


def is_fixed(family: str) -> bool:
    """Return True for a classifier in ONNX."""
    return family.rpartition("@")[0].endswith(FIXED_SUFFIX)


def split(family: str) -> tuple[Path, str]:
    """Return path and digest of a family in a file."""
    path, _, digest = family.rpartition("@")
    return Path(path), digest


def label(family: str) -> str:
    """Return the family's name for people: `nets`."""
    return split(family)[0].stem if is_file(family) or is_fixed(family) else family


def identity(family: str) -> str:
    """Return what keys are made of, wherever the file lies: `nets@0123456789ab`."""
    own = is_file(family) or is_fixed(family)
    return f"{label(family)}@{split(family)[1]}" if own else family


def family_of(path: Path) -> str:
    """Return the family in a file as it is now. Raises OSError."""
    path = path.expanduser().resolve()
    return f"{path}@{digest_of(read(path))}"


def read(path: Path) -> bytes:
    """Return a family file's content. Raises OSError for what is no file, or no text of a sensible size."""
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise OSError(f"it is longer than {BYTES_MAX} bytes")
    return content


def digest_of(content: bytes) -> str:
    """Return 12 hex digits of a content."""
    return hashlib.sha256(content).hexdigest()[:12]
