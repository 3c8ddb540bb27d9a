# mypy: ignore-errors
"""The device's side of a session: serves framed requests on its stdin and stdout.

Sent to the device as text and run there by any Python from 3.6 on, with the standard library only, so
nothing has to be installed. Whatever may crash, hang or eat memory (importing a runtime, building, running)
is done in a child process that dies with this one. Names of stored files are SHA-256 digits: no path comes
off the wire.
"""

import binascii
import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib

PROTOCOL = 1
FRAME = struct.Struct("!BIQ")  # type, request id, length of the body
REQUEST, RESPONSE, ERROR, EVENT, BLOB = 1, 2, 3, 4, 5
JSON_MAX = 16 << 20
BLOB_MAX = 4 << 30
CHUNK = 1 << 18
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
DISK_SPARE = 64 << 20  # bytes never taken from the device's disk
LOW_MEMORY_MB = 100

# Read with os.read, never a buffered reader: that would swallow the first frames behind the source.
STAGE = b"""
import os,zlib
n=int(sys.argv[1]);d=b''
while len(d)<n:
    c=os.read(0,n-len(d))
    if not c: sys.exit('edgefront: the source did not arrive whole')
    d+=c
exec(compile(zlib.decompress(d),'edgefront-agent','exec'),{'__name__':'edgefront_agent'})
"""
# '' leaves sys.path first, lest a file in the working directory pass for a module. No character here means
# anything to a shell inside single quotes.
BOOT = (
    "import sys;sys.path=list(filter(None,sys.path));import binascii as b;"
    'exec(b.a2b_base64("' + binascii.b2a_base64(STAGE, newline=False).decode() + '"))'
)
# Set by the sender below this text: this text itself and the runtimes' texts by name, for the children.
SOURCE = ""
RUNTIMES = {}


class Refused(Exception):
    """A request that is answered with an error frame."""

    def __init__(self, kind, reason):
        Exception.__init__(self, reason)
        self.kind = kind
        self.reason = reason


class Gone(Exception):
    """The controller closed its end, or sends what is not the protocol."""


# ---------------------------------------------------------------- the wire


class Wire(object):
    """Frames over two file descriptors; any thread may send, one reads."""

    def __init__(self, fd_in, fd_out):
        self.fd_in = fd_in
        self.fd_out = fd_out
        self.heard_s = time.monotonic()
        self.sending = threading.Lock()

    def some(self, size):
        """1 to `size` bytes."""
        data = os.read(self.fd_in, min(size, CHUNK))
        if not data:
            raise Gone("end of input")
        self.heard_s = time.monotonic()
        return data

    def exactly(self, size):
        """`size` bytes."""
        parts = bytearray()
        while len(parts) < size:
            parts += self.some(size - len(parts))
        return bytes(parts)

    def send(self, kind, request, body):
        """Writes one frame; ends the process when nobody reads any more."""
        data = memoryview(FRAME.pack(kind, request, len(body)) + body)
        try:
            with self.sending:
                while data:
                    data = data[os.write(self.fd_out, data[:CHUNK]) :]
        except OSError:
            leave(1)

    def tell(self, kind, request, value):
        """Writes one JSON frame."""
        self.send(kind, request, json.dumps(value, allow_nan=False).encode())


def take_pipes():
    """File descriptors (in, out) of the protocol, moved away so that no print can get between frames."""
    fd_in, fd_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return fd_in, fd_out


def number(fields, name, low, high, kind=(int, float)):
    """The number called `name`, within its limits."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise Refused("bad_request", "%s must be a number from %g to %g" % (name, low, high))
    return value


def digest(fields, name):
    """The SHA-256 called `name`, 64 lower-case hex digits."""
    value = fields.get(name)
    if not isinstance(value, str) or not DIGEST.match(value):
        raise Refused("bad_request", "%s must be 64 lower-case hex digits" % name)
    return value


# ---------------------------------------------------------------- stored blobs


def cache_folder():
    """Our folder below the user's cache directory, private to the user."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "edgefront")
    os.makedirs(os.path.join(folder, "blobs"), mode=0o700, exist_ok=True)
    for path in (folder, os.path.join(folder, "blobs")):
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise Refused("bad_cache", "%s must be a folder of the user who logs in, not a link" % path)
        os.chmod(path, 0o700)
    return folder


