"""A stand-in for the loaded libcuda or libcudart: exactly the functions of one of them, as ctypes shows them.

Runs under Python 3.6 too. Memory is real, so that ctypes may write into it. What is put on a stream happens when
somebody waits for it, not before, and takes time on a clock of the GPU's own: results read too early are wrong.
"""

import ctypes

COPY_MS = 0.25
BAD_VALUE, OUT_OF_MEMORY = 1, 2
NAMES = {0: b"SUCCESS", BAD_VALUE: b"INVALID_VALUE", OUT_OF_MEMORY: b"OUT_OF_MEMORY", 35: b"INSUFFICIENT_DRIVER"}
DRIVER = {
    "cuInit": "init",
    "cuDeviceGet": "get",
    "cuDeviceGetCount": "count",
    "cuDeviceGetName": "name",
    "cuDeviceTotalMem_v2": "total",
    "cuDeviceGetAttribute": "attribute",
    "cuDevicePrimaryCtxRetain": "retain",
    "cuCtxSetCurrent": "current",
    "cuMemGetInfo_v2": "info",
    "cuMemAlloc_v2": "allocate",
    "cuMemFree_v2": "release",
    "cuMemAllocHost_v2": "allocate_host",
    "cuMemFreeHost": "release_host",
    "cuMemcpyHtoDAsync_v2": "to_device",
    "cuMemcpyDtoHAsync_v2": "to_host",
    "cuStreamCreate": "new_stream",
    "cuStreamSynchronize": "wait",
    "cuEventCreate": "new_event",
    "cuEventRecord": "record",
    "cuEventElapsedTime": "elapsed",
    "cuGetErrorName": "error_name",
}
RUNTIME = {
    "cudaSetDevice": "set_device",
    "cudaGetDeviceCount": "count",
    "cudaDeviceGetAttribute": "attribute",
    "cudaMemGetInfo": "info",
    "cudaMalloc": "allocate",
    "cudaFree": "release",
    "cudaMallocHost": "allocate_host",
    "cudaFreeHost": "release_host",
    "cudaMemcpyAsync": "copy",
    "cudaStreamCreateWithFlags": "new_stream",
    "cudaStreamSynchronize": "wait",
    "cudaEventCreateWithFlags": "new_event",
    "cudaEventRecord": "record",
    "cudaEventElapsedTime": "elapsed",
    "cudaGetErrorName": "error_text",
}


class Function:
    """A function of a loaded library: without its types set, ctypes would cut pointers to 32 bits."""

    def __init__(self, library, name, body):
        self.library, self.name, self.body = library, name, body
        self.argtypes = self.restype = None

    def __call__(self, *arguments):
        assert self.argtypes is not None and self.restype is not None, self.name + " has no types"
        if len(arguments) != len(self.argtypes):
            raise TypeError(f"{self.name} takes {len(self.argtypes)} arguments")
        for index, kind in enumerate(self.argtypes):
            if arguments[index] is not None:
                kind.from_param(arguments[index])  # raises what ctypes would
        self.library.called.append(self.name)
        failure = self.library.failing.get(self.name)
        return failure if failure else self.body(*arguments) or 0


class Library:
    """One GPU. `failing` maps the names of functions to the errors they return."""

    def __init__(self, names=DRIVER, sm=(5, 3), name=b"NVIDIA Tegra X1", memory=4 << 30, unified=True, devices=1):
        self.attributes = {75: sm[0], 76: sm[1], 18: int(unified)}
        self.title, self.memory, self.devices = name, memory, devices
        self.called, self.failing = [], {}
        self.device_memory, self.host_memory = {}, {}
        self.streams, self.events = {}, {}
        self.now_ms, self.is_current = 0.0, False
        self.functions = {key: Function(self, key, getattr(self, "do_" + body)) for key, body in names.items()}

    def __getattr__(self, name):
        functions = self.__dict__.get("functions", {})
        if name in functions:
            return functions[name]
        raise AttributeError("undefined symbol: " + name)

    # ------------------------------------------------ the device

    def do_init(self, flags):
        return 0 if self.devices else 100

    def do_get(self, device, number):
        device._obj.value = number

    def do_count(self, count):
        count._obj.value = self.devices

    def do_name(self, text, length, device):
        text.value = self.title[: length - 1]

    def do_total(self, size, device):
        size._obj.value = self.memory

    def do_attribute(self, value, number, device):
        value._obj.value = self.attributes[number]

    def do_retain(self, context, device):
        context._obj.value = 0x7F0000000001  # more than 32 bits

    def do_current(self, context):
        assert context == 0x7F0000000001
        self.is_current = True

    def do_set_device(self, device):
        self.is_current = True

    def do_info(self, free, total):
        free._obj.value, total._obj.value = self.memory // 2, self.memory

    def do_error_name(self, number, text):
        text._obj.value = NAMES.get(number)

    def do_error_text(self, number):
        return NAMES.get(number)

    # ------------------------------------------------ memory

    def take(self, held, address, size):
        assert self.is_current, "no context"
        if size > self.memory:
            return OUT_OF_MEMORY
        buffer = ctypes.create_string_buffer(size)
        address._obj.value = ctypes.addressof(buffer)
        held[ctypes.addressof(buffer)] = buffer
        return 0

    def do_allocate(self, address, size):
        return self.take(self.device_memory, address, size)

    def do_allocate_host(self, address, size):
        return self.take(self.host_memory, address, size)

    def do_release(self, address):
        if address is not None:  # cudaFree(0) only makes the context
            del self.device_memory[address]

    def do_release_host(self, address):
        del self.host_memory[address]

    def do_to_device(self, target, source, size, stream):
        self.put(stream, self.copied(self.device_memory, target, self.host_memory, source, size))

    def do_to_host(self, target, source, size, stream):
        self.put(stream, self.copied(self.host_memory, target, self.device_memory, source, size))

    def do_copy(self, target, source, size, kind, stream):
        return {1: self.do_to_device, 2: self.do_to_host}[kind](target, source, size, stream)

    def copied(self, to, target, of, source, size):
        """A copy that will be done later, between the kinds of memory that it is for, and within them."""
        assert size <= len(to[target]) and size <= len(of[source])

        def copy():
            ctypes.memmove(target, source, size)
            self.now_ms += COPY_MS

        return copy

    # ------------------------------------------------ streams and events

    def do_new_stream(self, stream, flags):
        assert flags == 1  # not waiting for the default stream
        stream._obj.value = 0x7F1000000000 + len(self.streams)
        self.streams[stream._obj.value] = []

    def put(self, stream, work):
        self.streams[stream].append(work)

    def do_wait(self, stream):
        queue = self.streams[stream]
        while queue:
            queue.pop(0)()

    def do_new_event(self, event, flags):
        event._obj.value = 0x7F2000000000 + len(self.events)
        self.events[event._obj.value] = None

    def do_record(self, event, stream):
        self.put(stream, lambda: self.events.update({event: self.now_ms}))

    def do_elapsed(self, milliseconds, began, ended):
        if self.events[began] is None or self.events[ended] is None:
            return 600  # not ready
        milliseconds._obj.value = self.events[ended] - self.events[began]
        return 0

    def compute(self, stream, work, milliseconds):
        """Work of a kernel, put on a stream."""

        def kernel():
            work()
            self.now_ms += milliseconds

        self.put(stream, kernel)
