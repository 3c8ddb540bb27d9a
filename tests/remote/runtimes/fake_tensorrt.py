"""A stand-in for the `tensorrt` module with exactly the names of one version, over a stand-in for CUDA.

Runs under Python 3.6 too. tensorrt_names.json holds what each version has: for 8.6.1, 10.3.0 and 11.4 as the
published bindings show it, for 8.2 and 8.5 as their sources bind it. A name that a version lacks raises
AttributeError; one that it has and this stand-in does not play raises NotImplementedError.

An "ONNX file" is JSON:
  input, outputs   [name, shape, type]; every output holds `gain` times the sums of each n-th input, n its size
  layers           what the timing cache remembers
  parser           errors of the parser, [code, node, operator, description] each
  errors, warnings what the builder complains of before it returns None
  inspected        the engine's layers as the inspector tells them: [name, type, format, milliseconds]
"""

import ctypes
import enum
import json
import struct
import types
from pathlib import Path

NAMES = json.loads(Path(__file__).with_name("tensorrt_names.json").read_text())
VERSIONS = sorted(NAMES, key=lambda version: [int(part) for part in version.split(".")])
KERNEL_MS = 1.5
FORMATS = {"FLOAT": "f", "HALF": "e", "INT8": "b", "INT32": "i", "UINT8": "B", "INT64": "q", "BOOL": "?", "BF16": "H"}


class Bound:
    """An object of the bindings: its version's names, and underscored ones that only this file uses."""

    def __init__(self, trt):
        self._trt = trt

    def __getattribute__(self, name):
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        self._check(name)
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            raise NotImplementedError(f"{type(self).__name__}.{name} is not played") from None

    def __setattr__(self, name, value):
        if not name.startswith("_"):
            self._check(name)
        object.__setattr__(self, name, value)

    def _check(self, name):
        kind = type(self).__name__
        if name not in NAMES[self._trt.__version__][kind].split():
            raise AttributeError(f"'tensorrt.tensorrt.{kind}' object has no attribute '{name}'")


class IHostMemory(bytearray):
    """Bytes of the library's that Python only looks at."""

    @property
    def nbytes(self):
        return len(self)


