"""Run ONNX Runtime on the device: its CPU provider, and CUDA, TensorRT and OpenVINO where the build has them.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called. ONNX Runtime 1.10, the last for Python 3.6, is the oldest it must work with.
"""

import importlib
import importlib.util
import json
import os
import re
import shutil
import tempfile

NEEDS = "onnx"
BUILDS = False
PROVIDERS = {
    "": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
ENGINES_KEPT = 16
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
# Messages of a provider that is in the build, while its own libraries, driver or GPU are not on the device.
ABSENT = (
    "Please install",
    "Failed to load library",
    "no CUDA-capable device",
    "driver version is insufficient",
)


def offers():
    """Return the version of the installed package, by the names it can be asked for.

    A provider other than the CPU's is a library beside the package: checking for the file spares the import,
    a quarter of a second here and several on a small board.
    """
    version = part("timing").version_of("onnxruntime")
    if version is None:
        return {}
    folder = os.path.join(os.path.dirname(importlib.util.find_spec("onnxruntime").origin), "capi")
    found = {"onnxruntime": version}
    for option in sorted(PROVIDERS):
        if option and os.path.isfile(os.path.join(folder, "libonnxruntime_providers_%s.so" % option)):
            found["onnxruntime:" + option] = version
    return found


def libraries():
    """Return (onnxruntime, numpy)."""
    try:
        return importlib.import_module("onnxruntime"), importlib.import_module("numpy")
    except ImportError as error:
        raise part("timing").JobError("no_runtime", "onnxruntime cannot be imported: %s" % error)


def load(job, path):
    """Return the model in a session as an ordinary user gets it, on the provider the runtime's name asks for."""
    return opened(job, path, None)


def opened(job, path, profile):
    """Return a session as `load` does, which writes its nodes' times to a file named `profile...`, unless None."""
    ort, numpy = libraries()
    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if job["threads"] > 1:  # spinning threads keep cores busy that other processes of a small board need
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = provider(ort, job["runtime"].partition(":")[2])
    chain = [(wanted, provider_options(ort, wanted, job, path))]
    if wanted == PROVIDERS["tensorrt"]:  # nodes that TensorRT does not support shall stay on the GPU
        chain.append((PROVIDERS["cuda"], {}))
    if wanted != PROVIDERS[""]:
        chain.append((PROVIDERS[""], {}))
    try:
        session = ort.InferenceSession(path, options, providers=chain, enable_fallback=0)
    except Exception as error:
        if any(word in str(error) for word in ABSENT):
            raise part("timing").JobError("no_runtime", "%s did not start: %s" % (wanted, one_line(error)))
        raise part("timing").as_job_error(error, UNSUPPORTED)
    session.disable_fallback()  # otherwise another provider would be used, and timed, after a failed run
    got = session.get_providers()[0]
    if got != wanted:  # a build lists TensorRT and CUDA even where their libraries are not on the device
        reason = "%s is in this onnxruntime, but %s started instead: are its libraries installed?" % (wanted, got)
        raise part("timing").JobError("no_runtime", reason)
    return Model(numpy, session, job.get("shape"))


# Names of operators on eight bits: up to 1.8 a profile does not contain the types of a node's inputs.
EIGHT_BITS = re.compile(r"(QLinear|QGemm|QAttention|ConvInteger|MatMulInteger|DynamicQuantize)")
PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}


