"""Run ncnn on the device's CPU. The model is a zip of `model.param` and `model.bin`.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called.
"""

import importlib
import os
import re
import shutil
import tempfile
import zipfile

NEEDS = "ncnn"
BUILDS = False
FILES = ("model.param", "model.bin")
HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")
BRAIN = ("use_bf16_packed", "use_bf16_storage")
UNSUPPORTED = ("not exists or registered", "not supported", "unsupported")


def offers():
    """Return the version of the installed package."""
    version = part("timing").version_of("ncnn")
    return {} if version is None else {"ncnn": version}


def libraries():
    """Return (ncnn, numpy)."""
    try:
        return importlib.import_module("ncnn"), importlib.import_module("numpy")
    except ImportError as error:
        raise part("timing").JobError("no_runtime", "ncnn cannot be imported: %s" % error)


def load(job, path):
    """Return the net, in the precision asked for."""
    ncnn, numpy = libraries()
    if job["precision"] not in ("fp32", "fp16"):
        raise part("timing").JobError("unsupported", "ncnn runs fp32 and fp16 graphs here, not %s" % job["precision"])
    net = ncnn.Net()
    choose(net.opt, job)
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(path, folder)
        with open(files[0]) as file:
            shape = input_shape(file.read())
        for work, name in ((net.load_param, files[0]), (net.load_model, files[1])):
            status, said = overheard(lambda: work(name), folder)
            if status != 0:
                reason = said or "ncnn does not read %s" % os.path.basename(name)
                raise part("timing").as_job_error(RuntimeError(reason), UNSUPPORTED)
    return Model(ncnn, numpy, net, shape)


def choose(options, job):
    """Set threads and precision. By default, ncnn computes in half precision wherever the processor can."""
    options.use_vulkan_compute = False
    options.num_threads = job["threads"]
    for name in HALF + BRAIN:
        if hasattr(options, name):
            setattr(options, name, name in HALF and job["precision"] == "fp16")


def unpack(path, folder):
    """Unpack the two files and return their paths."""
    try:
        with zipfile.ZipFile(path) as packed:
            for name in FILES:
                with packed.open(name) as source, open(os.path.join(folder, name), "wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise part("timing").JobError("unbuildable", "not a zip of model.param and model.bin: %s" % error)
    return [os.path.join(folder, name) for name in FILES]


def input_shape(param):
    """Return [channels, height, width] from the net's text: `Input in0 0 1 in0 0=width 1=height 2=channels`."""
    for line in param.splitlines():
        words = line.split()
        if words[:1] == ["Input"]:
            sizes = dict(
                re.match(r"(-?\d+)=(\d+)$", word).groups() for word in words[5:] if re.match(r"\d+=\d+$", word)
            )
            if all(key in sizes for key in "012"):
                return [int(sizes[key]) for key in "210"]
    raise part("timing").JobError(
        "unbuildable", "model.param does not contain the input's size (0=width 1=height 2=channels)"
    )


def overheard(work, folder):
    """Return (result of `work`, the last line it printed), since ncnn reports errors on stderr only."""
    name = os.path.join(folder, "said")
    kept = os.dup(2)
    heard = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(heard, 2)
    try:
        status = work()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(heard)
    with open(name, errors="replace") as file:
        lines = file.read().split("\n")
    return status, ([line for line in lines if line.strip()] or [""])[-1]


class Model(object):
    """Run a net with its input set; every run is a new extraction, as ncnn requires."""

    gpu_ms = None
    device_mb = None

    def __init__(self, ncnn, numpy, net, shape):
        self.ncnn, self.numpy, self.net, self.shape = ncnn, numpy, net, shape
        self.wanted, self.given = net.input_names()[0], net.output_names()[0]
        self.input = self.result = None

    def feed(self, floats):
        row = part("timing").row(self.numpy, floats, self.shape).astype(self.numpy.float32)
        self.input = self.ncnn.Mat(row).clone()  # a Mat only borrows an array's memory

    def run(self):
        extractor = self.net.create_extractor()
        extractor.input(self.wanted, self.input)
        status, self.result = extractor.extract(self.given)
        if status != 0:
            kind = "out_of_memory" if status == -100 else "unbuildable"
            raise part("timing").JobError(kind, "ncnn's extraction of %s ended with %d" % (self.given, status))

    def output(self):
        return self.numpy.array(self.result, dtype="<f4").tobytes()
