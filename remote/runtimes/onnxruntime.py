"""ONNX Runtime on the device's CPU: its version, timing of a model, predictions of a model.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called. `measure` and `predict` return (JSON value, raw bytes).
"""

import gc
import importlib
import importlib.util
import os
import re
import resource
import time

WARMUP_S = 10.0
# The other model has just turned the caches over: timed right after it, a model of 0.6 ms takes 1.6 times as
# long as in its user's hands, after 6 runs 1.01 times. A slow model is past that within its first runs.
SETTLE_RUNS, SETTLE_S = 6, 0.03
UNSUPPORTED = (
    "NOT_IMPLEMENTED",
    "NotImplemented",
    "is not a registered function/op",
    "No Op registered",
    "Unsupported model IR version",
    "is under development and support for this is limited",
    "Opset",
    "opset",
)


class Unfit(Exception):
    """The model (or the device, for kinds the controller does not know as the model's) is to blame."""

    def __init__(self, kind, reason):
        Exception.__init__(self, reason)
        self.kind = kind


def version():
    """Version of the installed onnxruntime without importing it; None where there is none."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.origin:
        return None
    with open(spec.origin) as file:
        found = re.search(r"^__version__ = [\"'](\S+)[\"']", file.read(), re.M)
    return found.group(1) if found else "unknown"


def load_runtime():
    """(onnxruntime, numpy)."""
    try:
        return importlib.import_module("onnxruntime"), importlib.import_module("numpy")
    except ImportError as error:
        raise Unfit("no_runtime", "onnxruntime cannot be imported: %s" % error)


def memory_mb(name):
    """VmRSS or VmHWM of this process; the high-water mark for both where there is no /proc."""
    try:
        with open("/proc/self/status") as file:
            return int(re.search(r"^%s:\s+(\d+) kB" % name, file.read(), re.M).group(1)) / 1024.0
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def open_session(ort, path, threads):
    """A session as an ordinary user gets it, on the CPU, with `threads` threads that do not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:  # spinning threads burn the cores that the others of a small board need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return blame_model(lambda: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def blame_model(work):
    """What `work` returns; onnxruntime's exceptions become Unfit."""
    try:
        return work()
    except MemoryError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if "Failed to allocate memory" in text or "bad_alloc" in text or "bad allocation" in text:
            raise Unfit("out_of_memory", text[:500])
        name = type(error).__name__
        known = any(word in text or word in name for word in UNSUPPORTED)
        raise Unfit("unsupported" if known else "unbuildable", (text or name)[:500])


def random_feed(numpy, session, seed=0):
    """Seeded inputs of the shapes and types the model asks for; a free dimension is 1."""
    generator = numpy.random.RandomState(seed)
    feed = {}
    for wanted in session.get_inputs():
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in wanted.shape]
        dtype = input_dtype(numpy, wanted)
        if dtype.kind == "f":
            feed[wanted.name] = generator.standard_normal(shape).astype(dtype)
        else:
            feed[wanted.name] = generator.randint(0, 2, size=shape).astype(dtype)
    return feed


def input_dtype(numpy, wanted):
    """The numpy type of a model's input."""
    name = re.sub(r"tensor\((\w+)\)", r"\1", wanted.type)
    name = {"float": "float32", "double": "float64"}.get(name, name)
    try:
        return numpy.dtype(name)
    except TypeError:
        raise Unfit("unsupported", "input %s has type %s" % (wanted.name, wanted.type))


def runner(session, feed):
    """A function that runs the model once, the way a user does."""
    return lambda: session.run(None, feed)


def timed(run):
    """(wall ms, CPU ms of the whole process) of one run."""
    cpu_s = time.process_time()
    wall_s = time.perf_counter()
    run()
    wall_s = time.perf_counter() - wall_s
    cpu_s = time.process_time() - cpu_s
    return wall_s * 1000.0, cpu_s * 1000.0


def settled(run):
    """(wall ms, CPU ms) of one run after untimed ones."""
    end_s = time.perf_counter() + SETTLE_S
    for _ in range(SETTLE_RUNS):
        run()
        if time.perf_counter() > end_s:
            break
    return timed(run)


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


def warm_up(candidate, reference, seconds_max):
    """Runs both in turn until the candidate's time has settled; the number of its runs."""
    walls, end_s = [], time.perf_counter() + seconds_max
    while time.perf_counter() < end_s or len(walls) < 3:
        walls.append(timed(candidate)[0])
        reference()
        if len(walls) >= 20 and abs(median(walls[-10:]) / median(walls[-20:-10]) - 1) < 0.02:
            break
    return len(walls)


def measure(job):
    """Times `job["model"]` beside `job["reference"]`, in turn, so that both meet the same disturbances.

    Pairs end early, but not below 5, when the block takes longer than `seconds_max`. Memory is that of the
    candidate alone, and of the runtime before it.
    """
    started_s = time.perf_counter()
    ort, numpy = load_runtime()
    gc.disable()
    runtime_mb = memory_mb("VmRSS")
    load_s = time.perf_counter()
    session = open_session(ort, job["model"], job["threads"])
    load_ms = (time.perf_counter() - load_s) * 1000.0
    candidate = runner(session, random_feed(numpy, session))
    for _ in range(3):
        blame_model(candidate)
    peak_mb = memory_mb("VmHWM")
    reference = load_reference(ort, numpy, job["reference"])
    seconds_max = job["seconds_max"]
    warmup_runs = warm_up(candidate, reference, min(WARMUP_S, seconds_max / 3.0))
    rows = []
    while len(rows) < job["pairs"] and (len(rows) < 5 or time.perf_counter() - started_s < seconds_max):
        rows.append(settled(candidate) + settled(reference))
    names = ("wall_ms", "cpu_ms", "reference_wall_ms", "reference_cpu_ms")
    value = dict((name, [row[index] for row in rows]) for index, name in enumerate(names))
    value.update(peak_mb=peak_mb, runtime_mb=runtime_mb, load_ms=load_ms, warmup_runs=warmup_runs)
    value["load_average"] = os.getloadavg()[0]
    return value, b""


def load_reference(ort, numpy, path):
    """The reference's runner, always one thread. If it fails, the candidate is not to blame."""
    try:
        session = open_session(ort, path, 1)
        run = runner(session, random_feed(numpy, session))
        run()
        return run
    except Exception as error:
        raise Unfit("reference", "the reference model does not run here: %s" % error)


def predict(job):
    """Logits of the float32 rows in `job["data"]`, each run at batch 1.

    (rows, channels, height, width) -> (rows, classes), little-endian float32 both.
    """
    ort, numpy = load_runtime()
    session = open_session(ort, job["model"], job["threads"])
    shape = tuple(job["shape"])
    expected = 4
    for size in shape:
        expected *= size
    if os.path.getsize(job["data"]) != expected:
        raise Unfit("bad_request", "the data are not %s float32 values" % "x".join(map(str, shape)))
    rows = numpy.memmap(job["data"], dtype="<f4", mode="r", shape=shape)
    wanted = session.get_inputs()[0]
    dtype = input_dtype(numpy, wanted)
    outputs = []
    for index in range(shape[0]):
        row = numpy.ascontiguousarray(rows[index : index + 1], dtype=dtype)
        logits = blame_model(lambda: session.run(None, {wanted.name: row})[0])
        outputs.append(numpy.asarray(logits, dtype="<f4").reshape(-1))
    logits = numpy.stack(outputs)
    return {"shape": list(logits.shape)}, logits.tobytes()
