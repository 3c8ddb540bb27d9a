"""ONNX Runtime as it is installed here, and its other providers by a stand-in with their real names."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from tests.remote import models
from tests.remote.runtimes.loading import check_block, images, job, measured, part, predicted, timing

runtime = part("runtimes/onnxruntime")
JOB = job("onnxruntime")


def saved(folder: Path, model) -> Path:
    return models.saved(folder, "model", model)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_predictions_are_onnxruntimes(tmp_path, kind):
    path, rows = saved(tmp_path, models.linear(kind=kind)), images(5, 3, 2, 2)
    session = onnxruntime.InferenceSession(path)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    want = np.concatenate([session.run(None, {"x": row[None].astype(dtype)})[0] for row in rows])
    assert np.array_equal(predicted(runtime, JOB, path, rows, tmp_path), want.astype(np.float32))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block(tmp_path, threads):
    path = saved(tmp_path, models.convolution())
    value = measured(runtime, JOB | {"threads": threads}, path, path, energy_s=0.1)
    check_block(value)
    assert value["energy_window"]["runs"] > 10 and "gpu_ms" not in value and value["device_mb"] is None


@pytest.mark.parametrize(
    ("model", "kind", "word"),
    [
        (models.unknown_op(), "unsupported", "Nonsense"),
        (models.huge(), "out_of_memory", "alloc"),
        (b"garbage", "unbuildable", "rotobuf"),
    ],
)
def test_the_models_own_faults(tmp_path, model, kind, word):
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(timing.JobError, match=word) as caught:
        measured(runtime, JOB, path, path)
    assert caught.value.kind == kind and "\n" not in str(caught.value)


def test_images_of_another_size_are_unbuildable(tmp_path):
    with pytest.raises(timing.JobError, match="imensions") as caught:
        predicted(runtime, JOB, saved(tmp_path, models.linear()), images(2, 3, 4, 4), tmp_path)
    assert caught.value.kind == "unbuildable"


def test_it_offers_what_is_installed():
    assert runtime.offers() == {"onnxruntime": onnxruntime.__version__}


def test_providers_are_offered_by_their_libraries(tmp_path, monkeypatch):
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("__version__ = '1.23.0'\n")
    for name in ("shared", "cuda", "tensorrt", "openvino"):
        (capi / f"libonnxruntime_providers_{name}.so").touch()
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("onnxruntime", "onnxruntime:cuda", "onnxruntime:openvino", "onnxruntime:tensorrt")
    assert runtime.offers() == dict.fromkeys(names, "1.23.0")


@pytest.mark.parametrize(("option", "kind"), [("cuda", "no_runtime"), ("tensorrt", "no_runtime"), ("x", "bad_request")])
def test_a_provider_that_is_not_there(tmp_path, option, kind):
    path = saved(tmp_path, models.linear())
    with pytest.raises(timing.JobError) as caught:
        runtime.load(job(f"onnxruntime:{option}"), str(path))
    assert caught.value.kind == kind


class Library:
    """onnxruntime as a build with `providers` shows itself, of which those in `works` start."""

    def __init__(self, version: str, providers: list[str], works: list[str], words: str = "") -> None:
        self.__version__, self.works, self.words, self.asked = version, works, words, None
        self.get_available_providers = lambda: providers

    def SessionOptions(self) -> SimpleNamespace:
        return SimpleNamespace(add_session_config_entry=lambda name, value: None)

    def InferenceSession(self, path, options, providers, enable_fallback) -> SimpleNamespace:
        self.asked = providers
        if self.words:
            raise RuntimeError(self.words)
        started = [name for name, _ in providers if name in self.works]
        session = SimpleNamespace(get_providers=lambda: started, get_inputs=list, falls_back=bool(enable_fallback))
        session.disable_fallback = lambda: setattr(session, "falls_back", False)
        return session


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"


def asked(monkeypatch, library: Library, job: dict, path: str = "model") -> list:
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    assert not runtime.load(job, path).session.falls_back
    return library.asked


def test_cuda_with_its_own_defaults(monkeypatch):
    library = Library("1.23.0", [TENSORRT, CUDA, CPU], [CUDA, CPU])
    assert asked(monkeypatch, library, job("onnxruntime:cuda")) == [(CUDA, {}), (CPU, {})]


def test_the_cpu_is_asked_for_where_there_is_more(monkeypatch):
    library = Library("1.23.0", [TENSORRT, CUDA, CPU], [CUDA, CPU])
    assert asked(monkeypatch, library, JOB) == [(CPU, {})]


def test_a_listed_provider_that_does_not_start(monkeypatch):
    """GPU builds list TensorRT whether or not its libraries are there, and go on without it."""
    library = Library("1.23.0", [TENSORRT, CUDA, CPU], [CUDA, CPU])
    with pytest.raises(
        timing.JobError, match=r"TensorrtExecutionProvider is .* CUDAExecutionProvider started"
    ) as caught:
        asked(monkeypatch, library, job("onnxruntime:tensorrt"))
    assert caught.value.kind == "no_runtime"


@pytest.mark.parametrize(
    ("words", "kind"),
    [  # the first as a GPU build of 1.23.2 says it
        ("Please install TensorRT libraries as mentioned in the GPU requirements page, make sure", "no_runtime"),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "no_runtime"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "no_runtime"),
        ("TensorRT EP failed to create engine from network for fused node", "unbuildable"),
        ("CUDA failure 2: out of memory ; GPU=0", "out_of_memory"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", "out_of_memory"),
    ],
)
def test_whose_fault_a_provider_that_raises_is(monkeypatch, words, kind):
    library = Library("1.23.2", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU], words)
    with pytest.raises(timing.JobError) as caught:
        asked(monkeypatch, library, job("onnxruntime:tensorrt"))
    assert caught.value.kind == kind and words[:30] in str(caught.value)


def test_tensorrt_is_told_the_precision_and_keeps_engines_apart(monkeypatch, tmp_path):
    library = Library("1.10.0", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU])
    words = job("onnxruntime:tensorrt", precision="fp16", cache=str(tmp_path), workspace_mb=512)
    chain = asked(monkeypatch, library, words, "/blobs/abc")
    folder = tmp_path / "onnxruntime-tensorrt" / "abc"
    # as 1.10 reads them: booleans are spelt True and False, and a name it does not know is an error
    assert chain[0] == (
        TENSORRT,
        {
            "trt_max_workspace_size": str(512 << 20),
            "trt_fp16_enable": "True",
            "trt_int8_enable": "False",
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
        },
    )
    assert [name for name, _ in chain] == [TENSORRT, CUDA, CPU] and folder.is_dir()
    words = job("onnxruntime:tensorrt", precision="int8")
    options = asked(monkeypatch, library, words)[0][1]
    assert options["trt_int8_enable"] == "True" and "trt_engine_cache_path" not in options


@pytest.mark.parametrize(
    ("version", "sm", "sparse"),
    [("1.14.1", "8.7", False), ("1.15.0", "7.2", False), ("1.15.0", "8.7", True), ("1.23.0", None, False)],
)
def test_tensorrt_looks_for_zeros_where_the_version_and_the_gpu_can(monkeypatch, version, sm, sparse):
    monkeypatch.setattr(part("cuda"), "gpu", lambda: {"sm": sm} if sm else None)
    options = asked(monkeypatch, Library(version, [TENSORRT, CUDA, CPU], [TENSORRT]), job("onnxruntime:tensorrt"))[0][1]
    assert options.get("trt_sparsity_enable") == ("True" if sparse else None)


def test_the_oldest_engines_go(tmp_path):
    for index in range(20):
        folder = Path(runtime.engine_folder(str(tmp_path), f"/blobs/{index}"))
        (folder / "engine").touch()
        os.utime(folder, (index, index))
    kept = {path.name for path in (tmp_path / "onnxruntime-tensorrt").iterdir()}
    assert kept == {str(index) for index in range(4, 20)}


@pytest.mark.parametrize(("version", "device"), [("1.10.0", "CPU_FP32"), ("1.16.3", "CPU_FP32"), ("1.24.1", "CPU")])
def test_openvinos_device_by_version(monkeypatch, version, device):
    library = Library(version, [OPENVINO, CPU], [OPENVINO, CPU])
    chain = asked(monkeypatch, library, job("onnxruntime:openvino", threads=2))
    assert chain == [(OPENVINO, {"device_type": device, "num_of_threads": "2"}), (CPU, {})]


# ------------------------------------------------ what it really runs


def quantized(folder: Path) -> Path:
    """Two convolutions in int8 after static quantization, as a search makes them."""
    plain, out = saved(folder, models.convolution()), folder / "int8.onnx"
    rows = images(4, 3, 24, 24)

    class Rows(CalibrationDataReader):
        left = iter(rows)

        def get_next(self):
            row = next(self.left, None)
            return None if row is None else {"x": row[None]}

    quantize_static(plain, out, Rows(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True)
    return out


def test_layers_of_an_int8_graph(tmp_path):
    found = runtime.layers(JOB | {"model": str(quantized(tmp_path)), "seconds_max": 0.2, "precision": "int8"})
    kinds = [(row["type"], row["precision"]) for row in found]
    assert kinds.count(("QLinearConv", "int8")) == 2 and ("QuantizeLinear", "fp32") in kinds
    assert all(0 < row["ms"] < 100 for row in found)


def test_layers_of_a_float_graph_are_float(tmp_path):
    found = runtime.layers(JOB | {"model": str(saved(tmp_path, models.convolution())), "seconds_max": 0.2})
    assert {row["precision"] for row in found if "Conv" in row["type"]} == {"fp32"}
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model.onnx"], "the profile must not stay"


def test_a_profile_without_types_goes_by_names():
    """As ONNX Runtime up to 1.8 writes it."""
    event = {"name": "a_kernel_time", "dur": 1500, "ts": 0, "args": {"op_name": "QLinearConv"}}
    assert runtime.node([event, dict(event, dur=2500)]) == {
        "name": "a",
        "type": "QLinearConv",
        "precision": "int8",
        "ms": 2.0,
    }
    event["args"] = {"op_name": "Conv", "provider": "CUDAExecutionProvider", "input_type_shape": [{"float16": [1]}]}
    assert runtime.node([event])["precision"] == "fp16" and runtime.node([event])["ms"] == 0.0
