"""CUDA by ctypes, against a stand-in with each library's own names, and against the real ones where they are."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tests.remote.runtimes.fake_cuda import DRIVER, OUT_OF_MEMORY, RUNTIME, Library
from tests.remote.runtimes.loading import part

cuda = part("cuda")
BOTH = pytest.mark.parametrize("names", [DRIVER, RUNTIME], ids=["libcuda", "libcudart"])
HEADERS = sorted(Path("/usr/local").glob("cuda*/include/cuda.h"))
LIBRARIES = sorted(Path("/usr/local").glob("cuda*/lib64/libcudart.so"))


def opened(lib: Library):
    driver = cuda.Driver(lib)
    driver.open()
    return driver


@pytest.fixture
def loaded(monkeypatch):
    """Makes a stand-in the library that is found."""

    def use(lib):
        monkeypatch.setattr(cuda, "library", lambda: lib)
        monkeypatch.setattr(cuda, "OPENED", [])
        return lib

    return use


def test_a_gpu_is_described_without_a_context(loaded):
    lib = loaded(Library())
    assert cuda.gpu() == {"name": "NVIDIA Tegra X1", "sm": "5.3", "memory_mb": 4096, "unified": True}
    assert not lib.is_current  # it would take 0.2 GB of a Nano's 4


def test_libcudart_tells_all_but_the_name(loaded):
    loaded(Library(RUNTIME, sm=(8, 7), memory=8 << 30))
    assert cuda.gpu() == {"name": "CUDA device", "sm": "8.7", "memory_mb": 8192, "unified": True}


def test_a_card_of_its_own_is_not_unified(loaded):
    loaded(Library(sm=(12, 0), name=b"NVIDIA GeForce RTX 5090", memory=32 << 30, unified=False))
    assert cuda.gpu() == {"name": "NVIDIA GeForce RTX 5090", "sm": "12.0", "memory_mb": 32768, "unified": False}


@BOTH
@pytest.mark.parametrize(("devices", "error"), [(0, 0), (1, 35)])
def test_no_gpu_is_none(loaded, names, devices, error):
    lib = loaded(Library(names, devices=devices))
    lib.failing = {"cuInit": error, "cudaGetDeviceCount": error} if error else {}
    assert cuda.gpu() is None


def test_no_library_is_none(monkeypatch):
    monkeypatch.setattr(cuda, "paths", lambda: ["libcuda-that-is-not.so.1"])
    assert cuda.gpu() is None
    with pytest.raises(OSError, match="driver"):
        cuda.library()


def test_a_library_of_another_kind_is_none(loaded):
    loaded(Library({"cuInit": "init"}))
    assert cuda.gpu() is None


def test_the_drivers_library_comes_first():
    paths = list(cuda.paths())
    assert paths[0] == "libcuda.so.1" and paths.index("libcudart.so.10.2") > 1


@BOTH
def test_bytes_go_there_and_back(names):
    lib = Library(names)
    driver = opened(lib)
    device, host, back = driver.allocate(1000), driver.allocate_host(1000), driver.allocate_host(1000)
    assert device > 1 << 32  # a pointer cut to 32 bits would not be one
    ctypes.memmove(host, bytes(range(250)) * 4, 1000)
    stream = driver.stream()
    driver.to_device(device, host, 1000, stream)
    driver.to_host(back, device, 1000, stream)
    assert ctypes.string_at(back, 1000) == bytes(1000)  # nothing has happened yet
    driver.wait(stream)
    assert ctypes.string_at(back, 1000) == bytes(range(250)) * 4
    driver.free(device)
    driver.free_host(host)
    driver.free_host(back)
    assert not lib.device_memory and not lib.host_memory


@BOTH
def test_events_tell_the_time_between_them(names):
    lib = Library(names)
    driver = opened(lib)
    stream, began, ended = driver.stream(), driver.event(), driver.event()
    driver.record(began, stream)
    lib.compute(stream, lambda: None, 1.75)
    driver.record(ended, stream)
    with pytest.raises(cuda.CudaError, match="600"):
        driver.elapsed_ms(began, ended)
    driver.wait(stream)
    assert driver.elapsed_ms(began, ended) == 1.75


@BOTH
def test_memory_is_free_and_total(names):
    assert opened(Library(names)).memory() == (2 << 30, 4 << 30)


@BOTH
def test_an_error_says_its_number_and_what_was_called(names):
    call = next(name for name, body in names.items() if body == "allocate")
    with pytest.raises(cuda.CudaError, match=rf"CUDA error 2 \(OUT_OF_MEMORY\) from {call}") as caught:
        opened(Library(names, memory=1 << 20)).allocate(1 << 30)
    assert caught.value.number == OUT_OF_MEMORY == cuda.OUT_OF_MEMORY


def test_an_error_without_a_name():
    lib = Library()
    lib.failing["cuInit"] = 999
    with pytest.raises(cuda.CudaError, match=r"999 \(unknown\) from cuInit"):
        cuda.Driver(lib)


def test_there_is_one_context_a_process(loaded):
    lib = loaded(Library())
    assert cuda.opened() is cuda.opened()
    assert lib.called.count("cuDevicePrimaryCtxRetain") == 1


@pytest.mark.parametrize(
    ("sm", "fp16", "int8"),
    [
        ("5.0", False, False),
        ("5.3", True, False),  # Nano, TX1
        ("6.0", True, False),
        ("6.1", False, True),  # GTX 10xx
        ("6.2", True, False),  # TX2
        ("7.0", True, True),
        ("7.2", True, True),  # Xavier
        ("8.7", True, True),  # Orin
        ("10.0", True, True),
        ("10.3", True, False),
        ("11.0", True, True),
        ("12.0", True, True),
        ("?", False, False),
    ],
)
def test_what_is_fast(sm, fp16, int8):
    assert (cuda.fast_fp16(sm), cuda.fast_int8(sm)) == (fp16, int8)


@pytest.mark.parametrize(
    ("sm", "sparse"), [("5.3", False), ("7.5", False), ("8.0", True), ("8.7", True), ("10.3", True), ("?", False)]
)
def test_sparse_tensor_cores_are_from_ampere_on(sm, sparse):
    assert cuda.sparse(sm) == sparse


@pytest.mark.skipif(not LIBRARIES, reason="no libcudart on this machine")
def test_the_real_libcudart_has_every_name():
    driver = cuda.Driver(ctypes.CDLL(str(LIBRARIES[-1])))
    try:
        assert driver.count() >= 0
    except cuda.CudaError as error:
        names = {35: "cudaErrorInsufficientDriver", 100: "cudaErrorNoDevice"}
        assert names[error.number] in str(error)


@pytest.mark.skipif(not HEADERS, reason="no cuda.h on this machine")
def test_the_real_header_has_every_name():
    header = HEADERS[-1].read_text("utf-8")
    names = [driver for _, driver, _ in cuda.CALLS.values()] + list(cuda.DRIVER_CALLS)
    missing = [name for name in names if f"{name}(" not in header and f"{name}\n" not in header]
    assert not missing


@pytest.mark.skipif(cuda.gpu() is None, reason="no CUDA GPU on this machine")
def test_the_real_gpu():
    found, driver = cuda.gpu(), cuda.opened()
    free, total = driver.memory()
    assert 0 < free <= total and cuda.capability(found["sm"]) >= (5, 0)
    device, stream = driver.allocate(1 << 20), driver.stream()
    host, back = driver.allocate_host(1 << 20), driver.allocate_host(1 << 20)
    began, ended = driver.event(), driver.event()
    ctypes.memset(host, 7, 1 << 20)
    ctypes.memset(back, 0, 1 << 20)
    driver.record(began, stream)
    driver.to_device(device, host, 1 << 20, stream)
    driver.to_host(back, device, 1 << 20, stream)
    driver.record(ended, stream)
    driver.wait(stream)
    assert 0 < driver.elapsed_ms(began, ended) < 1000
    assert ctypes.string_at(back, 1 << 20) == b"\x07" * (1 << 20)
