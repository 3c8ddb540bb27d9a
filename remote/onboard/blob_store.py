# mypy: ignore-errors
"""Store files on the device, named by their content.

Sent to the device as text: Python 3.6, standard library only. The agent gives it `RequestError`.
"""

import hashlib
import os
import re
import time

CHUNK = 1 << 18
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
DISK_SPARE = 64 << 20  # bytes never taken from the device's disk


class BlobStore(object):
    """Store files named by their SHA-256; the least recently used ones are removed beyond `limit` bytes.

    A file in use is held with a shared lock, by whichever agent; one that is held is never removed.
    """

    def __init__(self, folder):
        self.folder = folder
        self.limit = 2 << 30

    def path(self, name):
        return os.path.join(self.folder, name)

    def has(self, name):
        """Return whether the blob is there; it then counts as used now."""
        try:
            os.utime(self.path(name), None)  # explicit, since many boards mount noatime
            return True
        except OSError:
            return False

    def hold(self, name):
        """Return an open file descriptor that keeps the blob from being removed."""
        if self.has(name):
            try:
                fd = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                raise RequestError("missing", name)
            part("device_lock").lock_shared(fd)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)
        raise RequestError("missing", name)

    def make_room(self, size):
        """Remove blobs, oldest use first, until `size` more bytes fit the limit and the disk."""
        found = []
        for name in os.listdir(self.folder):
            try:
                entry = os.lstat(self.path(name))
            except OSError:
                continue  # another agent was faster
            if DIGEST.match(name):
                found.append((entry.st_mtime, entry.st_size, name))
            elif time.time() - entry.st_mtime > 86400:  # left by an agent that was killed
                os.unlink(self.path(name))
        total = sum(entry[1] for entry in found)
        for _, bytes_, name in sorted(found):
            if total + size <= self.limit and self.free() >= size + DISK_SPARE:
                return
            total -= bytes_ if self.remove(name) else 0
        if self.free() < size + DISK_SPARE:
            raise RequestError("no_space", "%d MB free, %d MB needed" % (self.free() >> 20, (size + DISK_SPARE) >> 20))

    def free(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def remove(self, name):
        """Remove a blob; return False where it is held, or was removed already.

        Where there are no locks, a blob used within the last hour is taken to be held.
        """
        try:
            fd = os.open(self.path(name), os.O_RDWR | os.O_NOFOLLOW)  # NFS locks what is open for writing
        except OSError:
            return False
        try:
            try:
                free = part("device_lock").try_lock(fd, True)
            except part("device_lock").LockUnsupportedError:
                free = time.time() - os.fstat(fd).st_mtime > 3600
            if free:
                os.unlink(self.path(name))
            return free
        except OSError:
            return False
        finally:
            os.close(fd)

    def part(self, name):
        """Return the path of an unfinished blob. It stays when the line breaks, so that a later agent can resume it."""
        return self.path("part-" + name)

    def partial(self, name):
        """Return the blob's bytes that an earlier agent received; 0 while another agent receives it."""
        try:
            fd = os.open(self.part(name), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            return os.fstat(fd).st_size if part("device_lock").try_lock(fd, False) else 0
        except part("device_lock").LockUnsupportedError:
            return 0  # it may be growing just now
        except OSError:
            return 0
        finally:
            os.close(fd)

    def open_part(self, name, offset):
        """Return (descriptor, path) of a locked file that holds the blob's first `offset` bytes."""
        path = self.part(name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            ours = part("device_lock").try_lock(fd, True)
            if ours and os.fstat(fd).st_size < offset:
                raise RequestError("moved", "the first %d bytes of %s are no longer stored" % (offset, name))
            if ours:
                os.ftruncate(fd, offset)
                return fd, path
        except part("device_lock").LockUnsupportedError:
            pass
        except (OSError, RequestError):
            os.close(fd)
            raise
        os.close(fd)  # another agent receives it just now, or that can't be determined without locks
        if offset:
            raise RequestError("moved", "another session receives %s" % name)
        path = self.path("part-%d-%s" % (os.getpid(), name))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), path

    def receive(self, wire, name, size, offset, progress):
        """Receive the bytes from `offset` to `size`; the file gets its name once it is whole and its digest right."""
        try:
            fd, path = self.open_part(name, offset)
        except RequestError:
            wire.skip(size - offset)
            raise
        try:
            hashed, done, failure = hashlib.sha256(), 0, None
            while done < offset:
                data = os.read(fd, min(CHUNK, offset - done))
                hashed.update(data)
                done += len(data)
            while done < size:
                data = wire.some(size - done)
                done += len(data)
                hashed.update(data)
                progress(done)
                try:
                    while data and not failure:
                        data = data[os.write(fd, data) :]
                except OSError as error:  # a full disk: the rest is still read off the wire
                    failure = error
            if failure:
                os.unlink(path)
                raise RequestError("no_space", str(failure))
            if hashed.hexdigest() != name:
                os.unlink(path)
                raise RequestError("wrong_hash", "the bytes received hash to %s, not %s" % (hashed.hexdigest(), name))
            os.fsync(fd)
            os.rename(path, self.path(name))
        finally:
            os.close(fd)