class Store(object):
    """Files named by their SHA-256, the least recently used ones removed beyond `limit` bytes.

    A file in use is held with a shared lock, by whichever agent; one that is held is never removed.
    """

    def __init__(self, folder):
        self.folder = folder
        self.limit = 2 << 30

    def path(self, name):
        return os.path.join(self.folder, name)

    def has(self, name):
        """True if the blob is there; it then counts as used now."""
        try:
            os.utime(self.path(name), None)  # explicit, since many boards mount noatime
            return True
        except OSError:
            return False

    def hold(self, name):
        """An open file descriptor that keeps the blob from being removed."""
        if self.has(name):
            try:
                fd = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                raise Refused("missing", name)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)
        raise Refused("missing", name)

    def make_room(self, size):
        """Removes blobs, oldest use first, until `size` more bytes fit the limit and the disk."""
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
            raise Refused("no_space", "%d MB free, %d MB needed" % (self.free() >> 20, (size + DISK_SPARE) >> 20))

    def free(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def remove(self, name):
        """True unless somebody holds it, or has removed it already."""
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self.path(name))
            return True
        except OSError:
            return False
        finally:
            os.close(fd)

    def receive(self, wire, name, size, progress):
        """Stores `size` bytes off the wire. The file has its name only once it is whole and right."""
        part = self.path("part-%d-%s" % (os.getpid(), name))
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            hashed, left, failure = hashlib.sha256(), size, None
            while left:
                data = wire.some(left)
                left -= len(data)
                hashed.update(data)
                progress(size - left)
                try:
                    while data and not failure:
                        data = data[os.write(fd, data) :]
                except OSError as error:  # a full disk: the rest is still taken off the wire
                    failure = error
            if failure:
                raise Refused("no_space", str(failure))
            if hashed.hexdigest() != name:
                raise Refused("wrong_hash", "the bytes received hash to %s, not %s" % (hashed.hexdigest(), name))
            os.fsync(fd)
            os.rename(part, self.path(name))
        finally:
            os.close(fd)
            if os.path.exists(part):
                os.unlink(part)


# ---------------------------------------------------------------- one timing at a time


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
        """The locked descriptor. `waiting(holder)` is called now and every 5 s while it is not our turn."""
        fd, told_s = self.open(), -5.0
        while True:
            try:
                fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                return fd
            except OSError:
                if cancelled.is_set():
                    os.close(fd)
                    raise Refused("cancelled", "cancelled while waiting for the device")
            if time.monotonic() - told_s >= 5.0:
                told_s = time.monotonic()
                waiting(self.holder())
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


# ---------------------------------------------------------------- what the device says of itself


def read(path, default=""):
    """A small text file's content, stripped, or `default`."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return default


def parse_cpuinfo(text, board=""):
    """(model, flags) from /proc/cpuinfo. ARM names no model there, so the board's own name is put first."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    parts = [board, fields.get("model name") or fields.get("Model", "") if not board else ""]
    if "CPU part" in fields:
        parts.append("implementer %s part %s" % (fields.get("CPU implementer", "?"), fields["CPU part"]))
    model = ", ".join(part for part in parts if part) or "unknown"
    return model, sorted((fields.get("flags") or fields.get("Features") or "").split())


def memory_mb(name):
    """A line of /proc/meminfo in MB, 0 where there is none."""
    found = re.search(r"^%s:\s+(\d+) kB" % name, read("/proc/meminfo"), re.M)
    return int(found.group(1)) // 1024 if found else 0


