"""OpenVINO as it is installed here, held against ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from tests.remote import models
from tests.remote.runtimes.loading import check_block, images, job, measured, part, predicted, timing
from tests.remote.runtimes.test_onnxruntime import quantized

runtime = part("runtimes/openvino")
JOB = job("openvino")


@pytest.fixture(scope="module")
def openvino():
    return pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture
def blob(tmp_path) -> Path:
    """A model under a name that tells nothing, as on a device."""
    path = tmp_path / ("a" * 64)
    models.saved(tmp_path, "model", models.convolution()).rename(path)
    return path


def test_predictions_are_onnxruntimes(openvino, tmp_path, blob):
    rows = images(4, 3, 24, 24)
    session = onnxruntime.InferenceSession(blob)
    want = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    found = predicted(runtime, JOB, blob, rows, tmp_path)
    assert found.shape == want.shape and np.abs(found - want).max() < 1e-4 * np.abs(want).max()


def test_a_half_precision_input_is_taken(openvino, tmp_path):
    path, rows = models.saved(tmp_path, "half", models.linear(kind=TensorProto.FLOAT16)), images(3, 3, 2, 2)
    found = predicted(runtime, JOB | {"precision": "fp16"}, path, rows, tmp_path)
    weights = np.arange(36, dtype=np.float32).reshape(12, 3) / 16
    assert np.allclose(found, rows.reshape(3, 12) @ weights, atol=0.05)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block(openvino, blob, threads):
    value = measured(runtime, JOB | {"threads": threads}, blob, blob, energy_s=0.1)
    check_block(value)
    assert value["energy_window"]["runs"] > 10


def test_what_is_asked_for_is_what_is_set(openvino):
    asked = runtime.settings(openvino.Core(), "CPU", JOB | {"threads": 2})
    assert asked == {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": "2",
    }


class Core:
    """A core with one device, as far as its settings go: asked for f16 it takes `half`, or refuses."""

    def __init__(self, half: str, unknown: tuple[str, ...] = ()) -> None:
        names = ["PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "CACHE_DIR"]
        self.known, self.half, self.hint = {name: "RW" for name in names if name not in unknown}, half, ""

    def set_property(self, device: str, properties: dict[str, str]) -> None:
        assert properties == {"INFERENCE_PRECISION_HINT": "f16"}
        if not self.half:
            raise RuntimeError("Wrong value for property key INFERENCE_PRECISION_HINT. Supported values: bf16, f32")
        self.hint = self.half

    def get_property(self, device: str, name: str):
        return {"SUPPORTED_PROPERTIES": self.known, "INFERENCE_PRECISION_HINT": self.hint}[name]


@pytest.mark.parametrize(
    ("precision", "half", "hint"),
    [
        ("fp16", "<Type: 'float16'>", "f16"),
        ("fp16", "<Type: 'bfloat16'>", "f32"),  # 2023.3 and later, on a processor with bf16 only
        ("fp16", "", "f32"),  # 2023.0
        ("fp32", "<Type: 'float16'>", "f32"),
        ("int8", "<Type: 'float16'>", "f32"),
    ],
)
def test_half_precision_only_where_it_is_asked_for_and_there(precision, half, hint):
    asked = runtime.settings(Core(half), "CPU", JOB | {"precision": precision})
    assert asked["INFERENCE_PRECISION_HINT"] == hint


def test_an_fp32_graph_is_computed_in_fp32(openvino, blob):
    compiled = runtime.load(JOB, str(blob)).request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


@pytest.mark.parametrize(
    ("model", "kind", "word"),
    [(models.unknown_op(), "unsupported", "Nonsense"), (b"garbage", "unbuildable", "the model is correct")],
)
def test_the_models_own_faults(openvino, tmp_path, model, kind, word):
    path = tmp_path / "model"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(timing.JobError) as caught:
        runtime.load(JOB, str(path))
    assert caught.value.kind == kind and word in str(caught.value)
    assert "\n" not in str(caught.value) and ".cpp" not in str(caught.value)


def test_a_model_beyond_memory(openvino, tmp_path):
    path = models.saved(tmp_path, "huge", models.huge())
    with pytest.raises(timing.JobError, match="alloc") as caught:
        measured(runtime, JOB, path, path)
    assert caught.value.kind == "out_of_memory"


def test_images_of_another_size_are_unbuildable(openvino, tmp_path, blob):
    with pytest.raises(timing.JobError, match="768 values, the model takes 1x3x24x24") as caught:
        predicted(runtime, JOB, blob, images(2, 3, 16, 16), tmp_path)
    assert caught.value.kind == "unbuildable"


def test_it_offers_what_is_installed(openvino):
    offered = runtime.offers()
    assert openvino.__version__.startswith(offered["openvino"]) and set(offered) <= {"openvino", "openvino:gpu"}


def test_a_gpu_is_offered_where_it_is_listed(monkeypatch):
    core = SimpleNamespace(available_devices=["CPU", "GPU.0", "GPU.1"])
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    monkeypatch.setattr(runtime, "glob", SimpleNamespace(glob=lambda pattern: ["/dev/dri/renderD128"]))
    monkeypatch.setattr(timing, "version_of", lambda package: "2026.4.1")
    assert runtime.offers() == {"openvino": "2026.4.1", "openvino:gpu": "2026.4.1"}
    assert runtime.find_device(core, "gpu") == "GPU"
    core.available_devices = ["CPU"]
    assert runtime.offers() == {"openvino": "2026.4.1"}
    with pytest.raises(timing.JobError, match=r"finds no GPU here; it finds .'CPU'") as caught:
        runtime.find_device(core, "gpu")
    assert caught.value.kind == "no_runtime"
    del core.available_devices  # as a broken driver does
    assert runtime.offers() == {"openvino": "2026.4.1"}


def test_a_gpu_keeps_its_kernels(tmp_path):
    core = Core("", unknown=("INFERENCE_NUM_THREADS",))
    asked = runtime.settings(core, "GPU", job("openvino:gpu", cache=str(tmp_path)))
    assert asked["CACHE_DIR"] == str(tmp_path / "openvino") and "INFERENCE_NUM_THREADS" not in asked


# ------------------------------------------------ what it really runs


def test_layers_of_a_float_graph(openvino, blob):
    found = runtime.layers(JOB | {"model": str(blob), "seconds_max": 0.2})
    kinds = [(row["type"], row["precision"]) for row in found]
    assert kinds.count(("Convolution", "fp32")) == 2 and all(row["ms"] >= 0 for row in found)


def test_layers_of_an_int8_graph(openvino, tmp_path):
    found = runtime.layers(JOB | {"model": str(quantized(tmp_path)), "seconds_max": 0.2, "precision": "int8"})
    kinds = [(row["type"], row["precision"]) for row in found]
    assert kinds.count(("Convolution", "int8")) == 2 and sum(row["ms"] for row in found) > 0


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_node_says_is_text_in_every_version(wrapped):
    words = {"execTimeMcs": "12", "layerType": "Subgraph", "runtimePrecision": "FP32"}
    words["originalLayersNames"] = "image_QuantizeLinear"
    info = {name: SimpleNamespace(astype=lambda kind, value=value: value) for name, value in words.items()}
    told = runtime.told(info if wrapped else words)
    assert told == words
    assert runtime.node("n", told) == {"name": "n", "type": "Quantize", "precision": "fp32", "ms": 0.012}
