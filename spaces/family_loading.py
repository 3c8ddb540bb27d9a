"""Import an architecture family from a user's file."""

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
    """Import and return a family's module; no bytecode is written beside its file.

    Args:
        family: Path and digest, in the form of `spaces.family_files`.

    Raises:
        SpaceError: The file is missing, has changed, or cannot be imported. The message is one line.
    """
    path, digest = split(family)
    try:
        source = read(path)
    except OSError as error:
        raise SpaceError(f"family file {path}: {error.strerror or error}; put it back, or name a new --out") from None
    if digest_of(source) != digest:
        raise SpaceError(f"family file {path} was changed during the run: restore it, or name a new --out")
    module = ModuleType(f"edgefront_family_{path.stem}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses need their module in sys.modules
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # a user's file may raise any exception
        del sys.modules[module.__name__]
        if isinstance(error, MemoryError):
            raise
        raise SpaceError(f"family file {path} can't be imported: {describe_error(error, path)}") from None
    return module


def describe_error(error: BaseException, path: Path) -> str:
    """Return a one-line description of an error in a user's file, such as `line 3: ValueError: no`.

    Args:
        error: The exception.
        path: The user's file; the description names the last of its lines in the traceback.

    Returns:
        At most `WORDS_MAX` characters.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    words = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {words}"[:WORDS_MAX]
