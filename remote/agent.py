# mypy: ignore-errors
"""Serve framed requests on stdin: the device's side of a session.

Sent to the device as text and run there by any Python from 3.6 on, with the standard library only, so
nothing has to be installed. Work that may crash, hang or exhaust memory (importing a runtime, building, running)
is done in a child process that dies with this one. Names of stored files are SHA-256 digits: no path comes
off the wire.
"""

import binascii
import hashlib
import json
import os
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import types
import zlib

PROTOCOL = 1
FRAME = struct.Struct("!BIQ")  # type, request id, length of the body
REQUEST, RESPONSE, ERROR, EVENT, BLOB = 1, 2, 3, 4, 5
JSON_MAX = 16 << 20
BLOB_MAX = 4 << 30
CHUNK = 1 << 18
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
LOW_MEMORY_MB = 100
ENERGY_S = 1.0  # seconds for which the model runs alone where power can be read
PRECISIONS = ("fp32", "fp16", "int8")
ENGINES = 2  # changed when engines are built in another way, so that older ones are built anew
SCARCE = 0.5  # share of the usual free memory below which a kill is not attributed to the model

# The source is read with os.read, never with a buffered reader, which would swallow the first frames behind it. It is
# sent once the hello line has arrived: before that line, the start-up files of a login shell would read it.
# Everything up to the version's check is Python 2 as well. A child, which has a second argument, prints no hello.
STAGE = b"""
import os,zlib
if sys.version_info<(3,6): os.write(2,('EDGEFRONT-PYTHON %d.%d.%d\\n'%sys.version_info[:3]).encode());sys.exit(1)
if len(sys.argv)<3: os.write(1,b'\\nAGENT-BOOT\\n')
n=int(sys.argv[1]);d=b''
while len(d)<n:
    c=os.read(0,n-len(d))
    if not c: sys.exit('edgefront: the source did not arrive whole')
    d+=c
exec(compile(zlib.decompress(d),'edgefront-agent','exec'),{'__name__':'edgefront_agent'})
"""
# '' leaves sys.path first, so that no file in the working directory passes for a module. No character here means
# anything to a shell inside single quotes.
BOOT = (
    "import sys;sys.path=list(filter(None,sys.path));import binascii as b;"
    'exec(b.a2b_base64("' + binascii.b2a_base64(STAGE, newline=False).decode() + '"))'
)
# Every text sent, by name: "agent" (this one), "sensors", "timing", "cuda" of remote/onboard/,
# "runtimes/onnxruntime" and the other runtimes. The sender sets it below this text.
PARTS = {}
LOADED = {}


class RequestError(Exception):
    """Raised for a request that is answered with an error frame."""

    def __init__(self, kind, reason):
        Exception.__init__(self, reason)
        self.kind = kind
        self.reason = reason


class ConnectionClosedError(Exception):
    """Raised when the controller closed its end, or sends bytes that are not the protocol."""


def part(name):
    """Return the module that one of the texts defines; its functions find `part` and `RequestError` as globals."""
    if name not in LOADED:
        module = types.ModuleType("edgefront_" + name.replace("/", "_"))
        module.part, module.RequestError = part, RequestError
        exec(compile(PARTS[name], name + ".py", "exec"), module.__dict__)
        LOADED[name] = module
    return LOADED[name]


def runtime_part(name):
    """Return the module of a runtime, or of one of its options: `onnxruntime:cuda` is a way to run `onnxruntime`."""
    if not isinstance(name, str) or "runtimes/" + name.split(":")[0] not in PARTS:
        there = sorted(path[9:] for path in PARTS if path.startswith("runtimes/"))
        raise RequestError("bad_request", "unknown runtime; accepted: %s" % ", ".join(there))
    return part("runtimes/" + name.split(":")[0])


# ---------------------------------------------------------------- the wire


