"""The device's lock on file systems whose locks are not those of a local disk, by flock as each of them answers."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from tests.remote.runtimes.loading import part

FLOCK = fcntl.flock


def nfs(fd: int, how: int) -> None:
    """An exclusive lock only through a descriptor that is open for writing (flock(2))."""
    if how & fcntl.LOCK_EX and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    FLOCK(fd, how)


def lockless(number: int):
    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.fixture
def turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A device's lock in a folder that all share, with a folder of the user's own beside it."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("EDGEFRONT_LOCK_DIR", str(tmp_path / "shared"))
    return part("device_lock").DeviceLock(str(tmp_path / "own"))


def got(turn, alone: bool = True, seconds: float = 5.0) -> tuple[int, list[str], list[str]]:
    """(descriptor, who was waited for, what was said of the lock), given up after some seconds."""
    waited: list[str] = []
    said: list[str] = []
    gone = threading.Event()
    end = threading.Timer(seconds, gone.set)
    end.start()
    try:
        return turn.acquire(alone, waited.append, gone, said.append), waited, said
    finally:
        end.cancel()


@pytest.mark.parametrize("flock", [FLOCK, nfs], ids=["local", "nfs"])
@pytest.mark.parametrize("alone", [True, False])
def test_turn_on_a_device_nobody_uses_comes_at_once(turn, monkeypatch, flock, alone):
    monkeypatch.setattr(fcntl, "flock", flock)
    began_s = time.monotonic()
    fd, waited, said = got(turn, alone)
    os.close(fd)
    assert time.monotonic() - began_s < 1 and not waited and not said
    assert Path(turn.folder, "edgefront.lock").stat().st_mode & 0o777 == 0o666  # others take their turn by it too


@pytest.mark.parametrize("flock", [FLOCK, nfs], ids=["local", "nfs"])
def test_turn_of_another_is_waited_for(turn, monkeypatch, flock):
    monkeypatch.setattr(fcntl, "flock", flock)
    fd, _, _ = got(turn)
    threading.Timer(0.5, os.close, [fd]).start()
    began_s = time.monotonic()
    second, waited, _ = got(turn)
    os.close(second)
    assert 0.3 < time.monotonic() - began_s < 4 and waited, "it was held for half a second"


def only_readable(turn, monkeypatch) -> None:
    """Another user's file, as earlier versions made it; for root by the descriptor's own flags."""
    Path(turn.folder, "edgefront.lock").touch(mode=0o444)
    opened = os.open

    def refusing(path, flags, *mode):
        if str(path).startswith(str(turn.folder)) and flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "not yours", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)


def test_lock_of_another_user_is_read_on_a_local_disk(turn, monkeypatch):
    only_readable(turn, monkeypatch)
    fd, waited, said = got(turn)
    os.close(fd)
    assert not waited and not said


def test_lock_of_another_user_on_nfs_gives_way_to_ones_own_and_says_so(turn, monkeypatch, tmp_path):
    monkeypatch.setattr(fcntl, "flock", nfs)
    only_readable(turn, monkeypatch)
    fd, waited, said = got(turn)
    os.close(fd)
    assert not waited and len(said) == 1 and str(tmp_path / "own") in said[0]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_file_system_without_locks_is_told_once_and_used_without(turn, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", lockless(number))
    fd, waited, said = got(turn)
    os.close(fd)
    assert not waited and len(said) == 2 and os.strerror(number) in said[0] and "another timing may run" in said[1]
    fd, waited, said = got(turn)
    os.close(fd)
    assert not waited and not said


@pytest.mark.parametrize("flock", [nfs, lockless(errno.ENOLCK)], ids=["nfs", "no locks"])
def test_stored_files_are_kept_and_removed_where_locks_are_unlike_a_local_disks(tmp_path, monkeypatch, flock):
    """A store that can't remove anything fills the disk."""
    monkeypatch.setattr(fcntl, "flock", flock)
    store = part("blob_store").BlobStore(str(tmp_path))
    old, new = ("a" * 64, "b" * 64)
    for name, age_s in ((old, 7200), (new, 0)):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    fd = store.hold(new)
    assert store.remove(old) and not store.remove(new)
    os.close(fd)
    assert (tmp_path / new).exists() and not (tmp_path / old).exists()
