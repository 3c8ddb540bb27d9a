"""Run TensorRT through its own command-line tool, for boards that have trtexec but not the Python bindings.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only.
Command lines are put together here from typed fields for the version found, since trtexec refuses any option
that it does not know, and from 11 on has other defaults. docs/tensorrt.md lists the options by version.

Two things differ from the other runtimes. Each process of trtexec times one engine alone, so candidate and
reference run in short blocks in turn, and pairs are formed from the rows of two blocks that follow each other:
they are seconds apart, not milliseconds. And trtexec reports no CPU time of a single run: `cpu_ms` is the time
the host took to enqueue it, which is the CPU cost of a run while the CPU sleeps until the GPU is done.
"""

import collections
import ctypes
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time

NEEDS = "onnx"
BUILDS = True
PLACES = ("/usr/src/tensorrt/bin/trtexec",)
WARM_UP_MS = 1000  # per process, since the clocks have fallen while it started
BLOCKS = 4  # blocks of each of the two models
PAIRS_FIRST, PAIRS_MIN = 10, 5
LINES_MAX = 5000
# Messages that only report that earlier lines were errors.
HOLLOW = (
    "Failed to parse onnx file",
    "Parsing model failed",
    "Failed to create engine from model",
    "Engine could not be created from network",
    "Engine set up failed",
    "Inference set up failed",
)

Tool = collections.namedtuple("Tool", "path version")  # version: (8, 2, 1)
# usage: the process's own getrusage(); inference_s: when "Starting inference" was read, on the monotonic clock
Ran = collections.namedtuple("Ran", "lines status usage inference_s")
Block = collections.namedtuple("Block", "rows ran seconds")


# ---------------------------------------------------------------- installed version


def offers():
    """Return {"trtexec": version} where the tool is. It has to be run, since only its banner has the version."""
    try:
        return {"trtexec": "%d.%d.%d" % tool().version}
    except Exception:
        return {}


