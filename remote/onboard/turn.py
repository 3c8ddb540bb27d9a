# mypy: ignore-errors
"""The device's lock: one timing at a time, over all users.

Sent to the device as text: Python 3.6, standard library only. The agent gives it `Refused`.
"""

import fcntl
import glob
import os
import time


class Turn(object):
    """The device's lock, over all users. Timing holds it alone; other work of ours may share it."""

    def __init__(self, folder):
        shared = os.environ.get("EDGEFRONT_LOCK_DIR", "/run/lock")
        self.folder = shared if os.path.isdir(shared) and os.access(shared, os.W_OK) else folder
        self.note = os.path.join(self.folder, "edgefront-%d.holder" % os.getuid())

    def open(self):
        """A descriptor to lock. Another user's file can be opened for reading only, which is enough."""
        path = os.path.join(self.folder, "edgefront.lock")
        for flags in (0, os.O_CREAT | os.O_EXCL, 0):  # there; or made now; or made by another meanwhile
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | flags, 0o644)
            except (FileNotFoundError, FileExistsError):
                continue
            if flags:
                os.fchmod(fd, 0o644)  # whatever the umask says
            return fd
        raise Refused("no_lock", "cannot open %s" % path)

    def holder(self):
        """Who times now, for people: `user@host since 12:00:00 (pid 1)`, or empty if not known."""
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

    def wait(self, alone, waiting, cancelled):
        """The locked descriptor. `waiting(holder)` is called at once and every 5 s while it is not our turn."""
        fd, tell_s = self.open(), time.monotonic()
        unsigned_s = tell_s + 0.2  # whoever has just got the lock signs a moment later
        while True:
            try:
                fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                return fd
            except OSError:
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
        """Leaves word of who has the turn; nothing depends on it."""
        text = "%s since %s (pid %d)" % (who, time.strftime("%H:%M:%S"), os.getpid())
        self.unsign()
        try:
            fd = os.open(self.note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode()[:300])
            os.close(fd)
        except OSError:
            pass

    def unsign(self):
        try:
            os.unlink(self.note)
        except OSError:
            pass