def usable_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe():
    """The facts of `hello`, but for the runtimes."""
    cpu, flags = parse_cpuinfo(read("/proc/cpuinfo"), read("/proc/device-tree/model"))
    return {
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu,
        "cpu_flags": flags,
        "cores": usable_cores(),
        "memory_mb": memory_mb("MemTotal"),
        "boot_id": read("/proc/sys/kernel/random/boot_id", "unknown"),
        "kernel": platform.release(),
    }


def state():
    """What may disturb a timing, as far as it can be read without rights; missing readings are left out."""
    cpu = "/sys/devices/system/cpu/cpu[0-9]*/"
    found = {"load_average": list(os.getloadavg()), "memory_available_mb": memory_mb("MemAvailable")}
    speeds = [read(path) for path in sorted(glob.glob(cpu + "cpufreq/scaling_cur_freq"))]
    mhz = [int(speed) // 1000 for speed in speeds if speed.isdigit()]
    if mhz:
        found["cpu_mhz"] = mhz
    governors = sorted(set(read(path) for path in glob.glob(cpu + "cpufreq/scaling_governor")))
    if governors:
        found["governors"] = governors
    counts = [read(path) for path in glob.glob(cpu + "thermal_throttle/*_throttle_count")]
    if counts:
        found["throttle_count"] = sum(int(count) for count in counts if count.isdigit())
    pi = read("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if pi:
        found["throttled_bits"] = pi
    zones = {}
    for zone in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        value = read(zone + "/temp")
        if value.lstrip("-").isdigit():
            zones[os.path.basename(zone)[7:] + " " + read(zone + "/type")] = int(value) / 1000.0
    if zones:
        found["temperature_c"] = zones
    ticks = read("/proc/stat").split("\n")[0].split()[1:9]
    if len(ticks) == 8:  # user nice system idle iowait irq softirq steal, of all cores together
        seconds = [int(tick) / float(os.sysconf("SC_CLK_TCK")) for tick in ticks]
        found["cpu_busy_s"] = round(sum(seconds) - seconds[3] - seconds[4], 2)
        found["cpu_stolen_s"] = seconds[7]
        found["at_s"] = time.monotonic()
    return found


# ---------------------------------------------------------------- children


def kernel_kills():
    """Processes the kernel has killed for memory since boot; -1 where it does not count (before 4.13)."""
    found = re.search(r"^oom_kill (\d+)", read("/proc/vmstat"), re.M)
    return int(found.group(1)) if found else -1


def last_line(noise):
    """The last line a child printed, cut short."""
    lines = bytes(noise).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"


class Job(object):
    """One child process, from its start to its verdict."""

    running = {}  # request id -> Job

    def __init__(self):
        self.cancelled = threading.Event()
        self.process = None

    def start(self, order, keep):
        """Starts the child; returns the descriptor its result comes from."""
        source = "%s\nRUNTIMES = %r\nchild()\n" % (SOURCE, RUNTIMES)
        payload = zlib.compress(source.encode(), 1)
        result, theirs = os.pipe()
        words = json.dumps(dict(order, result_fd=theirs, parent=os.getpid())).encode()
        # numpy's own thread pools are not used, but take memory and wake up
        quiet = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", BOOT, str(len(payload))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=quiet,
                pass_fds=[theirs] + keep,  # the lock too: an orphan still holds it
                start_new_session=True,
            )
            write_all(self.process.stdin.fileno(), payload + struct.pack("!Q", len(words)) + words)
        except BrokenPipeError:
            pass  # it died at once; its verdict says how
        finally:
            os.close(theirs)
        return result

    def stop(self, patience_s=2.0):
        """Ends the child's whole group, asking first."""
        for number_, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self.process.pid, number_)
                self.process.wait(wait_s)
                return
            except OSError:
                self.process.wait()
                return
            except subprocess.TimeoutExpired:
                pass

    def run(self, order, deadline_s, keep=()):
        """(value, raw bytes) the child handed over. Raises Refused with what became of it instead."""
        killed, low_mb = kernel_kills(), memory_mb("MemAvailable")
        result = self.start(order, list(keep))
        said, noise = bytearray(), bytearray()
        outputs = {result: said, self.process.stdout.fileno(): noise}
        end_s = time.monotonic() + deadline_s
        try:
            while result in outputs:
                for fd in select.select(list(outputs), [], [], 0.25)[0]:
                    data = os.read(fd, CHUNK)
                    outputs[fd].extend(data)
                    if not data:
                        del outputs[fd]
                del noise[:-8192]
                low_mb = min(low_mb, memory_mb("MemAvailable"))
                if self.cancelled.is_set():
                    raise Refused("cancelled", "cancelled")
                if time.monotonic() > end_s:
                    raise Refused("timed_out", "not done after %g s" % deadline_s)
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                self.stop()
            os.close(result)
            for pipe in (self.process.stdin, self.process.stdout):
                pipe.close()
        hungry = kernel_kills() > killed >= 0 or low_mb < LOW_MEMORY_MB
        return verdict(said, noise, self.process.returncode, hungry)


