# mypy: ignore-errors
"""Lock the device, so that one timing runs at a time, over all users.

Sent to the device as text: Python 3.6, standard library only. The agent gives it `RequestError`.
"""

import errno
import fcntl
import glob
import os
import time

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # errors of a lock that another holds; no other error is one


class LockUnsupportedError(Exception):
    """Raised where a file system has no locks, or none that this file allows."""


def try_lock(fd, exclusive):
    """Return True with the file locked, False while another process holds it.

    Raise LockUnsupportedError where the file system has no such lock.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return True
    except InterruptedError:
        return False
    except OSError as error:
        if error.errno in HELD:
            return False
        # NFS has locks of records only: an exclusive one needs a file that is open for writing, else it fails by EBADF.
        raise LockUnsupportedError(error.strerror)


def lock_shared(fd):
    """Lock a file shared, waiting for it; where there are no locks the file is used without."""
    try:
        while not try_lock(fd, False):
            time.sleep(0.02)
    except LockUnsupportedError:
        pass


class DeviceLock(object):
    """Hold the device's lock, over all users. Timing holds it alone; other work of ours may share it."""

    def __init__(self, folder):
        shared = os.environ.get("EDGEFRONT_LOCK_DIR", "/run/lock")
        self.own = folder
        self.folder = shared if os.path.isdir(shared) and os.access(shared, os.W_OK) else folder
        self.last_warning = ""  # the last warning about a lock that can't be had as wanted

    def holder_path(self):
        """Return the path of our note that names the holder."""
        return os.path.join(self.folder, "edgefront-%d.holder" % os.getuid())

    def open(self):
        """Return a descriptor to lock.

        It is open for writing, as NFS needs it, or else for reading, as for another user's file.
        """
        path = os.path.join(self.folder, "edgefront.lock")
        ways = (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY)
        for flags in ways:  # the file exists; or is made now; or was made by another meanwhile; or is read-only for us
            try:
                fd = os.open(path, flags | os.O_NOFOLLOW, 0o666)
            except (FileNotFoundError, FileExistsError, PermissionError):
                continue
            except OSError as error:
                if error.errno == errno.EROFS:
                    continue
                raise RequestError("no_lock", "cannot open %s: %s" % (path, error.strerror))
            if flags & os.O_CREAT:
                os.fchmod(fd, 0o666)  # whatever the umask says: other users lock it too
            return fd
        raise RequestError("no_lock", "cannot open %s" % path)

    def holder(self):
        """Return the present holder for people: `user@host since 12:00:00 (pid 1)`, or empty if not known."""
        newest = ""
        for path in sorted(glob.glob(os.path.join(self.folder, "edgefront-*.holder"))):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                text = os.read(fd, 300).decode("utf-8", "replace")
                os.close(fd)
            except OSError:
                continue
            newest = text or newest
        return newest

    def acquire(self, exclusive, waiting, cancelled, warn=lambda text: None):
        """Return the locked descriptor. `waiting(holder)` is called at once and every 5 s while another holds the lock.

        Where the file system has no locks, the user's own folder is tried, and then timing goes on without one;
        `warn` is called once with the reason.
        """
        while True:
            try:
                return self.acquire_in_folder(exclusive, waiting, cancelled)
            except LockUnsupportedError as error:
                if self.folder == self.own:
                    text = "%s supports no locks (%s): another timing may run at the same time"
                    self.warn_once(warn, text % (self.own, error))
                    return self.open()
                self.warn_once(
                    warn, "%s can't be locked (%s): the lock is in %s instead" % (self.folder, error, self.own)
                )
                self.folder = self.own

    def warn_once(self, warn, text):
        """Call `warn` with a text that differs from the last one."""
        if text != self.last_warning:
            self.last_warning = text
            warn(text)

    def acquire_in_folder(self, exclusive, waiting, cancelled):
        """Wait for the lock in the present folder. Raise LockUnsupportedError."""
        fd, tell_s = self.open(), time.monotonic()
        unnamed_s = tell_s + 0.2  # a new holder writes its name a moment after it got the lock
        while True:
            try:
                if try_lock(fd, exclusive):
                    return fd
            except LockUnsupportedError:
                os.close(fd)
                raise
            if cancelled.is_set():
                os.close(fd)
                raise RequestError("cancelled", "cancelled while waiting for the device")
            now_s = time.monotonic()
            if now_s >= tell_s:
                holder = self.holder()
                if holder or now_s >= unnamed_s:
                    tell_s = now_s + 5.0
                    waiting(holder)
            time.sleep(0.02)

    def write_holder(self, who):
        """Write a note that names the holder; nothing depends on it."""
        text = "%s since %s (pid %d)" % (who, time.strftime("%H:%M:%S"), os.getpid())
        self.remove_holder()
        try:
            fd = os.open(self.holder_path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode()[:300])
            os.close(fd)
        except OSError:
            pass

    def remove_holder(self):
        try:
            os.unlink(self.holder_path())
        except OSError:
            pass
