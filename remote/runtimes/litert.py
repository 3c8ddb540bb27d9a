"""LiteRT (TensorFlow Lite) on the device's CPU, by whichever package of it is installed.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called. Float operators run on the XNNPACK delegate, as they do by default.
"""

import importlib

NEEDS = "tflite"
BUILDS = False
# package, module with the Interpreter, names it is installed under; by preference
PACKAGES = (
    ("ai_edge_litert", "ai_edge_litert.interpreter", ()),
    ("tflite_runtime", "tflite_runtime.interpreter", ()),
    (
        "tensorflow",
        "tensorflow.lite.python.interpreter",
        ("tensorflow", "tensorflow_cpu", "tensorflow_aarch64", "tensorflow_cpu_aws"),
    ),
)
UNSUPPORTED = ("Didn't find op for builtin opcode", "nresolved custom op", "Select TensorFlow op", "Unsupported")


def offers():
    """Version of the package that would be taken."""
    for package, _, distributions in PACKAGES:
        version = part("timing").version_of(package, *distributions)
        if version is not None:
            return {"litert": version}
    return {}


def libraries():
    """(Interpreter class, numpy) of the first package that can be imported."""
    reasons = []
    for package, module, _ in PACKAGES:
        try:
            return importlib.import_module(module).Interpreter, importlib.import_module("numpy")
        except (ImportError, AttributeError) as error:
            reasons.append("%s: %s" % (package, error))
    raise part("timing").Unfit("no_runtime", "no LiteRT can be imported (%s)" % "; ".join(reasons))


def load(job, path):
    """The model in an interpreter with its memory laid out."""
    interpreter_class, numpy = libraries()
    try:
        interpreter = interpreter_class(model_path=path, num_threads=job["threads"])
        interpreter.allocate_tensors()
    except Exception as error:
        raise part("timing").unfit(error, UNSUPPORTED)
    return Model(numpy, interpreter, job.get("shape"))


def channels_last(shape, row):
    """True if the model takes (1, height, width, channels) where a row is (channels, height, width).

    That is the format's own order; where the row's shape is not known, few of the last dimension tell it.
    """
    if len(shape) != 4:
        return False
    if row is None:
        return shape[3] <= 4
    return list(shape[1:]) == [row[1], row[2], row[0]]


class Model(object):
    """An interpreter. Input and output are float32 whatever the model's own types are."""

    gpu_ms = None
    device_mb = None

    def __init__(self, numpy, interpreter, shape):
        self.numpy, self.interpreter = numpy, interpreter
        self.wanted, self.given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        self.shape = [int(size) for size in self.wanted["shape"]]
        self.turned = channels_last(self.shape, shape and list(shape[1:]))

    def feed(self, floats):
        shape = self.shape
        if self.turned:
            shape = [shape[0], shape[3], shape[1], shape[2]]
        row = part("timing").row(self.numpy, floats, shape)
        if self.turned:
            row = row.transpose(0, 2, 3, 1)
        try:
            self.interpreter.set_tensor(self.wanted["index"], self.quantized(row))
        except Exception as error:
            raise part("timing").unfit(error, UNSUPPORTED)

    def run(self):
        try:
            self.interpreter.invoke()
        except Exception as error:
            raise part("timing").unfit(error, UNSUPPORTED)

    def output(self):
        values = self.interpreter.get_tensor(self.given["index"])
        scale, zero_point = self.given["quantization"]
        if scale:
            values = (values.astype("f4") - zero_point) * scale
        return self.numpy.asarray(values, dtype="<f4").tobytes()

    def quantized(self, row):
        """A row in the model's own type."""
        dtype = self.numpy.dtype(self.wanted["dtype"])
        scale, zero_point = self.wanted["quantization"]
        if scale:
            limits = self.numpy.iinfo(dtype)
            row = self.numpy.clip(self.numpy.round(row / scale) + zero_point, limits.min, limits.max)
        return self.numpy.ascontiguousarray(row, dtype=dtype)