def layers(job):
    """Return the nodes of the optimized graph with the precision each takes its input in, and its median time.

    Nodes of a GPU have no time: the profile has only how long the host took to start them.
    """
    folder = tempfile.mkdtemp()
    try:
        model = opened(job, job["model"], os.path.join(folder, "profile"))
        part("timing").runs(model, job["seconds_max"])
        with open(model.session.end_profiling()) as file:
            events = json.load(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            place = event["args"].get("node_index", event["args"].get("exec_plan_index"))
            found.setdefault((place, event["name"]), []).append(event)
    return [node(same) for _, same in sorted(found.items(), key=lambda item: item[1][0]["ts"])]


def node(events):
    """Return one layer from the events of all its runs; the first runs find cold caches, so the median is taken."""
    words = events[0]["args"]
    kind = words.get("op_name", "")
    on_host = words.get("provider") in (PROVIDERS[""], PROVIDERS["openvino"], None)
    ms = part("timing").median([event["dur"] for event in events]) / 1000.0 if on_host else 0.0
    return part("timing").layer(event_name(events[0]), kind, precision_of(kind, words), ms)


def event_name(event):
    """Return the node's name, without the suffix of the profile."""
    return event["name"][: -len("_kernel_time")]


def precision_of(kind, words):
    """Return `fp32`, `fp16`, `bf16` or `int8`; empty for a provider's node of a whole graph, or for other types."""
    types = [name for item in words.get("input_type_shape", []) for name in item]
    if EIGHT_BITS.match(kind):
        return "int8"
    if kind.startswith(("TRTKernel", "OpenVINO")):
        return ""
    return PRECISIONS.get(types[0], "") if types else ""


def one_line(error):
    """Return the words of an exception, at most 400 characters."""
    return " ".join(str(error).split())[:400]


def provider(ort, option):
    """Return the full name of the provider an option stands for."""
    if option not in PROVIDERS:
        known = ", ".join(filter(None, sorted(PROVIDERS)))
        raise part("timing").JobError("bad_request", "onnxruntime has no option %r; accepted: %s" % (option, known))
    there = ort.get_available_providers()
    if PROVIDERS[option] not in there:
        reason = "onnxruntime %s has no %s; it has %s" % (ort.__version__, PROVIDERS[option], ", ".join(there))
        raise part("timing").JobError("no_runtime", reason)
    return PROVIDERS[option]


def provider_options(ort, wanted, job, path):
    """Return options by name, as strings, which every version accepts."""
    if wanted == PROVIDERS["tensorrt"]:
        found = {
            "trt_max_workspace_size": str(int(job.get("workspace_mb", 256)) << 20),
            # The graph is typed, but up to TensorRT 10 a precision must also be allowed.
            "trt_fp16_enable": str(job["precision"] == "fp16"),
            "trt_int8_enable": str(job["precision"] == "int8"),
        }
        gpu = part("cuda").gpu()
        if gpu and part("cuda").sparse(gpu["sm"]) and version(ort) >= (1, 15):  # the first version with the option
            found["trt_sparsity_enable"] = "True"
        if job.get("cache"):
            found["trt_engine_cache_enable"] = "True"
            found["trt_engine_cache_path"] = engine_folder(job["cache"], path)
        return found
    if wanted == PROVIDERS["openvino"]:
        return {"device_type": "CPU" if version(ort) >= (1, 17) else "CPU_FP32", "num_of_threads": str(job["threads"])}
    return {}


def version(ort):
    """Return (1, 17) for 1.17.3."""
    return tuple(int(number) for number in re.findall(r"\d+", ort.__version__)[:2])


def engine_folder(cache, path):
    """Return the folder for the engines of one model; the oldest of others are removed.

    The provider names an engine by the graph's structure, not by its weights: two models must not share one.
    """
    home = os.path.join(cache, "onnxruntime-tensorrt")
    folder = os.path.join(home, os.path.basename(path))
    os.makedirs(folder, exist_ok=True)
    os.utime(folder, None)
    others = [os.path.join(home, name) for name in os.listdir(home)]
    for old in sorted(others, key=os.path.getmtime)[:-ENGINES_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


class Model(object):
    """Run a session with its input set. Runs go from host to host on every provider."""

    gpu_ms = None
    device_mb = None

    def __init__(self, numpy, session, shape):
        self.numpy, self.session = numpy, session
        self.wanted = session.get_inputs()
        self.row = None if shape is None else [1] + list(shape[1:])
        self.inputs = self.outputs = None

    def feed(self, floats):
        if floats is None:
            self.inputs = self.random()
            return
        first = self.wanted[0]
        row = self.numpy.frombuffer(floats, dtype="<f4").reshape(self.row or fixed(first.shape))
        self.inputs = {first.name: row.astype(self.dtype(first))}

    def run(self):
        try:
            self.outputs = self.session.run(None, self.inputs)
        except Exception as error:
            raise part("timing").as_job_error(error, UNSUPPORTED)

    def output(self):
        return self.numpy.asarray(self.outputs[0], dtype="<f4").tobytes()

    def random(self):
        """Return seeded inputs of the shapes and types the model asks for."""
        generator = self.numpy.random.RandomState(0)
        inputs = {}
        for wanted in self.wanted:
            shape, dtype = fixed(wanted.shape), self.dtype(wanted)
            if dtype.kind == "f":
                inputs[wanted.name] = generator.standard_normal(shape).astype(dtype)
            else:
                inputs[wanted.name] = generator.randint(0, 2, size=shape).astype(dtype)
        return inputs

    def dtype(self, wanted):
        """Return the numpy type of a model's input."""
        name = re.sub(r"tensor\((\w+)\)", r"\1", wanted.type)
        try:
            return self.numpy.dtype({"float": "float32", "double": "float64"}.get(name, name))
        except TypeError:
            raise part("timing").JobError("unsupported", "input %s has type %s" % (wanted.name, wanted.type))


def fixed(shape):
    """Return a shape with 1 in the place of free dimensions."""
    return [size if isinstance(size, int) and size > 0 else 1 for size in shape]
