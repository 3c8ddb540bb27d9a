"""Write files so that each appears whole or not at all, however many processes write it and however they end."""

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

from remote.errors import HostError

FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a file system without room
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # errors of a machine that can open or map no more
NAME_MAX = 100  # characters of a file's name that are kept in the name of its unfinished part
PART = re.compile(r"\..+\.[0-9a-f]{12}\.part", re.DOTALL)


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
    """Remove the unfinished parts that killed processes left behind in `replace_file`.

    Args:
        folder: Folder of the files; subfolders are left alone.
        of: Name of one file, or a pattern.
        older_s: Minimum age of a part in seconds since its last write, since another process may still write it.
    """
    for part in folder.glob(f".{of[:NAME_MAX]}.*.part"):
        with contextlib.suppress(OSError):
            if PART.fullmatch(part.name) and part.is_file() and time.time() - part.stat().st_mtime >= older_s:
                part.unlink()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file at once; see `replace_file`.

    Args:
        path: The file to make or replace.
        content: Its new content; text is written as UTF-8.

    Raises:
        OSError: The folder can't be written, or has no room.
    """
    with replace_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def append(file: BinaryIO, data: bytes, path: Path, is_synced: bool = True) -> None:
    """Append to an unbuffered file. The data is on disk on return; after a failure nothing of it is left.

    Args:
        file: Opened with `path.open("ab", buffering=0)`.
        data: The bytes to append.
        path: Its name, for the message.
        is_synced: Whether the data must survive a power failure, too.

    Raises:
        HostError: There is no room, or no right to write.
        OSError: Any other error of the file system.
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

    Args:
        path: An existing file.
        size: Bytes to reserve.

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
    """Return the HostError that a failed write stands for, or None where it says nothing about this machine.

    Args:
        error: The error of a write, or of making a file.
        doing: The interrupted action, as the beginning of a sentence: `writing runs/steel`.

    Returns:
        An error with a message that says what to do, or None.
    """
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in FULL:
        return HostError(f"{doing}: no space left on the disk{where}; make room, then run the same command to resume")
    if error.errno == errno.EFBIG:
        return HostError(f"{doing}: file too large{where}; raise `ulimit -f`, then run the same command to resume")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return HostError(f"{doing}: no permission to write{where}; make it writable or name another folder")
    if error.errno in (*SHORT, errno.EAGAIN, errno.EIO, errno.ESTALE):  # EAGAIN: no more processes
        return HostError(f"{doing}: {os.strerror(error.errno)}{where}; fix that, then run the same command to resume")
    return None


def read_or_none(path: Path, parse: Callable[[str], object]) -> object | None:
    """Return the parsed content of a cached text file; None where it is missing or damaged.

    It is meant for caches alone: an unreadable entry is as good as an absent one.

    Args:
        path: The file, UTF-8.
        parse: Converts its text; may raise ValueError, KeyError or TypeError.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def home_folder() -> Path | None:
    """Return the user's home folder; None where neither HOME nor the list of users has one."""
    try:
        return Path.home()
    except RuntimeError:
        return None
