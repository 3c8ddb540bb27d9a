"""Run TensorRT through its own Python bindings, versions 8.0 to 11, with CUDA by ctypes: build engines and run them.

Sent to the device as text and run in a child process of the agent: Python 3.6 and up, standard library only
until a function is called. The bindings differ by version, so the code checks for names, not for versions;
docs/tensorrt.md lists the differences.
"""

import collections
import ctypes
import importlib
import os
import random
import re
import struct
import sys

NEEDS = "onnx"
BUILDS = True
PACKAGES = ("tensorrt", "tensorrt_bindings")  # the `tensorrt` wheel only forwards to `tensorrt_bindings`
DISTRIBUTIONS = ("tensorrt", "tensorrt_cu11", "tensorrt_cu12", "tensorrt_cu13")
# JetPack installs the bindings for the system's Python alone; a venv's Python of the same version can use them too.
SYSTEM = "/usr/lib/python%d.%d/dist-packages" % sys.version_info[:2]
CODES = {"FLOAT": "f", "HALF": "e", "INT8": "b", "INT32": "i", "BOOL": "?", "UINT8": "B", "INT64": "q"}
LIMITS = {"b": (-128, 127), "B": (0, 255), "e": (-65504.0, 65504.0)}

Tensor = collections.namedtuple("Tensor", "name is_input shape code count size device host")


# ---------------------------------------------------------------- installed version


def offers():
    """Return {"tensorrt": version} where the bindings are installed, found without importing them."""
    for package in PACKAGES:
        version = part("timing").version_of(package, *DISTRIBUTIONS)
        if version not in (None, "unknown"):
            return {"tensorrt": version}
    try:
        with open(os.path.join(SYSTEM, "tensorrt", "__init__.py")) as file:
            found = re.search(r"^__version__ = [\"'](\S+)[\"']", file.read(), re.M)
    except (OSError, ValueError):
        return {}
    return {"tensorrt": found.group(1)} if found else {}


def libraries():
    """Return the module tensorrt, after making CUDA's context."""
    path = list(sys.path)
    if SYSTEM not in path:
        sys.path.append(SYSTEM)
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise part("timing").JobError("no_runtime", "tensorrt cannot be imported: %s" % error)
    finally:
        sys.path[:] = path
    try:
        part("cuda").opened()
    except Exception as error:
        kind = "out_of_memory" if getattr(error, "number", 0) == part("cuda").OUT_OF_MEMORY else "no_runtime"
        raise part("timing").JobError(kind, "CUDA cannot be used: %s" % error)
    return trt


# ---------------------------------------------------------------- building


def logger(trt):
    """Return a logger that keeps errors and warnings, which give the reason where TensorRT returns None."""

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors, self.warnings = [], []

        def log(self, severity, msg):
            line = " ".join(msg.split())[:400]
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(line)
            elif severity == trt.ILogger.Severity.WARNING and line not in self.warnings[-200:]:
                self.warnings.append(line)

    return Log()


def build(job, path, out):
    """Write the engine of an ONNX file, and return TensorRT's warnings."""
    trt = libraries()
    log = logger(trt)
    builder = create(lambda: trt.Builder(log), log, False)
    refuse_int8(builder, job)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    network = builder.create_network(network_flags(trt))
    parse(trt, network, log, path)
    config = builder.create_builder_config()
    configure(trt, builder, config, job)
    cache, file = use_timing_cache(trt, config, job)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise part("tensorrt_common").as_job_error(log.errors, log.warnings)
    with open(out, "wb") as target:
        target.write(memoryview(plan))  # bytes(plan) would be one copy more
    learned = cache.serialize() if cache is not None else None
    if learned is not None:
        part("tensorrt_common").keep(file, bytes(memoryview(learned)))
    return {"notes": [line[:200] for line in log.warnings[:10]]}


def create(make, log, of_model=True):
    """Return the result of `make`; raise JobError for None, which some bindings turn into a TypeError."""
    try:
        made, words = make(), log.errors
    except TypeError as error:
        made, words = None, log.errors or [str(error)]
    if made is not None:
        return made
    found = part("tensorrt_common").as_job_error(words)
    if not of_model and found.kind != "out_of_memory":
        found.kind = "no_runtime"
    raise found


def refuse_int8(builder, job):
    """Raise JobError where the graph is int8 and the GPU has no int8 arithmetic."""
    if job["precision"] != "int8":
        return
    gpu = part("cuda").gpu()
    if hasattr(builder, "platform_has_fast_int8"):
        fast = builder.platform_has_fast_int8
    else:  # TensorRT 11 no longer has this property
        fast = gpu is None or part("cuda").fast_int8(gpu["sm"])
    if not fast:
        raise part("tensorrt_common").refuse_int8(gpu)


def network_flags(trt):
    """Return the flag of explicit batch, as long as it is needed: 10 ignores the flag, 11 no longer has it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def parse(trt, network, log, path):
    """Fill the network from an ONNX file. Raise JobError with the parser's words."""
    parser = trt.OnnxParser(network, log)
    with open(path, "rb") as file:
        parsed = parser.parse(file.read())
    if not parsed:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise part("tensorrt_common").as_job_error([parser_words(error) for error in errors] + log.errors)


