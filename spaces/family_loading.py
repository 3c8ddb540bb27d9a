"""Import a family from a file of the user's."""

from __future__ import annotations

import sys
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType

from spaces.family_files import digest_of, read, split
from spaces.space import SpaceError

WORDS_MAX = 200


@cache
def load_family(family: str) -> ModuleType:
    """Return a family's module; nothing is written beside its file.

    Args:
        family: Path and digest, as `spaces.family_files` names it.

    Raises:
        SpaceError: The file is gone, is not the one that was named, or can't be imported; one line.
    """
    path, digest = split(family)
    try:
        source = read(path)
    except OSError as error:
        raise SpaceError(f"family file {path}: {error.strerror or error}; put it back, or name a new --out") from None
    if digest_of(source) != digest:
        raise SpaceError(f"family file {path} was changed meanwhile: put it back as it was, or name a new --out")
    module = ModuleType(f"edgefront_family_{path.stem}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # the file may do anything
        del sys.modules[module.__name__]
        if isinstance(error, MemoryError):
            raise
        raise SpaceError(f"family file {path} can't be imported: {describe_error(error, path)}") from None
    return module


def describe_error(error: BaseException, path: Path) -> str:
    """Return what went wrong in a user's file, with the last of its lines that led there: `line 3: ValueError: no`."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    words = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {words}"[:WORDS_MAX]