def verdict(said, noise, status, hungry):
    """(value, raw) a child reported, or Refused: its own words if it found any, else how it ended."""
    head, newline, raw = bytes(said).partition(b"\n")
    if newline:
        words = json.loads(head.decode())
        if "error" in words:
            raise Refused(words["error"]["kind"], words["error"]["reason"])
        if len(raw) == words["raw_bytes"]:
            return words["value"], raw
    if (status == -signal.SIGKILL and hungry) or b"bad_alloc" in noise:
        raise Refused("out_of_memory", "killed for memory; last words: %s" % last_line(noise))
    how = "by signal %d" % -status if status < 0 else "with status %d" % status
    raise Refused("crashed", "ended %s; last words: %s" % (how, last_line(noise)))


def write_all(fd, data):
    data = memoryview(data)
    while data:
        data = data[os.write(fd, data[:CHUNK]) :]


def be_mortal(parent):
    """Makes this process end with its parent, and the first to be killed when memory runs out."""
    try:
        import ctypes  # not every small Python has it

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    except (ImportError, OSError, AttributeError):
        pass  # not Linux: the agent kills its children itself unless it is killed
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    if os.getppid() != parent:
        os._exit(1)


def child():
    """The child's whole life: one order off stdin, one call of a runtime's function, one result."""
    order = json.loads(read_fd(0, struct.unpack("!Q", read_fd(0, 8))[0]).decode())
    os.set_inheritable(order["result_fd"], False)
    be_mortal(order["parent"])
    raw = b""
    try:
        if order["function"] == "versions":
            value = dict((name, load_runtime(name)["version"]()) for name in RUNTIMES)
        else:
            value, raw = load_runtime(order["runtime"])[order["function"]](order["job"])
        words = {"value": value, "raw_bytes": len(raw)}
    except MemoryError as error:
        words = {"error": {"kind": "out_of_memory", "reason": one_line(error)}}
    except Exception as error:
        words = {"error": {"kind": getattr(error, "kind", "failed"), "reason": one_line(error)}}
    write_all(order["result_fd"], json.dumps(words).encode() + b"\n" + raw)
    os._exit(0)  # at once: taking a runtime down is slow, and nothing of it is measured


def load_runtime(name):
    """The names a runtime's text defines."""
    names = {"__name__": "edgefront_runtime_" + name}
    exec(compile(RUNTIMES[name], name + ".py", "exec"), names)
    return names