def parser_words(error):
    """Return code, node and description of a parser's error in one line; the operator's name only from 10 on."""
    code = str(error.code()).rpartition(".")[2]
    operator = " %s" % error.node_operator() if hasattr(error, "node_operator") else ""
    return " ".join(("%s at node %d%s: %s" % (code, error.node(), operator, error.desc())).split())


def configure(trt, builder, config, job):
    """Set workspace, precision and sparsity. Other options keep their defaults, as an ordinary user has them."""
    workspace = int(job.get("workspace_mb", 256)) << 20
    if hasattr(config, "set_memory_pool_limit"):  # from 8.4 on
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    else:
        config.max_workspace_size = workspace
    if hasattr(config, "profiling_verbosity"):  # from 8.2 on; otherwise the inspector reports only layers' names
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Up to 10 a typed graph's types must also be allowed; 11 has no such flags and takes the graph's types.
    if job["precision"] == "fp16" and hasattr(trt.BuilderFlag, "FP16"):
        config.set_flag(trt.BuilderFlag.FP16)
    if job["precision"] == "int8" and hasattr(trt.BuilderFlag, "INT8"):
        config.set_flag(trt.BuilderFlag.INT8)
        if builder.platform_has_fast_fp16:  # for the layers that are not quantized
            config.set_flag(trt.BuilderFlag.FP16)
    gpu = part("cuda").gpu()
    if gpu and part("cuda").sparse(gpu["sm"]):  # TensorRT examines the weights; dense ones run as without the flag
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)


# ---------------------------------------------------------------- the timing cache


def use_timing_cache(trt, config, job):
    """Return (timing cache in use, its file); (None, None) without a folder.

    The cache pays because neighbouring candidates share most layers.
    """
    if not job.get("cache"):
        return None, None
    file = part("tensorrt_common").cache_file(job["cache"], "tensorrt", trt.__version__)
    for data in (part("tensorrt_common").kept(file), b""):
        try:
            cache = config.create_timing_cache(data)
            if cache is not None and config.set_timing_cache(cache, False):
                return cache, file
        except Exception:
            pass  # the cache is from another version or GPU: build without it, and write a new one
    return None, None


# ---------------------------------------------------------------- layers of an engine


def layers(job):
    """Return the layers of the very engine that is timed, by its inspector and the profiler; none before 8.2."""
    trt, model = libraries(), load(job, job["model"])
    engine = model.held[1]
    if not hasattr(engine, "create_engine_inspector"):
        return []
    inspector = engine.create_engine_inspector()
    information = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return part("tensorrt_common").layers(information, profiled(trt, model, job["seconds_max"]))


def profiled(trt, model, seconds_max):
    """Return the milliseconds of each run by layer. Only execute_v2 reports them to a profiler in all versions."""
    times_ms = collections.defaultdict(list)

    class Profiler(trt.IProfiler):
        def __init__(self):
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name, ms):
            times_ms[layer_name].append(ms)

    model.context.profiler = profiler = Profiler()
    model.enqueue = None
    part("timing").runs(model, seconds_max)
    del profiler  # it must outlive the runs
    return times_ms


# ---------------------------------------------------------------- running


def load(job, path):
    """Return the engine in `path`, which build() wrote on this device, with its buffers."""
    trt = libraries()
    log = logger(trt)
    runtime = create(lambda: trt.Runtime(log), log, False)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    with open(path, "rb") as file:
        plan = file.read()
    engine = create(lambda: runtime.deserialize_cuda_engine(plan), log)
    context = create(engine.create_execution_context, log)
    scratch = getattr(engine, "device_memory_size_v2", None)  # 11 has only this one, 8 only the other
    if scratch is None:
        scratch = engine.device_memory_size
    try:
        tensors = [tensor(*described) for described in bindings(trt, engine)]
        model = Model(part("cuda").opened(), context, tensors, log, (runtime, engine))
    except part("cuda").CudaError as error:
        raise cuda_failure(error)
    model.device_mb = (len(plan) + scratch + sum(item.size for item in tensors)) / 1e6
    return model


def cuda_failure(error):
    """Return a CUDA error during a model's run as JobError."""
    memory = error.number == part("cuda").OUT_OF_MEMORY
    return part("timing").JobError("out_of_memory" if memory else "crashed", str(error))


def bindings(trt, engine):
    """Return (name, is input, shape, type's name) of each input and output, in the engine's order."""
    if hasattr(engine, "num_io_tensors"):  # from 8.5 on
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        rows = [
            (name, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT, engine.get_tensor_shape(name))
            for name in names
        ]
        kinds = [engine.get_tensor_dtype(name) for name in names]
    else:
        indices = range(engine.num_bindings)
        rows = [(engine.get_binding_name(i), engine.binding_is_input(i), engine.get_binding_shape(i)) for i in indices]
        kinds = [engine.get_binding_dtype(i) for i in indices]
    return [(name, is_input, tuple(shape), kind.name) for (name, is_input, shape), kind in zip(rows, kinds)]


