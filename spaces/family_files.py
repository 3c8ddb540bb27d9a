"""Name families that are defined in a user's file by path and content: `/home/me/nets.py@0123456789ab`.

An ONNX classifier (`/home/me/net.onnx@0123456789ab`) is a family of one fixed network, which is neither trained nor
compressed.

The name contains a digest of the content, so measurements of an edited file are never mixed with those of the old one.
It contains the path, so every process can import the file. Built-in families are plain words and pass through
unchanged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIX = ".py"
FIXED_SUFFIX = ".onnx"
BYTES_MAX = 1 << 20


def is_file(family: str) -> bool:
    """Return whether a family is defined in a user's Python file.

    Args:
        family: Name as in `Candidate.family`.
    """
    return family.rpartition("@")[0].endswith(SUFFIX)


def is_fixed(family: str) -> bool:
    """Return whether a family is a fixed ONNX classifier.

    Args:
        family: Name as in `Candidate.family`.
    """
    return family.rpartition("@")[0].endswith(FIXED_SUFFIX)


def split(family: str) -> tuple[Path, str]:
    """Split the name of a family in a file.

    Args:
        family: Name of the form `path@digest`.

    Returns:
        Path of the file, and digest of its content as 12 hex digits.
    """
    path, _, digest = family.rpartition("@")
    return Path(path), digest


def label(family: str) -> str:
    """Return the family's short name for reports and tables.

    Args:
        family: Name as in `Candidate.family`.

    Returns:
        Stem of a user's file, such as `nets`; the name of a built-in family unchanged.
    """
    return split(family)[0].stem if is_file(family) or is_fixed(family) else family


def identity(family: str) -> str:
    """Return the name from which candidate keys are computed, which does not depend on the file's folder.

    Args:
        family: Name as in `Candidate.family`.

    Returns:
        Stem and digest of a user's file, such as `nets@0123456789ab`; the name of a built-in family unchanged.
    """
    own = is_file(family) or is_fixed(family)
    return f"{label(family)}@{split(family)[1]}" if own else family


def family_of(path: Path) -> str:
    """Return the family's name for a file with its current content.

    Raises:
        OSError: The file cannot be read.
    """
    path = path.expanduser().resolve()
    return f"{path}@{digest_of(read(path))}"


def read(path: Path) -> bytes:
    """Return a family file's content.

    Raises:
        OSError: The path is not a file, the file is longer than `BYTES_MAX`, or it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError("no such file")
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise OSError(f"it is longer than {BYTES_MAX} bytes")
    return content


def digest_of(content: bytes) -> str:
    """Return the first 12 hex digits of the content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]
