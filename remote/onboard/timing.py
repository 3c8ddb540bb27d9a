"""Share code of the runtimes: attribution of failures, versions, memory, timing, predictions.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only.
A runtime is a module with a function `load(job, path)` that makes a model, which is fed, run and read. Where it also
has `libraries()`, that function imports its modules, so that memory can be read before and after a model is loaded.
"""

import gc
import importlib.util
import os
import re
import resource
import time

WARMUP_S = 10.0
# The other model has just evicted the caches: timed right after it, a model of 0.6 ms takes 1.6 times as
# long as in normal use, after 6 runs 1.01 times. A slow model has recovered within its first runs.
SETTLE_RUNS, SETTLE_S = 6, 0.03
PAIRS_MIN = 5
NO_MEMORY = ("bad_alloc", "bad allocation", "ailed to allocate", "ALLOC_FAILED", "out of memory")


class JobError(Exception):
    """Raised when the model is to blame (or the device, for kinds the controller does not know as the model's)."""

    def __init__(self, kind, reason):
        Exception.__init__(self, reason)
        self.kind = kind


def as_job_error(error, unsupported, text=None):
    """Return a library's error over a model as JobError; `unsupported` are words of its errors for unknown operators.

    `text` stands for the error's own words where those are better cleaned up.
    """
    name = type(error).__name__
    text = (" ".join((str(error) if text is None else text).split()) or name)[:500]
    if isinstance(error, MemoryError) or any(word in text for word in NO_MEMORY):
        return JobError("out_of_memory", text)
    known = any(word in text or word in name for word in unsupported)
    return JobError("unsupported" if known else "unbuildable", text)


def version_of(package, *distributions):
    """Return the version of an installed package without importing it; None where there is none.

    `distributions` are the names it is installed under, where they differ from its own.
    """
    try:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.origin or not os.path.isfile(spec.origin):
            return None
        with open(spec.origin, encoding="utf-8", errors="replace") as file:
            found = re.search(r"^__version__ = [\"'](\S+)[\"']", file.read(), re.M)
        if found:
            return found.group(1)
        for entry in os.listdir(os.path.dirname(os.path.dirname(spec.origin))):
            found = re.match(r"(\w+)-(\d[^-]*)(-py\S*)?\.(dist|egg)-info$", entry)
            if found and found.group(1).lower() in (distributions or (package,)):
                return found.group(2)
    except (ImportError, ValueError, OSError):
        return None
    return "unknown"


def memory_mb(name):
    """Return VmRSS or VmHWM of this process; the high-water mark for both where there is no /proc."""
    try:
        with open("/proc/self/status") as file:
            return int(re.search(r"^%s:\s+(\d+) kB" % name, file.read(), re.M).group(1)) / 1024.0
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(run):
    """Return (wall ms, CPU ms of the whole process) of one run."""
    cpu_s = time.process_time()
    wall_s = time.perf_counter()
    run()
    wall_s = time.perf_counter() - wall_s
    cpu_s = time.process_time() - cpu_s
    return wall_s * 1000.0, cpu_s * 1000.0


def settled(model):
    """Return (wall ms, CPU ms, GPU ms or None) of one run after untimed ones."""
    end_s = time.perf_counter() + SETTLE_S
    for _ in range(SETTLE_RUNS):
        model.run()
        if time.perf_counter() > end_s:
            break
    wall_ms, cpu_ms = timed(model.run)
    return wall_ms, cpu_ms, model.gpu_ms  # read after the clocks, since reading the GPU's events takes time of its own


def median(values):
    """Return the median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2.0


def warm_up(candidate, reference, seconds_max):
    """Run both models in turn until the candidate's time has settled; return the number of its runs."""
    walls, end_s = [], time.perf_counter() + seconds_max
    while time.perf_counter() < end_s or len(walls) < 3:
        walls.append(timed(candidate.run)[0])
        reference.run()
        if len(walls) >= 20 and abs(median(walls[-10:]) / median(walls[-20:-10]) - 1) < 0.02:
            break
    return len(walls)


def row(numpy, floats, shape):
    """Return an array of the model's shape from an input's bytes, or of seeded random values; float32 or wider."""
    if floats is None:
        return numpy.random.RandomState(0).standard_normal(shape)
    values = numpy.frombuffer(floats, dtype="<f4")
    if values.size != numpy.prod(shape):
        sizes = (values.size, "x".join(map(str, shape)))
        raise JobError("unbuildable", "an input has %d values, the model takes %s" % sizes)
    return values.reshape(shape)


