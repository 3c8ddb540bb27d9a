"""Run OpenVINO on the device: its CPU, and an Intel GPU where it finds one.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called.
"""

import glob
import importlib
import os
import re
import tempfile

NEEDS = "onnx"
BUILDS = False
DEVICES = {"": "CPU", "gpu": "GPU"}
UNSUPPORTED = (
    "OpConversionFailure",
    "does not support the following ONNX operations",
    "No conversion rule found",
    "not supported",
    "Unsupported",
    "NOT_IMPLEMENTED",
    "NotImplemented",
)


def offers():
    """Return the version of the installed package; `openvino:gpu` where OpenVINO lists a GPU.

    Listing GPUs means importing OpenVINO and opening the graphics driver, so it is done only where there is one.
    """
    version = part("timing").version_of("openvino")
    if version is None:
        return {}
    found = {"openvino": version}
    if glob.glob("/dev/dri/renderD*"):
        try:
            if any(name.startswith("GPU") for name in libraries()[0].Core().available_devices):
                found["openvino:gpu"] = version
        except Exception:  # with a broken driver, only the CPU is offered
            pass
    return found


def libraries():
    """Return (openvino, numpy); before 2023 the names were one package deeper."""
    try:
        numpy, openvino = importlib.import_module("numpy"), importlib.import_module("openvino")
        return openvino if hasattr(openvino, "Core") else importlib.import_module("openvino.runtime"), numpy
    except ImportError as error:
        raise part("timing").JobError("no_runtime", "openvino cannot be imported: %s" % error)


def load(job, path):
    """Return the model compiled for one request at a time."""
    return opened(job, path, {})


def opened(job, path, more):
    """Return the model as `load` does, with more properties than a user would set."""
    openvino, numpy = libraries()
    core = openvino.Core()
    device = find_device(core, job["runtime"].partition(":")[2])
    try:
        with tempfile.TemporaryDirectory() as folder:
            named = os.path.join(folder, "model.onnx")  # OpenVINO takes the format from the suffix, which blobs lack
            os.symlink(os.path.abspath(path), named)
            compiled = core.compile_model(core.read_model(named), device, dict(settings(core, device, job), **more))
        return Model(numpy, compiled)
    except part("timing").JobError:
        raise
    except Exception as error:
        raise fault(error)


PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}


def layers(job):
    """Return the executed nodes of the compiled graph, with the precision each computes in, and its mean time."""
    model = opened(job, job["model"], {"PERF_COUNT": "YES"})
    part("timing").runs(model, job["seconds_max"])
    found = []
    for op in model.compiled.get_runtime_model().get_ordered_ops():
        words = told(op.get_rt_info())
        if words["execTimeMcs"].isdigit():
            found.append(node(op.get_friendly_name(), words))
    return found


def told(info):
    """Return a node's properties as text; some versions wrap the values in another class."""
    names = ("execTimeMcs", "layerType", "runtimePrecision", "originalLayersNames")
    found = dict((name, info[name] if name in info else "") for name in names)
    return dict((name, value if isinstance(value, str) else value.astype(str)) for name, value in found.items())


def node(name, words):
    """Return one layer. Quantizing alone, which OpenVINO compiles as any other arithmetic, is named Quantize."""
    parts = [item for item in words["originalLayersNames"].split(",") if item]
    quantizes = parts and all("QuantizeLinear" in item for item in parts)
    kind = "Quantize" if quantizes and words["layerType"] == "Subgraph" else words["layerType"]
    precision = words["runtimePrecision"].lower()
    precision = {"fp32": "f32", "fp16": "f16"}.get(precision, precision)  # as versions before 2023 name them
    return part("timing").layer(name, kind, PRECISIONS.get(precision, ""), int(words["execTimeMcs"]) / 1000.0)


def fault(error):
    """Return JobError for OpenVINO's error, without the places in its source that it names at every level."""
    text = re.sub(r"(Exception from|Check '[^']*' failed at) \S+:\d+:", "", str(error))
    return part("timing").as_job_error(error, UNSUPPORTED, text)


def find_device(core, option):
    """Return OpenVINO's name of the device an option stands for."""
    if option not in DEVICES:
        raise part("timing").JobError("bad_request", "openvino has no option %r; accepted: gpu" % option)
    there = core.available_devices
    if not any(name.split(".")[0] == DEVICES[option] for name in there):
        raise part("timing").JobError("no_runtime", "openvino finds no %s here; it finds %s" % (DEVICES[option], there))
    return DEVICES[option]


def settings(core, device, job):
    """Return those of the properties, by name, that this version has.

    By default, OpenVINO computes an fp32 graph in bf16 or fp16 where that is fast; the timed and scored precision
    must be the one asked for.
    """
    half = job["precision"] == "fp16" and has_half(core, device)
    wanted = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": "f16" if half else "f32",
    }
    if device == "CPU":
        wanted["INFERENCE_NUM_THREADS"] = str(job["threads"])
    elif job.get("cache"):
        wanted["CACHE_DIR"] = os.path.join(job["cache"], "openvino")  # kernels take seconds to compile
    known = set(str(name) for name in core.get_property(device, "SUPPORTED_PROPERTIES"))
    return dict((name, value) for name, value in wanted.items() if name in known)


def has_half(core, device):
    """Return whether a request for fp16 yields fp16: on a processor with bf16 only it may yield bf16, or an error."""
    try:
        core.set_property(device, {"INFERENCE_PRECISION_HINT": "f16"})
        return re.search(r"\bf(loat)?16\b", str(core.get_property(device, "INFERENCE_PRECISION_HINT"))) is not None
    except Exception:
        return False


class Model(object):
    """Run a compiled model with one request; the input is set before the run."""

    gpu_ms = None
    device_mb = None

    def __init__(self, numpy, compiled):
        self.numpy, self.compiled = numpy, compiled
        if compiled.input(0).partial_shape.is_dynamic:
            raise part("timing").JobError("unsupported", "the input has a free dimension: export it with fixed sizes")
        self.request = compiled.create_infer_request()
        self.input = self.request.get_input_tensor(0).data  # an array over the request's own memory

    def feed(self, floats):
        self.input[:] = part("timing").row(self.numpy, floats, list(self.input.shape))

    def run(self):
        try:
            self.request.infer()
        except Exception as error:
            raise fault(error)

    def output(self):
        return self.numpy.asarray(self.request.get_output_tensor(0).data, dtype="<f4").tobytes()
