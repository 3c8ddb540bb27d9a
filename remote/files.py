"""Write files so that each appears whole or not at all, whoever else writes it and however the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

FULL = (errno.ENOSPC, errno.EDQUOT)  # what a file system without room answers
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what a machine answers that can open or map no more
NAME_MAX = 100  # characters of a file's name that the name of its unfinished form has
PART = re.compile(r"\..+\.[0-9a-f]{12}\.part", re.DOTALL)


class HostError(Exception):
    """Raised when this machine, not a device or a candidate, can't go on: no disk, no memory, no right to write.

    The message is one line that says what was asked and what to do. Nothing is recorded of the candidate whose work it
    interrupted: with room, the same command goes on.
    """


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Context manager that yields a new file to be written and puts it in the place of `path` when all went well.

    The new file lies beside `path` under a name of its own, so that two processes that write the same file never share
    a part of it: the last to end wins. It is on disk before it is renamed, and it is removed if the block raises.

    Args:
        path: The file to make or replace. Its folder is made where it is missing; a link stays a link.

    Yields:
        The path to write to. It exists and is empty.

    Raises:
        OSError: The folder can't be written, or has no room.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:NAME_MAX]}.{uuid.uuid4().hex[:12]}.part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def remove_parts(folder: Path, of: str = "*", older_s: float = 0.0) -> None:
    """Remove what killed processes left of files that they were writing by `replace_file`.

    Args:
        folder: Where the files lie; not those below.
        of: Name of the one file that is meant, or a pattern.
        older_s: Seconds for which nothing was written to what is removed: another process may be at work.
    """
    for part in folder.glob(f".{of[:NAME_MAX]}.*.part"):
        with contextlib.suppress(OSError):
            if PART.fullmatch(part.name) and part.is_file() and time.time() - part.stat().st_mtime >= older_s:
                part.unlink()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file at once; text is UTF-8. See `replace_file`."""
    with replace_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def append(file: BinaryIO, data: bytes, path: Path, is_synced: bool = True) -> None:
    """Append to an unbuffered file, on disk when this returns; where that fails nothing is left of it.

    Args:
        file: Opened with `path.open("ab", buffering=0)`.
        data: What to append.
        path: Its name, for the message.
        is_synced: Whether it must survive a power failure, too.

    Raises:
        HostError: There is no room, or no right to write.
        OSError: Anything else.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        if is_synced:
            os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        if isinstance(error, OSError) and (found := host_error(error, f"writing {path}")):
            raise found from None
        raise


def reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk for a file that will be mapped into memory.

    A sparse file that is mapped raises no error when the disk is full: the process is killed by SIGBUS.

    Raises:
        OSError: With errno ENOSPC where there is no room.
    """
    with path.open("rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])


def host_error(error: OSError, doing: str) -> HostError | None:
    """Return what a failed write says of this machine, or None where it says nothing of it.

    Args:
        error: What a write, or the making of a file, raised.
        doing: What was being done, as the beginning of a sentence: `writing runs/steel`.
    """
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in FULL:
        return HostError(f"{doing}: no space left on the disk{where}; make room, and the same command goes on")
    if error.errno == errno.EFBIG:
        return HostError(f"{doing}: file too large{where}; raise `ulimit -f`, and the same command goes on")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return HostError(f"{doing}: not allowed to write{where}; make it writable or name another folder")
    if error.errno in (*SHORT, errno.EAGAIN, errno.EIO, errno.ESTALE):  # EAGAIN: no more processes
        return HostError(f"{doing}: {os.strerror(error.errno)}{where}; when that is mended, the same command goes on")
    return None


def read_or_none(path: Path, parse: Callable[[str], object]) -> object | None:
    """Return what `parse` makes of a cached text file; None where it is missing or damaged.

    For caches alone, whose unreadable entries are as good as absent ones.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