def measure(runtime, job):
    """Time `job["model"]` beside `job["reference"]`, in turn, so that both meet the same disturbances.

    Pairs end early, but not below 5, when they and the warm-up take longer than `seconds_max`. Memory is that
    of the candidate alone, and of the runtime before it.
    """
    if hasattr(runtime, "libraries"):
        runtime.libraries()
    gc.disable()
    runtime_mb = memory_mb("VmRSS")
    load_s = time.perf_counter()
    candidate = runtime.load(job, job["model"])
    load_ms = (time.perf_counter() - load_s) * 1000.0
    candidate.feed(None)
    for _ in range(3):
        candidate.run()
    peak_mb = memory_mb("VmHWM")
    reference = load_reference(runtime, job)
    end_s = time.perf_counter() + job["seconds_max"]
    warmup_runs = warm_up(candidate, reference, min(WARMUP_S, job["seconds_max"] / 3.0))
    rows, from_s = [], time.monotonic()
    while len(rows) < job["pairs"] and (len(rows) < PAIRS_MIN or time.perf_counter() < end_s):
        rows.append(settled(candidate) + settled(reference))
    value = dict(columns(rows), timed_window={"from_s": from_s, "to_s": time.monotonic()})
    value.update(peak_mb=peak_mb, runtime_mb=runtime_mb, load_ms=load_ms, warmup_runs=warmup_runs)
    value.update(device_mb=candidate.device_mb, load_average=os.getloadavg()[0])
    if job.get("energy_s", 0) > 0:
        value["energy_window"] = alone(candidate, job["energy_s"])
    return value, b""


def columns(rows):
    """Return the rows of all pairs as one list for each name; GPU times only where every run has one."""
    names = ("wall_ms", "cpu_ms", "gpu_ms", "reference_wall_ms", "reference_cpu_ms", "reference_gpu_ms")
    lists = dict((name, [row[index] for row in rows]) for index, name in enumerate(names))
    if None in lists["gpu_ms"] + lists["reference_gpu_ms"]:
        del lists["gpu_ms"], lists["reference_gpu_ms"]
    return lists


def alone(model, seconds):
    """Run `model` alone, back to back, and return the time window, to which the power readings belong."""
    runs, from_s = 0, time.monotonic()
    to_s = from_s
    while to_s < from_s + seconds:
        model.run()
        runs, to_s = runs + 1, time.monotonic()
    return {"from_s": from_s, "to_s": to_s, "runs": runs}


def load_reference(runtime, job):
    """Return the reference, fed and run once, always on one thread. If it fails, the candidate is not to blame."""
    try:
        model = runtime.load(dict(job, precision="fp32", threads=1), job["reference"])
        model.feed(None)
        model.run()
        return model
    except Exception as error:
        raise JobError("reference", "the reference model does not run here: %s" % error)


def runs(model, seconds_max, most=50, least=5):
    """Run `model` on random input until the time is up, for counters that runs leave behind; return how often."""
    model.feed(None)
    end_s = time.perf_counter() + seconds_max
    for count in range(1, most + 1):
        model.run()
        if count >= least and time.perf_counter() > end_s:
            return count
    return most


def layer(name, kind, precision, ms):
    """Return one node of a runtime's graph: `precision` is empty and `ms` (of one run) is 0 where not reported."""
    return {"name": name[:200], "type": kind[:60], "precision": precision, "ms": ms}


def predict(runtime, job):
    """Return the logits of the float32 rows in `job["data"]`, each run at batch 1.

    (rows, channels, height, width) -> (rows, classes), little-endian float32 both.
    """
    rows, row_bytes = job["shape"][0], 4
    for size in job["shape"][1:]:
        row_bytes *= size
    if os.path.getsize(job["data"]) != rows * row_bytes:
        raise JobError("bad_request", "the data are not %s float32 values" % "x".join(map(str, job["shape"])))
    model = runtime.load(job, job["model"])
    outputs = []
    with open(job["data"], "rb") as file:
        for _ in range(rows):
            model.feed(file.read(row_bytes))
            model.run()
            outputs.append(model.output())
    lengths = sorted(set(len(output) // 4 for output in outputs))
    if len(lengths) != 1:
        wording = " and ".join(map(str, lengths))
        raise JobError("unbuildable", "the model's outputs have different lengths: %s values" % wording)
    return {"shape": [rows, lengths[0]]}, b"".join(outputs)