class Wire(object):
    """Send and receive frames over two file descriptors; any thread may send, one reads."""

    def __init__(self, fd_in, fd_out):
        self.fd_in = fd_in
        self.fd_out = fd_out
        self.heard_s = time.monotonic()
        self.sending = threading.Lock()

    def some(self, size):
        """Read 1 to `size` bytes."""
        data = os.read(self.fd_in, min(size, CHUNK))
        if not data:
            raise ConnectionClosedError("end of input")
        self.heard_s = time.monotonic()
        return data

    def exactly(self, size):
        """Read `size` bytes."""
        parts = bytearray()
        while len(parts) < size:
            parts += self.some(size - len(parts))
        return bytes(parts)

    def skip(self, size):
        """Read `size` bytes and drop them, so that the next frame is found."""
        while size:
            size -= len(self.some(size))

    def send(self, kind, request, body):
        """Write one frame; end the process when the other end is closed."""
        data = memoryview(FRAME.pack(kind, request, len(body)) + body)
        try:
            with self.sending:
                while data:
                    data = data[os.write(self.fd_out, data[:CHUNK]) :]
        except OSError:
            leave(1)

    def tell(self, kind, request, value):
        """Write one JSON frame."""
        self.send(kind, request, json.dumps(value, allow_nan=False).encode())


def take_pipes():
    """Return the file descriptors (in, out) of the protocol, moved away so that no print can get between frames."""
    fd_in, fd_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return fd_in, fd_out


def number(fields, name, low, high, kind=(int, float)):
    """Return the number called `name`, within its limits."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise RequestError("bad_request", "%s must be a number from %g to %g" % (name, low, high))
    return value


def digest(fields, name):
    """Return the SHA-256 called `name`, 64 lower-case hex digits."""
    value = fields.get(name)
    if not isinstance(value, str) or not DIGEST.match(value):
        raise RequestError("bad_request", "%s must be 64 lower-case hex digits" % name)
    return value


# ---------------------------------------------------------------- stored blobs


def cache_folder():
    """Return our folder below the user's cache directory, private to the user."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(home):
        raise RequestError("bad_cache", "no home folder is known for this user: set HOME or XDG_CACHE_HOME")
    folder = os.path.join(home, "edgefront")
    inner = [os.path.join(folder, name) for name in ("blobs", "engines", "timing")]
    for path in [folder] + inner:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise RequestError("bad_cache", "%s must be a folder of the user who logs in, not a link" % path)
        os.chmod(path, 0o700)
    return folder


# ---------------------------------------------------------------- children


def kernel_kills():
    """Return the number of processes that the kernel killed for memory since boot; -1 without a count (before 4.13)."""
    found = re.search(r"^oom_kill (\d+)", part("sensors").read("/proc/vmstat"), re.M)
    return int(found.group(1)) if found else -1


def available_mb():
    """Return the memory that is available without swapping."""
    return part("sensors").memory_mb("MemAvailable")


def last_line(noise):
    """Return the last line a child printed, cut short."""
    lines = bytes(noise).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"


class Job(object):
    """Run one child process, from its start to its verdict."""

    running = {}  # request id -> Job
    usual_mb = 0  # most memory available so far while nothing of ours ran
    payload = b""  # source that is sent to every child, packed once

    def __init__(self):
        self.cancelled = threading.Event()
        self.process = None

    def start(self, order, keep):
        """Start the child; return the descriptor its result comes from."""
        if not Job.payload:
            Job.payload = zlib.compress(("%s\nPARTS = %r\nchild()\n" % (PARTS["agent"], PARTS)).encode(), 1)
        payload = Job.payload
        result, theirs = os.pipe()
        words = json.dumps(dict(order, result_fd=theirs, parent=os.getpid())).encode()
        # numpy's own thread pools are not used, but take memory and wake up. ONNX Runtime's telemetry would write
        # outside our cache, and send data.
        quiet = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", BOOT, str(len(payload)), "child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=quiet,
                pass_fds=[theirs] + keep,  # with the lock, so that an orphan still holds it
                start_new_session=True,
            )
            write_all(self.process.stdin.fileno(), payload + struct.pack("!Q", len(words)) + words)
        except BrokenPipeError:
            pass  # the child died at once; its verdict says how
        finally:
            os.close(theirs)
        return result

    def stop(self, patience_s=2.0):
        """End the child's whole group, first by SIGTERM."""
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
        """Return (value, raw bytes) from the child. Raise RequestError with its failure instead."""
        killed, before_mb = kernel_kills(), available_mb()
        low_mb, Job.usual_mb = before_mb, max(Job.usual_mb, before_mb)
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
                low_mb = min(low_mb, available_mb())
                if self.cancelled.is_set():
                    raise RequestError("cancelled", "cancelled")
                if time.monotonic() > end_s:
                    raise RequestError("timed_out", "not finished within %g s" % deadline_s)
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
        if hungry and before_mb < SCARCE * Job.usual_mb and self.process.returncode == -signal.SIGKILL:
            # another process had the memory: no fault of the model
            raise RequestError("memory_taken", "only %d of the usual %d MB were free" % (before_mb, Job.usual_mb))
        return verdict(said, noise, self.process.returncode, hungry)


