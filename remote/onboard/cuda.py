# mypy: ignore-errors
"""Call CUDA by ctypes: facts of the GPU and its fast types, memory, copies, streams and events.

Sent to the device as text: Python 3.6, standard library only. The driver's own library (libcuda) is there
wherever a CUDA GPU is and needs no search; CUDA's runtime library (libcudart) stands in where it can't be
loaded. Both are used by plain names that CUDA 10.2 to 13 all have: nothing here takes a struct, since the layout of
structs changes between versions. Both share the device's primary context with TensorRT.
"""

import ctypes
import glob
import re
import sys

MAJOR, MINOR, INTEGRATED = 75, 76, 18  # device attributes; the same numbers in both libraries
OUT_OF_MEMORY = 2
TO_DEVICE, TO_HOST = 1, 2  # libcudart's kinds of copies
NON_BLOCKING = 1

ADDRESS, SIZE, INT, TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p
TO_INT, TO_ADDRESS, TO_SIZE = ctypes.POINTER(INT), ctypes.POINTER(ADDRESS), ctypes.POINTER(SIZE)
# Action -> its arguments, its name in libcuda, its name in libcudart. Where a name with _v2 exists, the name without
# it is the old 32-bit call.
CALLS = {
    "count": ((TO_INT,), "cuDeviceGetCount", "cudaGetDeviceCount"),
    "attribute": ((TO_INT, INT, INT), "cuDeviceGetAttribute", "cudaDeviceGetAttribute"),
    "memory": ((TO_SIZE, TO_SIZE), "cuMemGetInfo_v2", "cudaMemGetInfo"),
    "allocate": ((TO_ADDRESS, SIZE), "cuMemAlloc_v2", "cudaMalloc"),
    "free": ((ADDRESS,), "cuMemFree_v2", "cudaFree"),
    "allocate_host": ((TO_ADDRESS, SIZE), "cuMemAllocHost_v2", "cudaMallocHost"),
    "free_host": ((ADDRESS,), "cuMemFreeHost", "cudaFreeHost"),
    "stream": ((TO_ADDRESS, ctypes.c_uint), "cuStreamCreate", "cudaStreamCreateWithFlags"),
    "wait": ((ADDRESS,), "cuStreamSynchronize", "cudaStreamSynchronize"),
    "event": ((TO_ADDRESS, ctypes.c_uint), "cuEventCreate", "cudaEventCreateWithFlags"),
    "record": ((ADDRESS, ADDRESS), "cuEventRecord", "cudaEventRecord"),
    "elapsed": ((ctypes.POINTER(ctypes.c_float), ADDRESS, ADDRESS), "cuEventElapsedTime", "cudaEventElapsedTime"),
}
DRIVER_CALLS = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (TO_INT, INT),
    "cuDeviceGetName": (TEXT, INT, INT),
    "cuDeviceTotalMem_v2": (TO_SIZE, INT),
    "cuDevicePrimaryCtxRetain": (TO_ADDRESS, INT),
    "cuCtxSetCurrent": (ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (ADDRESS, ADDRESS, SIZE, ADDRESS),
    "cuMemcpyDtoHAsync_v2": (ADDRESS, ADDRESS, SIZE, ADDRESS),
    "cuGetErrorName": (INT, ctypes.POINTER(TEXT)),
}
RUNTIME_CALLS = {"cudaSetDevice": (INT,), "cudaMemcpyAsync": (ADDRESS, ADDRESS, SIZE, INT, ADDRESS)}

OPENED = []  # the driver with this process's context, once there is one


class CudaError(Exception):
    """Raised when a call of CUDA fails; `number` is CUDA's own."""

    def __init__(self, number, name, call):
        Exception.__init__(self, "CUDA error %d (%s) from %s" % (number, name, call))
        self.number = number


