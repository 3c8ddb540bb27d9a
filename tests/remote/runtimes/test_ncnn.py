"""ncnn as it is installed here: nets written by hand, and what pnnx makes, held against numpy and ONNX Runtime."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from evaluators.export.runtime_formats import for_runtime
from tests.remote import models
from tests.remote.runtimes.loading import check_block, images, job, measured, part, predicted, timing

runtime = part("runtimes/ncnn")
JOB = job("ncnn")
WEIGHTS = np.random.RandomState(0).standard_normal((4, 60)).astype(np.float32)
MATRIX = """7767517
2 2
Input        in0  0 1 in0 0=5 1=4 2=3
InnerProduct fc   1 1 in0 out0 0=4 1=0 2=240
"""


@pytest.fixture(scope="module")
def ncnn():
    return pytest.importorskip("ncnn", reason="ncnn is not installed")


@pytest.fixture(scope="module")
def pnnx():
    return pytest.importorskip("pnnx", reason="pnnx is not installed")


def zipped(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in members.items():
            packed.writestr(f"model.{name}", data)
    return path


@pytest.fixture
def matrix(tmp_path) -> Path:
    """(3, 4, 5) -> (4,): a zero of four bytes says that the weights are float32."""
    return zipped(tmp_path / "matrix", param=MATRIX, bin=bytes(4) + WEIGHTS.tobytes())


def test_predictions_are_numpys(ncnn, matrix, tmp_path):
    rows = images(6, 3, 4, 5)
    found = predicted(runtime, JOB, matrix, rows, tmp_path)
    assert np.abs(found - rows.reshape(6, 60) @ WEIGHTS.T).max() < 1e-5


def test_predictions_are_onnxruntimes(ncnn, pnnx, tmp_path):
    graph, rows = models.saved(tmp_path, "convolution", models.convolution()), images(4, 3, 24, 24)
    session = onnxruntime.InferenceSession(graph)
    want = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    found = predicted(runtime, JOB, for_runtime(graph, "ncnn", 24, tmp_path), rows, tmp_path)
    assert found.shape == want.shape and np.abs(found - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block(ncnn, matrix, threads):
    value = measured(runtime, JOB | {"threads": threads}, matrix, matrix, energy_s=0.1)
    check_block(value)
    assert value["energy_window"]["runs"] > 10


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_half_precision_only_where_it_is_asked_for(ncnn, precision):
    options = ncnn.Option()
    runtime.choose(options, JOB | {"precision": precision, "threads": 2})
    half = [options.use_fp16_packed, options.use_fp16_storage, options.use_fp16_arithmetic]
    assert half == [precision == "fp16"] * 3 and not options.use_bf16_storage
    assert options.num_threads == 2 and not options.use_vulkan_compute


def test_options_an_older_ncnn_lacks_are_left_alone():
    options = SimpleNamespace(use_fp16_storage=True)
    runtime.choose(options, JOB)
    assert vars(options) == {"use_fp16_storage": False, "use_vulkan_compute": False, "num_threads": 1}


def refused(path: Path, **more) -> timing.JobError:
    with pytest.raises(timing.JobError) as caught:
        runtime.load(JOB | more, str(path))
    return caught.value


def test_an_operator_it_does_not_have(ncnn, tmp_path, capfd):
    found = refused(zipped(tmp_path / "model", param=MATRIX.replace("InnerProduct", "Nonsense"), bin=b""))
    assert found.kind == "unsupported" and "Nonsense" in str(found)
    os.write(2, b"stderr is back")
    assert capfd.readouterr().err == "stderr is back"


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"param": MATRIX}, "model.bin"),
        ({"param": "garbage", "bin": b""}, "input's size"),
        ({"param": MATRIX.replace(" 2=3", ""), "bin": b""}, "input's size"),
        ({"param": MATRIX.replace("7767517", "1"), "bin": bytes(4)}, "magic|too old|model.param"),
    ],
)
def test_what_is_no_net(ncnn, tmp_path, members, word):
    found = refused(zipped(tmp_path / "model", **members))
    assert found.kind == "unbuildable"
    with pytest.raises(timing.JobError, match=word):
        raise found


def test_what_is_no_zip(ncnn, tmp_path):
    (tmp_path / "model").write_bytes(b"garbage")
    assert refused(tmp_path / "model").kind == "unbuildable"


def test_too_few_weights(ncnn, tmp_path):
    found = refused(zipped(tmp_path / "model", param=MATRIX, bin=bytes(4) + WEIGHTS.tobytes()[:100]))
    assert found.kind == "unbuildable" and "\n" not in str(found)


def test_int8_graphs_are_refused(ncnn, matrix):
    assert refused(matrix, precision="int8").kind == "unsupported"


def test_images_of_another_size_are_unbuildable(ncnn, matrix, tmp_path):
    with pytest.raises(timing.JobError, match="48 values, the model takes 3x4x5") as caught:
        predicted(runtime, JOB, matrix, images(2, 3, 4, 4), tmp_path)
    assert caught.value.kind == "unbuildable"


def test_it_offers_what_is_installed(ncnn):
    assert runtime.offers() == {"ncnn": ncnn.__version__}