def verdict(said, noise, status, hungry):
    """Return (value, raw) of a child, or raise RequestError with the child's own words, or else with how it ended."""
    head, newline, raw = bytes(said).partition(b"\n")
    if newline:
        words = json.loads(head.decode())
        if "error" in words:
            raise RequestError(words["error"]["kind"], words["error"]["reason"])
        if len(raw) == words["raw_bytes"]:
            return words["value"], raw
    if (status == -signal.SIGKILL and hungry) or b"bad_alloc" in noise:
        raise RequestError("out_of_memory", "killed for memory; last output: %s" % last_line(noise))
    how = "by signal %d" % -status if status < 0 else "with status %d" % status
    raise RequestError("crashed", "ended %s; last output: %s" % (how, last_line(noise)))


def write_all(fd, data):
    data = memoryview(data)
    while data:
        data = data[os.write(fd, data[:CHUNK]) :]


def be_mortal(parent):
    """Make this process end with its parent, and be the first to be killed when memory runs out."""
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
    """Run a child's whole life: one order off stdin, one call of a runtime's function, one result."""
    order = json.loads(read_fd(0, struct.unpack("!Q", read_fd(0, 8))[0]).decode())
    os.set_inheritable(order["result_fd"], False)
    be_mortal(order["parent"])
    raw = b""
    try:
        value, raw = FUNCTIONS[order["function"]](order)
        words = {"value": value, "raw_bytes": len(raw)}
    except MemoryError as error:
        words = {"error": {"kind": "out_of_memory", "reason": one_line(error)}}
    except Exception as error:
        words = {"error": {"kind": getattr(error, "kind", "failed"), "reason": one_line(error)}}
    write_all(order["result_fd"], json.dumps(words).encode() + b"\n" + raw)
    os._exit(0)  # at once: shutting a runtime down is slow, and it is not measured


def look(order):
    """Return the versions of the runtimes named (by default of all texts there are), and the GPU."""
    runtimes = {}
    for path in order.get("paths") or [path for path in PARTS if path.startswith("runtimes/")]:
        runtimes.update(part(path).offers())
    return {"runtimes": runtimes, "gpu": part("cuda").gpu() if order.get("gpu", True) else None}, b""


def build(order):
    """Build an engine, and return the runtime's notes about it."""
    return runtime_part(order["runtime"]).build(order["job"], order["job"]["path"], order["job"]["out"]), b""


def measure(order):
    """Time a model by the runtime's own `measure`, or by the common one."""
    runtime = runtime_part(order["runtime"])
    own = getattr(runtime, "measure", None)
    return own(order["job"]) if own else part("timing").measure(runtime, order["job"])


def predict(order):
    """Return logits by the runtime's own `predict`, or by the common one."""
    runtime = runtime_part(order["runtime"])
    own = getattr(runtime, "predict", None)
    return own(order["job"]) if own else part("timing").predict(runtime, order["job"])


def layers(order):
    """Return the layers a runtime really runs, or none, and why, for a runtime that does not report them."""
    own = getattr(runtime_part(order["runtime"]), "layers", None)
    if own is None:
        return {"layers": [], "why": "%s does not report its layers" % order["runtime"]}, b""
    return {"layers": own(order["job"]), "why": ""}, b""


FUNCTIONS = {"look": look, "build": build, "measure": measure, "predict": predict, "layers": layers}


