# mypy: ignore-errors
"""Share code of TensorRT's two runtimes: attribution of failures, lasting timing caches, layers of an engine.

Sent to the device as text: Python 3.6, standard library only. "Plan" is TensorRT's word for an engine in a file.
"""

import hashlib
import json
import os
import re

CACHE_MAX = 64 << 20  # bytes of a timing cache; a larger one is begun anew

NO_GPU = (
    r"CUDA initialization failure|no CUDA-capable device|CUDA driver version is insufficient|Cuda failure: (?:35|100)\b"
)
NO_MEMORY = (
    r"out ?of ?memory|insuff?icient (?:device )?memory|memory is insufficient|could not be allocated|bad_alloc"
    r"|FAILED_ALLOCATION|STATUS_ALLOC_FAILED|MEM_ALLOC_FAILED|Requested amount of GPU memory"
)
# The ONNX parser's codes 7 to 13 are for unsupported graphs, by name in Python and by number in the log.
UNSUPPORTED = (
    r"UNSUPPORTED_|In (?:function|node)[^[]*\[(?:[7-9]|1[0-3])\] |No importer registered|could not find plugin"
    r"|Plugin not found|[Uu]nsupported|not supported|require hardware with Int8 support"
)
KINDS = (("int8", "int8"), ("bf16", "bf16"), ("fp16", "fp16"), ("half", "fp16"), ("fp32", "fp32"), ("float", "fp32"))
NODE_DUMP = r"--- (?:Begin|End) node ---|\.cpp:\d+: (?:input|name|op_type): "
NO_TACTIC = r"Could not find any implementation|no implementation"


def as_job_error(errors, warnings=()):
    """Return TensorRT's complaint as JobError, with its own words for the reason."""
    whole = "\n".join(errors)
    # Tactics that need more memory than there is are skipped with a warning, until none is left.
    starved = re.search(NO_TACTIC, whole) and re.search(NO_MEMORY, "\n".join(warnings), re.I)
    if re.search(NO_GPU, whole):
        kind = "no_runtime"
    elif starved or re.search(NO_MEMORY, whole, re.I):
        kind = "out_of_memory"
    else:
        kind = "unsupported" if re.search(UNSUPPORTED, whole) else "unbuildable"
    telling = [line for line in errors if not re.search(NODE_DUMP, line)] or errors
    return part("timing").JobError(kind, "; ".join(telling[:3])[:500] or "TensorRT gave no reason")


def refuse_int8(gpu):
    """Return JobError for int8 on a GPU (None: not known) without int8, where TensorRT fails late or is slow."""
    named = "%s (sm %s)" % (gpu["name"], gpu["sm"]) if gpu else "this GPU"
    return part("timing").JobError("unsupported", "%s has no int8 arithmetic: use fp16 or fp32 on it" % named)


def layers(information, times_ms):
    """Return the layers of an engine from its inspector's JSON, with the median of the times from the profiler.

    An engine that was built without detailed verbosity has names only, without the layers' precision.
    """
    found = []
    for entry in json.loads(information).get("Layers", []):
        entry = entry if isinstance(entry, dict) else {"Name": entry}
        times = times_ms.get(entry.get("Name")) or [0.0]
        ms = part("timing").median(times)
        found.append(part("timing").layer(entry["Name"], entry.get("LayerType", ""), precision(entry), ms))
    return found


def precision(entry):
    """Return the precision of a layer's first input: `Thirty-two wide channel vectorized row major Int8 format`."""
    words = " ".join(item.get("Format/Datatype", "") for item in entry.get("Inputs", [])[:1]).lower()
    return next((known for word, known in KINDS if word in words), "")


def cache_file(folder, runtime, version):
    """Return the path of a timing cache: each version of TensorRT and each kind of GPU has its own."""
    os.makedirs(folder, exist_ok=True)
    gpu = part("cuda").gpu()
    return os.path.join(folder, "%s-%s-sm%s" % (runtime, version, gpu["sm"] if gpu else "-unknown"))


def kept(file):
    """Return the bytes that keep() wrote; none if they are damaged: TensorRT's C++ must not parse foreign data."""
    try:
        with open(file, "rb") as source:
            data = source.read(CACHE_MAX + 32)
    except OSError:
        return b""
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else b""


def keep(file, data):
    """Write bytes behind their digest, whole or not at all. A full disk costs only the time the cache would save."""
    temporary = "%s.%d" % (file, os.getpid())
    try:
        with open(temporary, "wb") as target:
            target.write(hashlib.sha256(data).digest() + data)
        os.rename(temporary, file)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
