"""OpenVINO on the device: its CPU, and an Intel GPU where it finds one.

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
    """Version of what is installed; `openvino:gpu` where OpenVINO lists a GPU.

    Asking for GPUs means importing it and opening the graphics driver: only where there is one.
    """
    version = part("timing").version_of("openvino")
    if version is None:
        return {}
    found = {"openvino": version}
    if glob.glob("/dev/dri/renderD*"):
        try:
            if any(name.startswith("GPU") for name in libraries()[0].Core().available_devices):
                found["openvino:gpu"] = version
        except Exception:  # a broken driver leaves the CPU
            pass
    return found


def libraries():
    """(openvino, numpy); before 2023 the names were one package deeper."""
    try:
        numpy, openvino = importlib.import_module("numpy"), importlib.import_module("openvino")
        return openvino if hasattr(openvino, "Core") else importlib.import_module("openvino.runtime"), numpy
    except ImportError as error:
        raise part("timing").Unfit("no_runtime", "openvino cannot be imported: %s" % error)


def load(job, path):
    """The model compiled for one request at a time."""
    openvino, numpy = libraries()
    core = openvino.Core()
    device = find_device(core, job["runtime"].partition(":")[2])
    try:
        with tempfile.TemporaryDirectory() as folder:
            named = os.path.join(folder, "model.onnx")  # the format is told from the name, and blobs have none
            os.symlink(os.path.abspath(path), named)
            compiled = core.compile_model(core.read_model(named), device, settings(core, device, job))
        return Model(numpy, compiled)
    except part("timing").Unfit:
        raise
    except Exception as error:
        raise fault(error)


def fault(error):
    """Unfit for what OpenVINO raised, without the places in its source that it names at every level."""
    text = re.sub(r"(Exception from|Check '[^']*' failed at) \S+:\d+:", "", str(error))
    return part("timing").unfit(error, UNSUPPORTED, text)


def find_device(core, option):
    """OpenVINO's name of the device an option stands for."""
    if option not in DEVICES:
        raise part("timing").Unfit("bad_request", "openvino has no option %r; there is gpu" % option)
    there = core.available_devices
    if not any(name.split(".")[0] == DEVICES[option] for name in there):
        raise part("timing").Unfit("no_runtime", "openvino finds no %s here; it finds %s" % (DEVICES[option], there))
    return DEVICES[option]


def settings(core, device, job):
    """Properties by name, those of them that this version has.

    Left alone, OpenVINO computes an fp32 graph in bf16 or fp16 where that is fast: what is timed and scored must
    be what was asked for.
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
    """True if fp16 is what one gets for asking: on a processor with bf16 only it may be bf16, or an error."""
    try:
        core.set_property(device, {"INFERENCE_PRECISION_HINT": "f16"})
        return re.search(r"\bf(loat)?16\b", str(core.get_property(device, "INFERENCE_PRECISION_HINT"))) is not None
    except Exception:
        return False


class Model(object):
    """A compiled model with one request, whose input is set before it runs."""

    gpu_ms = None
    device_mb = None

    def __init__(self, numpy, compiled):
        self.numpy = numpy
        if compiled.input(0).partial_shape.is_dynamic:
            raise part("timing").Unfit("unsupported", "the input has a free dimension: export it with fixed sizes")
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