class Builder(Bound):
    def __init__(self, trt, logger):
        Bound.__init__(self, trt)
        self._logger = logger
        assert logger._made
        if trt._broken:
            logger.log(1, trt._broken)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    @property
    def platform_has_fast_fp16(self):
        return self._trt._fast_fp16

    @property
    def platform_has_fast_int8(self):
        return self._trt._fast_int8

    def create_network(self, flags=0):
        explicit = hasattr(self._trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
        assert flags == (1 if explicit else 0), "a network with an implicit batch"
        return Network(self._trt)

    def create_builder_config(self):
        return IBuilderConfig(self._trt, self._logger)

    def build_serialized_network(self, network, config):
        trt, graph = self._trt, network._graph
        for severity, name in ((1, "errors"), (2, "warnings")):
            for line in graph.get(name, []):
                self._logger.log(severity, line)
        if "errors" in graph:
            return None
        kinds = graph.get("kinds", [])
        for kind, flag in (("HALF", "FP16"), ("INT8", "INT8")):
            if kind in kinds and hasattr(trt.BuilderFlag, flag) and getattr(trt.BuilderFlag, flag) not in config._flags:
                self._logger.log(1, f"4: {kind} is in the network, but BuilderFlag.{flag} is not set")
                return None
        timed = config._timed(graph.get("layers", []))
        built = {"graph": graph, "version": trt.__version__, "timed": timed, "workspace": config._workspace()}
        built["flags"] = sorted(flag.name for flag in config._flags)
        built["level"] = getattr(config, "_level", None)
        built["graph"]["detailed"] = getattr(config.__dict__.get("profiling_verbosity"), "name", "") == "DETAILED"
        return IHostMemory(b"PLAN" + json.dumps(built).encode())


class Network:
    """INetworkDefinition: only handed on."""

    def __init__(self, trt):
        self._trt, self._graph = trt, None


class ITimingCache(Bound):
    def __init__(self, trt, layers):
        Bound.__init__(self, trt)
        self._layers = layers

    def serialize(self):
        return IHostMemory(" ".join(["TIMES", self._trt.__version__, *sorted(self._layers)]).encode())


class IBuilderConfig(Bound):
    profiling_verbosity = None

    def __init__(self, trt, logger):
        Bound.__init__(self, trt)
        self._logger, self._flags, self._pools, self._cache = logger, set(), {}, None

    def _workspace(self):
        return self._pools.get("WORKSPACE", self.__dict__.get("max_workspace_size"))

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def set_flag(self, flag):
        assert isinstance(flag, self._trt.BuilderFlag)
        self._flags.add(flag)

    @property
    def builder_optimization_level(self):
        return self.__dict__.get("_level", 3)

    @builder_optimization_level.setter
    def builder_optimization_level(self, level):
        self._level = level

    def create_timing_cache(self, serialized_timing_cache):
        words = bytes(serialized_timing_cache).decode("latin1").split()
        self._trt._parsed.append(bytes(serialized_timing_cache))
        if words and words[0] != "TIMES":
            self._logger.log(1, "6: The timing cache is corrupted")
            return None
        cache = ITimingCache(self._trt, set(words[2:]))
        cache._version = words[1] if words else self._trt.__version__
        return cache

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._version != self._trt.__version__ and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def _timed(self, layers):
        """Layers that had to be timed in this build."""
        known = self._cache._layers if self._cache else set()
        new = [layer for layer in layers if layer not in known]
        known.update(new)
        return new


class ParserError(Bound):
    def __init__(self, trt, code, node, operator, text):
        Bound.__init__(self, trt)
        self._code, self._node, self._operator, self._text = code, node, operator, text

    def code(self):
        return "ErrorCode." + self._code

    def desc(self):
        return self._text

    def node(self):
        return self._node

    def node_operator(self):
        return self._operator


class OnnxParser(Bound):
    def __init__(self, trt, network, logger):
        Bound.__init__(self, trt)
        self._network, self._errors = network, []

    def parse(self, model, path=None):
        try:
            graph = json.loads(bytes(model).decode())
        except ValueError:
            graph = {"parser": [["MODEL_DESERIALIZE_FAILED", -1, "", "Failed to parse the ONNX model."]]}
        self._network._graph = graph
        self._errors = graph.get("parser", [])
        return not self._errors

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return ParserError(self._trt, *self._errors[index])


class Runtime(Bound):
    def __init__(self, trt, logger):
        Bound.__init__(self, trt)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        data = bytes(serialized_engine)
        built = json.loads(data[4:].decode()) if data[:4] == b"PLAN" else {"version": None}
        if built["version"] != self._trt.__version__:
            self._logger.log(1, "1: Serialization assertion stdVersionRead == serializationVersion failed.")
            return None
        return ICudaEngine(self._trt, self._logger, built["graph"])


class ICudaEngine(Bound):
    def __init__(self, trt, logger, graph):
        Bound.__init__(self, trt)
        self._logger, self._graph = logger, graph
        self._rows = [[True, *graph["input"]], *([False, *row] for row in graph["outputs"])]

    def _row(self, name):
        return next(row for row in self._rows if row[1] == name)

    num_bindings = num_io_tensors = property(lambda self: len(self._rows))
    device_memory_size = device_memory_size_v2 = property(lambda self: 3000000)

    def get_binding_name(self, index):
        return self._rows[index][1]

    get_tensor_name = get_binding_name

    def binding_is_input(self, index):
        return self._rows[index][0]

    def get_tensor_mode(self, name):
        return self._trt.TensorIOMode.INPUT if self._row(name)[0] else self._trt.TensorIOMode.OUTPUT

    def get_binding_shape(self, index):
        return tuple(self._rows[index][2])

    def get_tensor_shape(self, name):
        return tuple(self._row(name)[2])

    def get_binding_dtype(self, index):
        return self._trt.DataType[self._rows[index][3]]

    def get_tensor_dtype(self, name):
        return self._trt.DataType[self._row(name)[3]]

    def create_engine_inspector(self):
        return EngineInspector(self._graph)

    def create_execution_context(self):
        if self._graph.get("huge"):
            self._logger.log(1, "2: [defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime (out of memory)")
            return None
        return IExecutionContext(self._trt, self)


class EngineInspector:
    """Four names, the same in every version from 8.2 on."""

    def __init__(self, graph):
        self._graph = graph

    def get_engine_information(self, format):
        assert format.name == "JSON"
        rows = self._graph.get("inspected", [])
        layers = [
            {"Name": name, "LayerType": kind, "Inputs": [{"Name": "t", "Dimensions": [1], "Format/Datatype": words}]}
            if self._graph["detailed"]
            else name
            for name, kind, words, _ in rows
        ]
        return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


class IProfiler:
    def __init__(self):
        self._made = True

    def report_layer_time(self, layer_name, ms):
        raise RuntimeError('Tried to call pure virtual function "IProfiler::reportLayerTime"')


class IExecutionContext(Bound):
    def __init__(self, trt, engine):
        Bound.__init__(self, trt)
        self._engine, self._addresses = engine, {}

    def set_tensor_address(self, name, memory):
        assert isinstance(memory, int)
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        return self._enqueue(self._addresses, stream_handle)

    def execute_async_v2(self, bindings, stream_handle):
        return self._enqueue(self._by_order(bindings), stream_handle)

    def execute_v2(self, bindings):
        self._compute(self._by_order(bindings))
        profiler = self.__dict__.get("profiler")
        assert profiler is None or profiler._made
        for name, _, _, ms in self._engine._graph.get("inspected", []) if profiler else []:
            profiler.report_layer_time(name, ms)
        return True

    def _by_order(self, bindings):
        return {row[1]: bindings[index] for index, row in enumerate(self._engine._rows)}

    def _enqueue(self, addresses, stream):
        if self._engine._graph.get("refuses"):
            self._engine._logger.log(1, self._engine._graph["refuses"])
            return False
        self._trt._cuda.compute(stream, lambda: self._compute(addresses), KERNEL_MS)
        return True

    def _compute(self, addresses):
        held = self._trt._cuda.device_memory
        rows = self._engine._rows
        values = read(held[addresses[rows[0][1]]], rows[0])
        for row in rows[1:]:
            size = count(row)
            sums = [self._engine._graph["gain"] * sum(values[index::size]) for index in range(size)]
            held[addresses[row[1]]][: size * struct.calcsize(FORMATS[row[3]])] = packed(sums, row[3])


def count(row):
    total = 1
    for size in row[2]:
        total *= size
    return total


def read(buffer, row):
    layout = f"<{count(row)}{FORMATS[row[3]]}"
    return struct.unpack(layout, ctypes.string_at(buffer, struct.calcsize(layout)))


def packed(values, kind):
    values = [value if kind in ("FLOAT", "HALF") else int(value) for value in values]
    return struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self):
        self._made = True  # pybind11 refuses objects of a subclass that forgets this

    def log(self, severity, msg):
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


def module(version, cuda, fast_fp16=True, fast_int8=True, broken=""):
    """The `tensorrt` module of a version, on the GPU that `cuda` stands for."""
    names = {kind: words.split() for kind, words in NAMES[version].items()}
    trt = types.ModuleType("tensorrt")
    trt.__version__, trt.ILogger, trt.IProfiler = version, ILogger, IProfiler
    trt.ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"], start=0)
    trt.LayerInformationFormat = enum.IntEnum("LayerInformationFormat", ["ONELINE", "JSON"], start=0)
    for kind in (Builder, OnnxParser, Runtime):
        setattr(trt, kind.__name__, lambda *arguments, kind=kind: kind(trt, *arguments))
    trt.init_libnvinfer_plugins = lambda logger, namespace: True
    for kind in ("BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "TensorIOMode", "DataType"):
        if kind in names:
            members = sorted(names[kind], key=lambda name: (name != "EXPLICIT_BATCH", name))
            setattr(trt, kind, enum.IntEnum(kind, [(name, index) for index, name in enumerate(members)]))
    trt._cuda, trt._fast_fp16, trt._fast_int8, trt._broken = cuda, fast_fp16, fast_int8, broken
    trt._parsed = []  # what create_timing_cache() was given
    return trt