def one_line(error):
    """Return the words of an exception in one line of at most 500 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]


def read_fd(fd, size):
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            raise EOFError("the request arrived incomplete")
        data += part
    return data


# ---------------------------------------------------------------- the agent


def look_around():
    """Return the installed runtimes and the GPU.

    Libraries are loaded for it, so it runs in a child; a runtime that crashes is left out.
    """
    try:
        return Job().run({"function": "look"}, 60.0)[0]
    except RequestError:
        found = {"runtimes": {}, "gpu": None}
    for path in sorted(path for path in PARTS if path.startswith("runtimes/")):
        try:
            alone = Job().run({"function": "look", "paths": [path], "gpu": False}, 60.0)[0]
        except RequestError:
            continue
        found["runtimes"].update(alone["runtimes"])
    return found


def leave(status):
    """End this process and every child at once."""
    for job in list(Job.running.values()):
        try:
            os.killpg(job.process.pid, signal.SIGKILL)
        except (OSError, AttributeError):
            pass
    os._exit(status)


class Agent(object):
    """Serve one controller: short requests at once, jobs in threads of their own."""

    def __init__(self, wire):
        folder = cache_folder()
        self.wire = wire
        self.store = part("blob_store").BlobStore(os.path.join(folder, "blobs"))
        self.engines = part("blob_store").BlobStore(os.path.join(folder, "engines"))
        self.folder = folder
        self.found = {"runtimes": {}, "gpu": None}
        self.idle_w = None  # watts the device draws while no job runs
        self.device_lock = part("device_lock").DeviceLock(folder)
        self.silence_s = 30.0
        self.who = "unknown user"
        self.expected = {}  # request id of a put -> (digest, size)

    def serve(self):
        """Answer requests until the controller goes."""
        while True:
            kind, request, length = FRAME.unpack(self.wire.exactly(FRAME.size))
            if kind == BLOB and length <= BLOB_MAX:
                self.answer(request, lambda: self.take_blob(request, length))
            elif kind == REQUEST and length <= JSON_MAX:
                body = self.wire.exactly(length)
                self.answer(request, lambda: self.handle(request, body))
            else:
                self.wire.tell(ERROR, 0, {"kind": "bad_frame", "reason": "type %d, length %d" % (kind, length)})
                raise ConnectionClosedError("bad frame")

    def answer(self, request, work):
        """Send the result of `work`, or its error; None means that the answer comes later."""
        try:
            value = work()
        except RequestError as error:
            self.wire.tell(ERROR, request, {"kind": error.kind, "reason": error.reason})
        except ConnectionClosedError:
            raise
        except Exception as error:
            reason = "%s: %s" % (type(error).__name__, one_line(error))
            self.wire.tell(ERROR, request, {"kind": "failed", "reason": reason})
        else:
            if value is not None:  # else the answer comes later
                self.wire.tell(RESPONSE, request, value)

    def handle(self, request, body):
        """Return the answer to one request."""
        try:
            fields = json.loads(body.decode())
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise RequestError("bad_request", "a request is a JSON object")
        op = fields.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise RequestError("unknown_op", "unknown operation; accepted: %s" % ", ".join(sorted(OPS)))
        return OPS[op](self, request, fields)

    def hello(self, request, fields):
        if fields.get("protocol") != PROTOCOL:
            raise RequestError("bad_request", "this agent speaks protocol %d" % PROTOCOL)
        self.silence_s = number(fields, "silence_s", 0.5, 3600)
        self.store.limit = number(fields, "cache_mb", 0, 1 << 20) * (1 << 20)
        self.who = str(fields.get("who", ""))[:100]
        # In a thread: a cold board may take longer to import its runtimes than the agent may be silent.
        threading.Thread(target=self.answer, args=(request, self.introduce), daemon=True).start()

    def introduce(self):
        """Return the facts: the device, its runtimes and its GPU."""
        self.found = look_around()
        return dict(part("sensors").facts(), protocol=PROTOCOL, **self.found)

    def ping(self, request, fields):
        return {}

    def stat(self, request, fields):
        name = digest(fields, "sha256")
        have = self.store.has(name)
        return {"have": have, "partial": 0 if have else self.store.partial(name)}

    def put(self, request, fields):
        name, size = digest(fields, "sha256"), number(fields, "size", 0, BLOB_MAX, int)
        offset = number(dict({"offset": 0}, **fields), "offset", 0, size, int)
        self.store.make_room(size - offset)
        self.expected[request] = (name, size, offset)  # answered when the bytes have come

    def take_blob(self, request, length):
        name, size, offset = self.expected.pop(request, (None, -1, 0))
        if size - offset != length:
            self.wire.skip(length)
            if name is None:
                return None  # the refusal of its put was the answer
            raise RequestError("bad_request", "the blob's length differs from the announced length")
        told_s = [time.monotonic()]

        def progress(done):  # events, so that a slow upload is not taken for a dead device
            if time.monotonic() - told_s[0] >= 2.0:
                told_s[0] = time.monotonic()
                self.wire.tell(EVENT, request, {"event": "received", "bytes": done})

        self.store.receive(self.wire, name, size, offset, progress)
        return {"have": True}

    def state(self, request, fields):
        return part("sensors").state()

    def survey(self, request, fields):
        return dict(part("sensors").survey(folder=self.store.folder), holder=self.device_lock.holder())

    def cancel(self, request, fields):
        job = Job.running.get(number(fields, "request", 0, 1 << 32, int))
        if job:
            job.cancelled.set()
        return {"found": job is not None}

    def quit(self, request, fields):
        raise ConnectionClosedError("asked to")

    def time(self, request, fields):
        order = self.order(fields, "measure", ["model", "reference"])
        order["job"]["pairs"] = number(fields, "pairs", 1, 100000, int)
        order["job"]["seconds_max"] = number(fields, "seconds_max", 0.1, 86400)
        self.begin(request, order, fields, True)

    def predict(self, request, fields):
        order = self.order(fields, "predict", ["model", "data"])
        shape = fields.get("shape")
        whole = isinstance(shape, list) and all(type(size) is int and 0 < size < 1 << 31 for size in shape)
        if not whole or not 2 <= len(shape) <= 8:
            raise RequestError("bad_request", "shape must be a list of 2 to 8 positive integers")
        order["job"]["shape"] = shape
        self.begin(request, order, fields, False)

    def layers(self, request, fields):
        order = self.order(fields, "layers", ["model"])
        order["job"]["seconds_max"] = number(fields, "seconds_max", 0.1, 86400)
        self.begin(request, order, fields, True)

    def order(self, fields, function, blobs):
        """Return the order for a child; blobs are still digests."""
        runtime_part(fields.get("runtime"))
        job = dict((name, digest(fields, name)) for name in blobs)
        job["runtime"] = fields["runtime"]
        job["threads"] = number(fields, "threads", 1, 1024, int)
        job["workspace_mb"] = number(dict({"workspace_mb": 256}, **fields), "workspace_mb", 1, 1 << 20, int)
        job["precision"] = fields.get("precision", "fp32")
        if job["precision"] not in PRECISIONS:
            raise RequestError("bad_request", "precision must be one of %s" % ", ".join(PRECISIONS))
        job["cache"] = os.path.join(self.folder, "timing")
        return {"function": function, "runtime": fields["runtime"], "job": job, "blobs": blobs}

    def begin(self, request, order, fields, alone):
        """Start a job in a thread of its own; it answers the request."""
        if len(Job.running) >= 8:
            raise RequestError("busy", "8 jobs are waiting already")
        limits = (
            number(fields, "deadline_s", 0.1, 86400),
            number(dict({"build_deadline_s": 3600}, **fields), "build_deadline_s", 0.1, 86400),
        )
        job = Job.running[request] = Job()
        work = threading.Thread(target=self.work, args=(request, job, order, limits, alone), daemon=True)
        work.start()

    def work(self, request, job, order, limits, alone):
        self.answer(request, lambda: self.do(request, job, order, limits, alone))
        Job.running.pop(request, None)

    def do(self, request, job, order, limits, alone):
        """Run one job under the device's lock. The thread must outlive the child, which dies with the thread."""
        held, lock, job_fields = [], None, order["job"]
        deadline_s, build_deadline_s = limits

        def waiting(holder):
            self.wire.tell(EVENT, request, {"event": "waiting", "holder": holder})

        def warn(text):
            self.wire.tell(EVENT, request, {"event": "note", "text": text})

        try:
            for name in order.pop("blobs"):
                held.append(self.store.hold(job_fields[name]))
            lock = self.device_lock.acquire(alone, waiting, job.cancelled, warn)
            if alone:
                self.device_lock.write_holder(self.who)
            began = {"event": "started", "at_s": time.monotonic()}
            self.wire.tell(EVENT, request, began)
            built = self.make_ready(request, job, order, held, lock, build_deadline_s)
            value, raw = (
                self.run_monitored(job, order, deadline_s, lock) if alone else job.run(order, deadline_s, [lock])
            )
            value.update(built, ended_at_s=time.monotonic())
        finally:
            if alone and lock is not None:
                self.device_lock.remove_holder()
            for fd in held + [lock] * (lock is not None):
                os.close(fd)
        if order["function"] != "predict":
            return value
        self.wire.tell(RESPONSE, request, dict(value, bytes=len(raw)))
        self.wire.send(BLOB, request, raw)
        return None

    def run_monitored(self, job, order, deadline_s, lock):
        """Return the child's answer with the sensors' readings during its run."""
        sensors = part("sensors")
        power = sensors.power()
        order["job"]["energy_s"] = ENERGY_S if power else 0
        if power and self.idle_w is None:
            self.idle_w = part("power").idle_watts(power)
        watch = sensors.DeviceMonitor(power=power)
        watch.start()
        try:
            value, raw = job.run(order, deadline_s, [lock])
        finally:
            during = watch.stop()
        timed, window = value.pop("timed_window", None), value.pop("energy_window", None)
        if timed:  # only this window counts: clocks rise and fall while a process starts
            during = watch.stop(timed["from_s"], timed["to_s"])
        if window:
            value["energy_mj"] = sensors.energy(
                watch.watts, window["from_s"], window["to_s"], window["runs"], self.idle_w or 0.0
            )
        return dict(value, during=during), raw

    def make_ready(self, request, job, order, held, lock, deadline_s):
        """Replace digests by paths, building engines where the runtime has such; return the seconds of builds."""
        fields, builds, built = order["job"], runtime_part(order["runtime"]).BUILDS, {"build_s": 0.0}
        for name in ("model", "reference", "data"):
            if name not in fields:
                continue
            path = self.store.path(fields[name])
            if builds and name != "data":
                precision = fields["precision"] if name == "model" else "fp32"
                wanted = dict(fields, precision=precision)
                path, seconds = self.engine(request, job, wanted, fields[name], held, lock, deadline_s)
                built["build_s"] += seconds if name == "model" else 0.0
            fields[name] = path
        return built

    def engine(self, request, job, fields, digest_, held, lock, deadline_s):
        """Return (path, seconds spent) of a stored model's engine, kept and built once for the same options."""
        version = self.found["runtimes"].get(fields["runtime"])
        options = [ENGINES, digest_, fields["runtime"], version]
        options += [fields["precision"], fields["workspace_mb"], fields["threads"]]
        key = hashlib.sha256(json.dumps(options).encode()).hexdigest()
        if self.engines.has(key):
            held.append(self.engines.hold(key))
            return self.engines.path(key), 0.0
        self.wire.tell(EVENT, request, {"event": "building", "model": digest_})
        self.engines.make_room(0)
        out, began_s = self.engines.path("part-%d-%s" % (os.getpid(), key)), time.monotonic()
        build_job = dict(fields, path=self.store.path(digest_), out=out)
        try:
            job.run({"function": "build", "runtime": fields["runtime"], "job": build_job}, deadline_s, [lock])
            os.rename(out, self.engines.path(key))
        except OSError as error:
            raise RequestError("failed", "the runtime left no engine: %s" % error)
        finally:
            if os.path.exists(out):
                os.unlink(out)
        held.append(self.engines.hold(key))
        return self.engines.path(key), time.monotonic() - began_s

    def watch(self):
        """End everything when the controller has been silent for too long."""
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
    "layers": Agent.layers,
    "state": Agent.state,
    "survey": Agent.survey,
    "cancel": Agent.cancel,
    "quit": Agent.quit,
}


def main():
    """Serve the controller at the other end of stdin and stdout."""
    wire = Wire(*take_pipes())
    os.umask(0o077)
    try:
        agent = Agent(wire)
    except (OSError, RequestError) as error:
        sys.exit("edgefront: %s" % one_line(error))
    watch = threading.Thread(target=agent.watch, daemon=True)
    watch.start()
    write_all(wire.fd_out, ("\nAGENT-READY %d\n" % PROTOCOL).encode())
    try:
        agent.serve()
    except ConnectionClosedError:
        pass
    leave(0)