def tensor(name, is_input, shape, kind):
    """Return a Tensor with its device and its pinned host memory, all zeros."""
    if kind not in CODES:
        raise part("timing").JobError(
            "unsupported", "%s has type %s; accepted: %s" % (name, kind, ", ".join(sorted(CODES)))
        )
    count = 1
    for size in shape:
        if size < 0:
            raise part("timing").JobError("unsupported", "%s has a free dimension: export fixed shapes" % name)
        count *= size
    cuda, size = part("cuda").opened(), count * struct.calcsize("<" + CODES[kind])
    device, host = cuda.allocate(max(size, 1)), cuda.allocate_host(max(size, 1))
    ctypes.memset(host, 0, size)
    return Tensor(name, is_input, shape, CODES[kind], count, size, device, host)


class Model(object):
    """Run an engine with one query in flight, from pinned host memory to pinned host memory."""

    device_mb = None

    def __init__(self, cuda, context, tensors, log, held):
        self.cuda, self.context, self.tensors, self.log = cuda, context, tensors, log
        self.held = held  # objects that must live as long as the context
        self.inputs = [item for item in tensors if item.is_input]
        self.outputs = [item for item in tensors if not item.is_input]
        self.stream, self.began, self.ended = cuda.stream(), cuda.event(), cuda.event()
        self.timed = False
        self.enqueue = self.find_enqueue()

    def find_enqueue(self):
        """Return a function that puts one inference on the stream and returns True for success."""
        context, stream = self.context, self.stream
        if hasattr(context, "execute_async_v3"):  # from 8.5 on
            for item in self.tensors:
                context.set_tensor_address(item.name, item.device)
            return lambda: context.execute_async_v3(stream)
        addresses = [item.device for item in self.tensors]
        if hasattr(context, "execute_async_v2"):
            return lambda: context.execute_async_v2(addresses, stream)
        return None

    @property
    def gpu_ms(self):
        """Return ms from before the enqueue to its end by the GPU's clock, without copies; read after the run's end."""
        return self.cuda.elapsed_ms(self.began, self.ended) if self.timed else None

    def feed(self, floats):
        generator = random.Random(0)
        for index, item in enumerate(self.inputs):
            if index == 0 and floats is not None:
                data = converted(floats, item)
            else:
                data = packed(seeded(generator, item), item.code)
            ctypes.memmove(item.host, data, item.size)

    def run(self):
        cuda, stream = self.cuda, self.stream
        try:
            for item in self.inputs:
                cuda.to_device(item.device, item.host, item.size, stream)
            if self.enqueue is None:
                self.run_synchronously()
            else:
                cuda.record(self.began, stream)
                if not self.enqueue():
                    raise self.failure()
                cuda.record(self.ended, stream)
                self.timed = True
            for item in self.outputs:
                cuda.to_host(item.host, item.device, item.size, stream)
            cuda.wait(stream)
        except part("cuda").CudaError as error:
            raise cuda_failure(error)

    def run_synchronously(self):
        """Run by execute_v2, which all versions have, on a stream of its own: events can't be put around it."""
        self.cuda.wait(self.stream)
        if not self.context.execute_v2([item.device for item in self.tensors]):
            raise self.failure()

    def failure(self):
        """Return JobError for an engine that was loaded and that TensorRT refused to run."""
        found = part("tensorrt_common").as_job_error(self.log.errors)
        return part("timing").JobError("out_of_memory" if found.kind == "out_of_memory" else "crashed", str(found))

    def output(self):
        first = self.outputs[0]
        data = ctypes.string_at(first.host, first.size)
        if first.code == "f":
            return data
        return struct.pack("<%df" % first.count, *struct.unpack("<%d%s" % (first.count, first.code), data))


def seeded(generator, item):
    """Return random values: standard normal, or 0 and 1 for a type of integers."""
    if item.code in "fe":
        return [generator.gauss(0.0, 1.0) for _ in range(item.count)]
    return [generator.randrange(2) for _ in range(item.count)]


def converted(floats, item):
    """Convert little-endian float32 bytes to bytes of the input's type."""
    if len(floats) != 4 * item.count:
        shape = "x".join(map(str, item.shape))
        reason = "an input has %d values, the model takes %s" % (len(floats) // 4, shape)
        raise part("timing").JobError("unbuildable", reason)
    return floats if item.code == "f" else packed(struct.unpack("<%df" % item.count, floats), item.code)


def packed(values, code):
    """Return numbers as little-endian bytes; a value beyond the type's range becomes the nearest one within."""
    if code in LIMITS:
        low, high = LIMITS[code]
        values = [min(max(value, low), high) for value in values]
    if code not in "fe":
        values = [int(value) for value in values]
    return struct.pack("<%d%s" % (len(values), code), *values)