class Driver(object):
    """Call CUDA on the first device through a loaded library, libcuda or libcudart.

    Addresses, streams and events are plain integers. open() must be called before any call that needs a context.
    """

    def __init__(self, lib):
        self.lib = lib
        self.is_driver = hasattr(lib, "cuInit")
        self.functions = {}
        for name, types in (DRIVER_CALLS if self.is_driver else RUNTIME_CALLS).items():
            self.bind(name, name, types)
        for what, (types, driver, runtime) in CALLS.items():
            self.bind(what, driver if self.is_driver else runtime, types)
        if not self.is_driver:
            lib.cudaGetErrorName.argtypes, lib.cudaGetErrorName.restype = (INT,), TEXT
        self.device = 0
        if self.is_driver:
            self.call("cuInit", 0)
            self.device = self.told(INT, "cuDeviceGet", 0)

    def bind(self, what, name, types):
        """Set a function's types, without which ctypes cuts pointers to 32 bits."""
        function = getattr(self.lib, name)
        function.argtypes, function.restype = types, INT
        self.functions[what] = (function, name)

    def call(self, what, *arguments):
        function, name = self.functions[what]
        number = function(*arguments)
        if number:
            raise CudaError(number, self.error_name(number), name)

    def told(self, kind, what, *arguments):
        """Return the value that a call wrote through its first argument."""
        value = kind()
        self.call(what, ctypes.byref(value), *arguments)
        return value.value

    def error_name(self, number):
        name = TEXT()
        if self.is_driver:
            self.functions["cuGetErrorName"][0](number, ctypes.byref(name))
            return (name.value or b"unknown").decode()
        return (self.lib.cudaGetErrorName(number) or b"unknown").decode()

    def open(self):
        """Make the device's primary context this thread's. On a Jetson Nano that takes seconds and 0.2 GB."""
        if self.is_driver:
            self.call("cuCtxSetCurrent", self.told(ADDRESS, "cuDevicePrimaryCtxRetain", self.device))
        else:
            self.call("cudaSetDevice", 0)
            self.call("free", None)  # makes the context now, not in the first call, which may be timed

    def describe(self):
        """Return {"name", "sm", "memory_mb", "unified"} of the device; with libcuda no context is made."""
        sm = "%d.%d" % (self.attribute(MAJOR), self.attribute(MINOR))
        if self.is_driver:
            name = ctypes.create_string_buffer(256)
            self.call("cuDeviceGetName", name, len(name), self.device)
            label, total = name.value.decode("utf-8", "replace"), self.told(SIZE, "cuDeviceTotalMem_v2", self.device)
        else:
            self.open()
            label, total = "CUDA device", self.memory()[1]  # libcudart returns a name in a struct only
        return {"name": label, "sm": sm, "memory_mb": total >> 20, "unified": bool(self.attribute(INTEGRATED))}

    def count(self):
        return self.told(INT, "count")

    def attribute(self, number):
        return self.told(INT, "attribute", number, self.device)

    def memory(self):
        """Return (free, total) bytes. Where CPU and GPU share memory, they count all processes of the device."""
        free, total = SIZE(), SIZE()
        self.call("memory", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def allocate(self, size):
        """Return the address of new device memory."""
        return self.told(ADDRESS, "allocate", size)

    def allocate_host(self, size):
        """Return the address of new host memory that is pinned, so that copies are asynchronous and at full speed."""
        return self.told(ADDRESS, "allocate_host", size)

    def free(self, address):
        self.call("free", address)

    def free_host(self, address):
        self.call("free_host", address)

    def to_device(self, target, source, size, stream):
        if self.is_driver:
            self.call("cuMemcpyHtoDAsync_v2", target, source, size, stream)
        else:
            self.call("cudaMemcpyAsync", target, source, size, TO_DEVICE, stream)

    def to_host(self, target, source, size, stream):
        if self.is_driver:
            self.call("cuMemcpyDtoHAsync_v2", target, source, size, stream)
        else:
            self.call("cudaMemcpyAsync", target, source, size, TO_HOST, stream)

    def stream(self):
        """Return a stream that does not wait for the default one."""
        return self.told(ADDRESS, "stream", NON_BLOCKING)

    def wait(self, stream):
        """Wait until all work of the stream is done."""
        self.call("wait", stream)

    def event(self):
        return self.told(ADDRESS, "event", 0)

    def record(self, event, stream):
        self.call("record", event, stream)

    def elapsed_ms(self, began, ended):
        """Return the time between two recorded events that are over, to about half a microsecond."""
        return self.told(ctypes.c_float, "elapsed", began, ended)


def paths():
    """Iterate over places of the libraries, the preferred first; each is searched for only when it is reached."""
    yield "libcuda.so.1"
    yield "libcuda.so"
    for version in ("13", "12", "11.0", "10.2"):
        yield "libcudart.so." + version
    for folder in ["/usr/local/cuda*/lib64"] + [folder + "/nvidia/*/lib" for folder in sys.path if folder]:
        for path in sorted(glob.glob(folder + "/libcudart.so*")):
            yield path


def library():
    """Return the first library that loads. Raise OSError where none does."""
    for path in paths():
        try:
            return ctypes.CDLL(path)
        except OSError:
            pass
    raise OSError("neither libcuda nor libcudart can be loaded: is NVIDIA's driver installed?")


def opened():
    """Return the driver with its context made, one for the whole process. Raise CudaError or OSError."""
    if not OPENED:
        driver = Driver(library())
        driver.open()
        OPENED.append(driver)
    return OPENED[0]


def gpu():
    """Return {"name", "sm", "memory_mb", "unified"} of the first GPU; None where there is none or no driver for it."""
    try:
        driver = Driver(library())
        return driver.describe() if driver.count() else None
    except Exception:  # whatever is broken, the GPU can't be used
        return None


# ---------------------------------------------------------------- fast types, by compute capability


def capability(sm):
    """Return (5, 3) for "5.3"."""
    found = re.match(r"(\d+)\.(\d+)\Z", sm)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def fast_fp16(sm):
    """Return whether fp16 is faster than fp32: Tegra X1 and X2, P100, and all from Volta on; not GTX 9xx and 10xx."""
    return capability(sm) in ((5, 3), (6, 0), (6, 2)) or capability(sm) >= (7, 0)


def sparse(sm):
    """Return whether tensor cores skip two of every four weights that are zero: from Ampere on."""
    return capability(sm) >= (8, 0)


def fast_int8(sm):
    """Return whether there is int8 arithmetic: sm 6.1 and all from Volta on, but neither Tegra X1 nor X2.

    sm 10.3 has none either: TensorRT's own tools leave int8 out there.
    """
    return capability(sm) == (6, 1) or (capability(sm) >= (7, 0) and capability(sm) != (10, 3))