def tool():
    """Return path and version of trtexec: TRTEXEC in the environment, else on the PATH, else where JetPack puts it."""
    wanted = os.environ.get("TRTEXEC")
    found = [wanted] if wanted else [shutil.which("trtexec")] + list(PLACES)
    path = next((path for path in found if path and os.access(path, os.X_OK)), None)
    if path is None:
        raise part("timing").JobError(
            "no_runtime", "there is no trtexec at %s" % (wanted or "/usr/src/tensorrt/bin or on the PATH")
        )
    process = subprocess.Popen(
        [path, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        text = process.communicate(timeout=30)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        text = process.communicate()[0].decode("utf-8", "replace")
    version = banner(text)
    if version is None:
        last = (text.strip().splitlines() or ["nothing"])[-1][:200]
        raise part("timing").JobError("no_runtime", "%s does not print its version; it printed: %s" % (path, last))
    return Tool(path, version)


def banner(text):
    """Return (8, 2, 1) for "[TensorRT v8201]", (10, 3, 0) for "[TensorRT v100300] [b17]"; None without a banner."""
    found = re.search(r"\[TensorRT v(\d+(?:\.\d+)*)\]", text)
    if not found:
        return None
    numbers = [int(word) for word in found.group(1).split(".")]
    if len(numbers) > 1:
        return tuple((numbers + [0, 0])[:3])
    scale = 10000 if numbers[0] >= 100000 else 1000
    return (numbers[0] // scale, numbers[0] // 100 % (scale // 100), numbers[0] % 100)


# ---------------------------------------------------------------- command lines


def build_arguments(version, job, path, out, cache):
    """Return options that write an engine and run nothing."""
    workspace = int(job.get("workspace_mb", 256))
    arguments = ["--onnx=" + path, "--saveEngine=" + out]
    arguments.append("--memPoolSize=workspace:%d" % workspace if version >= (8, 4) else "--workspace=%d" % workspace)
    arguments.append("--skipInference" if version >= (8, 6) else "--buildOnly")
    if version >= (8, 2):  # otherwise an engine's inspector reports no more than its layers' names
        arguments.append("--profilingVerbosity=detailed")
    gpu = part("cuda").gpu()
    if version < (11,):  # 11 takes the graph's types and refuses these; before, types must also be allowed
        arguments += ["--inputIOFormats=fp32:chw", "--outputIOFormats=fp32:chw"]
        if job["precision"] == "int8":
            arguments.append("--int8")
        if job["precision"] == "fp16" or job["precision"] == "int8" and gpu and part("cuda").fast_fp16(gpu["sm"]):
            arguments.append("--fp16")
    if gpu and part("cuda").sparse(gpu["sm"]):  # TensorRT examines the weights; dense ones run as without the option
        arguments.append("--sparsity=enable")
    if cache:
        arguments.append("--timingCacheFile=" + cache)
    return arguments


def run_arguments(version, engine, iterations, warm_up_ms, seconds=0):
    """Return options that run an engine, one query in flight with its copies, for at least these runs and seconds."""
    arguments = ["--loadEngine=" + engine, "--exposeDMA", "--iterations=%d" % iterations]
    arguments += ["--warmUp=%d" % warm_up_ms, "--duration=%d" % seconds]
    if version >= (11,):  # by default, 11 leaves out copies, spins and replays a graph
        arguments += ["--includeDataTransfers", "--noSpinWait", "--noCudaGraph"]
    return arguments


def execute(tool, arguments):
    """Run one process and return its result. The process is in our group, and dies with us."""
    library = ctypes.CDLL(None)

    def be_mortal():
        library.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG

    process = subprocess.Popen(
        [tool.path] + arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=be_mortal if hasattr(library, "prctl") else None,
    )
    lines, inference_s = collections.deque(maxlen=LINES_MAX), None
    for line in process.stdout:
        if b"Starting inference" in line:
            inference_s = time.monotonic()
        lines.append(line.decode("utf-8", "replace").rstrip())
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)  # wait() would not return the resources of this one process
    process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ran(list(lines), process.returncode, usage, inference_s)


# ---------------------------------------------------------------- attribution of failures


def messages(lines, letter):
    """Return the text of the log's lines of one severity ("E", "W"), with their continuation lines."""
    found, ours = [], False
    for line in lines:
        head = re.match(r"\[[^\]]*\] \[([A-Z])\] (?:\[TRT\] )?(.*)", line)
        if head:
            ours = head.group(1) == letter
            if ours:
                found.append(head.group(2).strip())
        elif ours and line.strip() and not line.startswith("&&&&"):
            found[-1] += " " + line.strip()
        else:
            ours = False
    return found


def check(tool, ran):
    """Raise JobError where a process failed."""
    failed = any(line.startswith("&&&& FAILED") for line in ran.lines)
    if ran.status == 0 and not failed:
        return
    timing, errors = part("timing"), messages(ran.lines, "E")
    last = next((line for line in reversed(ran.lines) if line.strip()), "none")[:300]
    if ran.status == -signal.SIGKILL:  # not by the agent, which would kill this process too
        raise timing.JobError(
            "out_of_memory", "trtexec was killed, perhaps by the kernel for memory; last output: %s" % last
        )
    unknown = [line for line in errors if line.startswith("Unknown option")]
    if unknown:
        raise timing.JobError("bad_request", "trtexec %d.%d.%d: %s" % (tool.version + ("; ".join(unknown)[:300],)))
    telling = [line for line in errors if not line.startswith(HOLLOW)] or errors
    telling += [line for line in ran.lines[-20:] if "bad_alloc" in line]  # printed by C++, not by the log
    found = part("tensorrt_common").as_job_error(telling or [last], messages(ran.lines, "W"))
    if found.kind in ("unbuildable", "unsupported"):
        if ran.status < 0:
            found = timing.JobError("crashed", "trtexec ended by signal %d: %s" % (-ran.status, found))
        elif any("Error occurred during inference" in line for line in errors) or not errors:
            found.kind = "crashed"
    raise found


# ---------------------------------------------------------------- building


def build(job, path, out):
    """Write the engine of an ONNX file, and return the warnings of trtexec."""
    found, gpu = tool(), part("cuda").gpu()
    if job["precision"] == "int8" and gpu and not part("cuda").fast_int8(gpu["sm"]):
        raise part("tensorrt_common").refuse_int8(gpu)
    folder = tempfile.mkdtemp()
    try:
        ran = build_in(folder, found, job, path, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"notes": [line[:200] for line in messages(ran.lines, "W")[:10]]}


def build_in(folder, tool, job, path, out):
    """Build with a copy of the timing cache, which is put back after a success."""
    plans, kept_file, file = part("tensorrt_common"), None, None
    if job.get("cache"):
        kept_file = plans.cache_file(job["cache"], "trtexec", "%d.%d.%d" % tool.version)
        file = os.path.join(folder, "timing")
        known = plans.kept(kept_file)
        if known:
            with open(file, "wb") as target:
                target.write(known)
    ran = execute(tool, build_arguments(tool.version, job, path, out, file))
    refused = re.search("timing ?cache", " ".join(messages(ran.lines, "E")), re.I)
    if ran.status > 0 and refused and file and os.path.exists(file):  # the cache is unusable: retry without it
        os.unlink(file)
        ran = execute(tool, build_arguments(tool.version, job, path, out, file))
    check(tool, ran)
    if not os.path.exists(out):
        raise part("timing").JobError("crashed", "trtexec %d.%d.%d printed PASSED and wrote no engine" % tool.version)
    if file and os.path.exists(file):
        with open(file, "rb") as source:
            plans.keep(kept_file, source.read())
    return ran


# ---------------------------------------------------------------- measuring


def measure(job):
    """Time `job["model"]` and `job["reference"]` in blocks in turn, each block a process of its own.

    Rows are trtexec's own by the GPU's events: `wall_ms` is copies and compute of one query alone, `gpu_ms` its
    compute. Pairs end early, but not below 5, when they take longer than `seconds_max`.
    """
    found, folder = tool(), tempfile.mkdtemp()
    try:
        pairs, ours, theirs = blocks(found, job, folder)
        value = columns(pairs[: job["pairs"]])
        value.update(memory(found, ours[0].ran))
        value["load_ms"] = (
            sum(map(float, grasp(ours[0].ran, r"Engine (?:loaded|deserialized) in ([\d.]+) sec"))) * 1000.0
        )
        value["warmup_runs"] = sum(
            int(n) for block in ours for n in grasp(block.ran, r"Warmup completed (\d+) queries")
        )
        value["load_average"] = os.getloadavg()[0]
        value["timed_window"] = window(ours[-1])  # one process only: between two the GPU idles, and its clocks fall
        if job.get("energy_s", 0) > 0:
            alone = block(found, job["model"], folder, 1, int(math.ceil(job["energy_s"])))
            value["energy_window"] = dict(window(alone), runs=len(alone.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return value, b""


def blocks(tool, job, folder):
    """Return (pairs of rows, blocks of the candidate, blocks of the reference)."""
    pairs, ours, theirs, began_s = [], [], [], time.monotonic()
    count = min(job["pairs"], PAIRS_FIRST)
    while count > 0:
        ours.append(block(tool, job["model"], folder, count))
        theirs.append(reference_block(tool, job["reference"], folder, count))
        pairs += list(zip(ours[-1].rows, theirs[-1].rows))
        left_s = job["seconds_max"] - (time.monotonic() - began_s)
        count = next_count(job["pairs"] - len(pairs), max(1, BLOCKS - len(ours)), left_s, ours[-1], theirs[-1])
    return pairs, ours, theirs


def next_count(wanted, blocks_left, left_s, ours, theirs):
    """Return the rows of the next two blocks: an equal share of those still needed, as far as the time left allows."""
    pair_s = sum(part("timing").median([row["latencyMs"] for row in item.rows]) for item in (ours, theirs)) / 1000.0
    starting_s = max(0.0, ours.seconds + theirs.seconds - pair_s * len(ours.rows))
    least = min(PAIRS_MIN, wanted)  # fewer are not worth the start of two processes
    count = min(max(least, int(math.ceil(wanted / float(blocks_left)))), int((left_s - starting_s) / pair_s))
    return count if count >= least else 0


def reference_block(tool, path, folder, count):
    """Return the reference's rows. If it fails, the candidate is not to blame."""
    try:
        return block(tool, path, folder, count)
    except part("timing").JobError as error:
        raise part("timing").JobError("reference", "the reference model does not run here: %s" % error)


def block(tool, engine, folder, count, seconds=0):
    """Return the rows of one process."""
    began_s, times = time.monotonic(), os.path.join(folder, "times")
    arguments = run_arguments(tool.version, engine, count, WARM_UP_MS, seconds)
    ran = execute(tool, arguments + ["--exportTimes=" + times])
    check(tool, ran)
    rows = read_rows(times)
    if not rows:
        raise part("timing").JobError("crashed", "trtexec %d.%d.%d passed and timed nothing" % tool.version)
    return Block(rows, ran, time.monotonic() - began_s)


def read_rows(path):
    """Return the rows of --exportTimes after the warm-up; 8.2 exports those of the warm-up, too."""
    try:
        with open(path) as file:
            rows = json.load(file)
        rows = [row for row in rows if row["startComputeMs"] >= WARM_UP_MS]
        return [row for row in rows if 0 < row["computeMs"] <= row["latencyMs"] < 1e9]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise part("timing").JobError("crashed", "trtexec's times can't be read: %s" % error)


def columns(pairs):
    """Return the lists of a block by name."""

    def enqueue_ms(row):
        return max(0.0, row["endEnqMs"] - row["startEnqMs"])

    value = {}
    for side, prefix in ((0, ""), (1, "reference_")):
        rows = [pair[side] for pair in pairs]
        value[prefix + "wall_ms"] = [float(row["latencyMs"]) for row in rows]
        value[prefix + "gpu_ms"] = [float(row["computeMs"]) for row in rows]
        value[prefix + "cpu_ms"] = [enqueue_ms(row) for row in rows]
    return value


def memory(tool, ran):
    """Return host memory of the process and of its state before the engine, and TensorRT's own memory on the GPU."""
    before = grasp(ran, r"\[MemUsageChange\] Init CUDA: .* now: CPU (\d+), GPU")
    managed = grasp(ran, r"TensorRT-managed allocation in .*, now: CPU \d+, GPU (\d+) \(MiB\)")
    peak_mb = ran.usage.ru_maxrss / 1024.0
    runtime_mb = min(float(before[0]) if before else execute(tool, ["--help"]).usage.ru_maxrss / 1024.0, peak_mb)
    device_mb = float(managed[-1]) * 1.048576 if managed else None
    return {"peak_mb": peak_mb, "runtime_mb": runtime_mb, "device_mb": device_mb}


def grasp(ran, pattern):
    """Return the matches of a pattern's group, line by line."""
    found = [re.search(pattern, line) for line in ran.lines]
    return [match.group(1) for match in found if match]


def window(block):
    """Return when a block's rows were timed, by the monotonic clock; trtexec's own starts with the inference."""
    from_s = block.ran.inference_s or time.monotonic() - block.seconds
    return {
        "from_s": from_s + block.rows[0]["startEnqMs"] / 1000.0,
        "to_s": from_s + block.rows[-1]["endD2hMs"] / 1000.0,
    }


# ---------------------------------------------------------------- layers of an engine


def layers(job):
    """Return the layers of the very engine that is timed, with their times; none before 8.2, which has no inspector."""
    found, folder = tool(), tempfile.mkdtemp()
    if found.version < (8, 2):
        return []
    try:
        made_of, times = os.path.join(folder, "layers"), os.path.join(folder, "profile")
        arguments = run_arguments(found.version, job["model"], 20, WARM_UP_MS)
        check(found, execute(found, arguments + ["--exportLayerInfo=" + made_of, "--exportProfile=" + times]))
        with open(made_of) as file:
            information = file.read()
        with open(times) as file:
            rows = [row for row in json.load(file) if "name" in row]  # the first row has only the number of runs
        return part("tensorrt_common").layers(
            information, dict((row["name"], [float(row["averageMs"])]) for row in rows)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise part("timing").JobError("crashed", "trtexec's layers can't be read: %s" % error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- predicting


def predict(job):
    """Return the logits of the float32 rows in `job["data"]`, a process for each: seconds an image, so keep them few.

    (rows, channels, height, width) -> (rows, classes), little-endian float32 both, of 6 digits each.
    """
    rows, row_bytes = job["shape"][0], 4
    for size in job["shape"][1:]:
        row_bytes *= size
    if os.path.getsize(job["data"]) != rows * row_bytes:
        raise part("timing").JobError(
            "bad_request", "the data are not %s float32 values" % "x".join(map(str, job["shape"]))
        )
    found, folder = tool(), tempfile.mkdtemp()
    try:
        first, last = input_and_output(found, job["model"], row_bytes)
        with open(job["data"], "rb") as file:
            outputs = [one(found, job["model"], folder, first, last, file.read(row_bytes)) for _ in range(rows)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lengths = sorted(set(len(output) for output in outputs))
    if len(lengths) != 1:
        raise part("timing").JobError("unbuildable", "the model's outputs have different lengths: %s" % lengths)
    return {"shape": [rows, lengths[0] // 4]}, b"".join(outputs)


def bindings(ran, kind):
    """Return (name, shape, type or None) of the inputs or outputs from the log.

    8: "Created input binding for x with dimensions 1x3"; 10: "Input binding for x with dimensions 1x3 is created.";
    11: "... with dimensions 1x3 and type fp32 is created."
    """
    pattern = r"\b%s binding for (.*) with dimensions ([\dx]+)(?: and type (\w+))?(?: is created\.)?$" % kind
    found = [re.search(pattern, line, re.I) for line in ran.lines]
    return [match.groups() for match in found if match]


def input_and_output(tool, engine, row_bytes):
    """Return the names of the engine's first input and output, which trtexec prints only when it runs the engine."""
    ran = execute(tool, run_arguments(tool.version, engine, 1, 0))
    check(tool, ran)
    inputs, outputs = bindings(ran, "input"), bindings(ran, "output")
    if not inputs or not outputs:
        raise part("timing").JobError("crashed", "trtexec did not print the model's input and output")
    name, shape, kind = inputs[0]
    values = 1
    for size in shape.split("x"):
        values *= int(size)
    if 4 * values != row_bytes:
        reason = "an input has %d values, the model takes %s" % (row_bytes // 4, shape)
        raise part("timing").JobError("unbuildable", reason)
    if len(inputs) > 1 or "," in name or kind not in (None, "fp32"):
        reason = "trtexec accepts one float32 input without a comma in its name, not %s" % (inputs,)
        raise part("timing").JobError("unsupported", reason)
    return name, outputs[0][0]


def one(tool, engine, folder, name, output, data):
    """Return float32 bytes of the output for one input."""
    given, taken = os.path.join(folder, "input"), os.path.join(folder, "output")
    with open(given, "wb") as file:
        file.write(data)
    arguments = run_arguments(tool.version, engine, 1, 0)
    check(tool, execute(tool, arguments + ["--loadInputs=%s:%s" % (name, given), "--exportOutput=" + taken]))
    try:
        with open(taken) as file:
            text = re.sub(r"([\s,\[]-?)inf\b", r"\1Infinity", re.sub(r"([\s,\[])-?nan\b", r"\1NaN", file.read()))
        values = next(row["values"] for row in json.loads(text) if row["name"] == output)
        return struct.pack("<%df" % len(values), *values)
    except (OSError, ValueError, KeyError, StopIteration, struct.error) as error:
        raise part("timing").JobError("crashed", "trtexec's output can't be read: %s" % (str(error) or "none"))