def one_line(error):
    """The gist of an exception, at most 500 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]


def read_fd(fd, size):
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            raise EOFError("the order did not arrive whole")
        data += part
    return data


# ---------------------------------------------------------------- the agent


def leave(status):
    """Ends this process and every child at once."""
    for job in list(Job.running.values()):
        try:
            os.killpg(job.process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            pass
    os._exit(status)


class Agent(object):
    """Serves one controller: short requests at once, jobs in threads of their own."""

    def __init__(self, wire):
        folder = cache_folder()
        self.wire = wire
        self.store = Store(os.path.join(folder, "blobs"))
        self.turn = Turn(folder)
        self.silence_s = 30.0
        self.who = "somebody"
        self.expected = {}  # request id of a put -> (digest, size)

    def serve(self):
        """Answers requests until the controller goes."""
        while True:
            kind, request, length = FRAME.unpack(self.wire.exactly(FRAME.size))
            if kind == BLOB and length <= BLOB_MAX:
                self.answer(request, lambda: self.take_blob(request, length))
            elif kind == REQUEST and length <= JSON_MAX:
                body = self.wire.exactly(length)
                self.answer(request, lambda: self.handle(request, body))
            else:
                self.wire.tell(ERROR, 0, {"kind": "bad_frame", "reason": "type %d, length %d" % (kind, length)})
                raise Gone("bad frame")

    def answer(self, request, work):
        """Sends what `work` returns, or its error; None means that the answer comes later."""
        try:
            value = work()
        except Refused as error:
            self.wire.tell(ERROR, request, {"kind": error.kind, "reason": error.reason})
        except Gone:
            raise
        except Exception as error:
            reason = "%s: %s" % (type(error).__name__, one_line(error))
            self.wire.tell(ERROR, request, {"kind": "failed", "reason": reason})
        else:
            if value is not None:  # else the answer comes later
                self.wire.tell(RESPONSE, request, value)

    def handle(self, request, body):
        """The answer to one request."""
        try:
            fields = json.loads(body.decode())
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise Refused("bad_request", "a request is a JSON object")
        op = fields.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise Refused("unknown_op", "no such operation; there are %s" % ", ".join(sorted(OPS)))
        return OPS[op](self, request, fields)

    def hello(self, request, fields):
        if fields.get("protocol") != PROTOCOL:
            raise Refused("bad_request", "this agent speaks protocol %d" % PROTOCOL)
        self.silence_s = number(fields, "silence_s", 0.5, 3600)
        self.store.limit = number(fields, "cache_mb", 0, 1 << 20) * (1 << 20)
        self.who = str(fields.get("who", ""))[:100]
        versions = Job().run({"function": "versions"}, 60.0)[0]
        return dict(describe(), runtimes=dict((k, v) for k, v in versions.items() if v))

    def ping(self, request, fields):
        return {}

    def stat(self, request, fields):
        return {"have": self.store.has(digest(fields, "sha256"))}

    def put(self, request, fields):
        name, size = digest(fields, "sha256"), number(fields, "size", 0, BLOB_MAX, int)
        self.store.make_room(size)
        self.expected[request] = (name, size)  # answered when the bytes have come

    def take_blob(self, request, length):
        name, size = self.expected.pop(request, (None, None))
        if size != length:  # take it off the wire all the same, so that the next frame is found
            while length:
                length -= len(self.wire.some(length))
            if name is None:
                return None  # its put was refused, and said so
            raise Refused("bad_request", "the blob is not as long as was announced")
        told_s = [time.monotonic()]

        def progress(done):  # so that a slow upload is not taken for a dead device
            if time.monotonic() - told_s[0] >= 2.0:
                told_s[0] = time.monotonic()
                self.wire.tell(EVENT, request, {"event": "received", "bytes": done})

        self.store.receive(self.wire, name, size, progress)
        return {"have": True}

    def state(self, request, fields):
        return state()

    def cancel(self, request, fields):
        job = Job.running.get(number(fields, "request", 0, 1 << 32, int))
        if job:
            job.cancelled.set()
        return {"found": job is not None}

    def quit(self, request, fields):
        raise Gone("asked to")

    def time(self, request, fields):
        order = self.order(fields, "measure", ["model", "reference"])
        order["job"]["pairs"] = number(fields, "pairs", 1, 100000, int)
        order["job"]["seconds_max"] = number(fields, "seconds_max", 0.1, 86400)
        self.begin(request, order, number(fields, "deadline_s", 0.1, 86400), True)

    def predict(self, request, fields):
        order = self.order(fields, "predict", ["model", "data"])
        shape = fields.get("shape")
        whole = isinstance(shape, list) and all(type(size) is int and 0 < size < 1 << 31 for size in shape)
        if not whole or not 2 <= len(shape) <= 8:
            raise Refused("bad_request", "shape must be a list of 2 to 8 positive integers")
        order["job"]["shape"] = shape
        self.begin(request, order, number(fields, "deadline_s", 0.1, 86400), False)

    def order(self, fields, function, blobs):
        """What a child is told to do; blobs are still digests."""
        if fields.get("runtime") not in RUNTIMES:
            raise Refused("bad_request", "no such runtime; there are %s" % ", ".join(sorted(RUNTIMES)))
        job = dict((name, digest(fields, name)) for name in blobs)
        job["threads"] = number(fields, "threads", 1, 1024, int)
        return {"function": function, "runtime": fields["runtime"], "job": job, "blobs": blobs}

    def begin(self, request, order, deadline_s, alone):
        """Starts a job in a thread of its own; it answers the request."""
        if len(Job.running) >= 8:
            raise Refused("busy", "8 jobs are waiting already")
        job = Job.running[request] = Job()
        work = threading.Thread(target=self.work, args=(request, job, order, deadline_s, alone), daemon=True)
        work.start()

    def work(self, request, job, order, deadline_s, alone):
        self.answer(request, lambda: self.do(request, job, order, deadline_s, alone))
        Job.running.pop(request, None)

    def do(self, request, job, order, deadline_s, alone):
        """Runs one job in its turn. The thread lives as long as the child: the child dies with the thread."""
        held, job_fields = [], order["job"]
        try:
            for name in order.pop("blobs"):
                held.append(self.store.hold(job_fields[name]))
                job_fields[name] = self.store.path(job_fields[name])
            held.append(
                self.turn.wait(
                    alone,
                    lambda holder: self.wire.tell(EVENT, request, {"event": "waiting", "holder": holder}),
                    job.cancelled,
                )
            )
            if alone:
                self.turn.sign(self.who)
            self.wire.tell(EVENT, request, {"event": "started", "at_s": time.monotonic()})
            value, raw = job.run(order, deadline_s, held[-1:])
            value["ended_at_s"] = time.monotonic()
        finally:
            if alone and len(held) > 2:
                self.turn.unsign()
            for fd in held:
                os.close(fd)
        if order["function"] != "predict":
            return value
        self.wire.tell(RESPONSE, request, dict(value, bytes=len(raw)))
        self.wire.send(BLOB, request, raw)
        return None

    def watch(self):
        """Ends everything when the controller has not been heard of for too long."""
        while True:
            time.sleep(min(1.0, self.silence_s / 4))
            if time.monotonic() - self.wire.heard_s > self.silence_s:
                leave(3)


OPS = {
    "hello": Agent.hello,
    "ping": Agent.ping,
    "stat": Agent.stat,
    "put": Agent.put,
    "time": Agent.time,
    "predict": Agent.predict,
    "state": Agent.state,
    "cancel": Agent.cancel,
    "quit": Agent.quit,
}


def main():
    """Serves the controller at the other end of stdin and stdout."""
    wire = Wire(*take_pipes())
    os.umask(0o077)
    try:
        agent = Agent(wire)
    except (OSError, Refused) as error:
        sys.exit("edgefront: %s" % one_line(error))
    watch = threading.Thread(target=agent.watch, daemon=True)
    watch.start()
    write_all(wire.fd_out, ("\nAGENT-READY %d\n" % PROTOCOL).encode())
    try:
        agent.serve()
    except Gone:
        pass
    leave(0)
