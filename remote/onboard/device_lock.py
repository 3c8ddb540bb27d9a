# mypy: ignore-errors
"""Lock the device, so that one timing runs at a time, over all users.

Sent to the device as text: Python 3.6, standard library only. The agent gives it `Refused`.
"""

import errno
import fcntl
import glob
import os
import time

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # errors of a lock that another holds; no other error is one


class NoLocks(Exception):
    """Raised where a file system has no locks, or none that this file allows."""


def try_lock(fd, alone):
    """Return True with the file locked, alone or shared, and False while another process holds it. Raise NoLocks."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return True
    except InterruptedError:
        return False
    except OSError as error:
        if error.errno in HELD:
            return False
        # NFS has locks of records only: an exclusive one needs a file that is open for writing, else it fails by EBADF.
        raise NoLocks(error.strerror)


def share(fd):
    """Lock a file shared, waiting for it; where there are no locks the file is used without."""
    try:
        while not try_lock(fd, False):
            time.sleep(0.02)
    except NoLocks:
        pass


class Turn(object):
    """Hold the device's lock, over all users. Timing holds it alone; other work of ours may share it."""

    def __init__(self, folder):
        shared = os.environ.get("EDGEFRONT_LOCK_DIR", "/run/lock")
        self.own = folder
        self.folder = shared if os.path.isdir(shared) and os.access(shared, os.W_OK) else folder
        self.said = ""  # the last warning about a lock that can't be had as wanted

    def note(self):
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
                raise Refused("no_lock", "cannot open %s: %s" % (path, error.strerror))
            if flags & os.O_CREAT:
                os.fchmod(fd, 0o666)  # whatever the umask says: other users lock it too
            return fd
        raise Refused("no_lock", "cannot open %s" % path)

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

    def wait(self, alone, waiting, cancelled, warn=lambda text: None):
        """Return the locked descriptor. `waiting(holder)` is called at once and every 5 s while another holds the lock.

        Where the file system has no locks, the user's own folder is tried, and then timing goes on without one;
        `warn` is called once with the reason.
        """
        while True:
            try:
                return self.wait_here(alone, waiting, cancelled)
            except NoLocks as error:
                if self.folder == self.own:
                    text = "%s supports no locks (%s): another timing may run at the same time"
                    self.once(warn, text % (self.own, error))
                    return self.open()
                self.once(warn, "%s can't be locked (%s): the lock is in %s instead" % (self.folder, error, self.own))
                self.folder = self.own

    def once(self, warn, text):
        """Call `warn` with a text that differs from the last one."""
        if text != self.said:
            self.said = text
            warn(text)

    def wait_here(self, alone, waiting, cancelled):
        """Wait for the lock in the present folder. Raise NoLocks."""
        fd, tell_s = self.open(), time.monotonic()
        unsigned_s = tell_s + 0.2  # a new holder signs a moment after it got the lock
        while True:
            try:
                if try_lock(fd, alone):
                    return fd
            except NoLocks:
                os.close(fd)
                raise
            if cancelled.is_set():
                os.close(fd)
                raise Refused("cancelled", "cancelled while waiting for the device")
            now_s = time.monotonic()
            if now_s >= tell_s:
                holder = self.holder()
                if holder or now_s >= unsigned_s:
                    tell_s = now_s + 5.0
                    waiting(holder)
            time.sleep(0.02)

    def sign(self, who):
        """Write a note that names the holder; nothing depends on it."""
        text = "%s since %s (pid %d)" % (who, time.strftime("%H:%M:%S"), os.getpid())
        self.unsign()
        try:
            fd = os.open(self.note(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode()[:300])
            os.close(fd)
        except OSError:
            pass

    def unsign(self):
        try:
            os.unlink(self.note())
        except OSError:
            pass
