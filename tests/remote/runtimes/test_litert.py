"""LiteRT as it is installed here, over models written by its own schema and held against numpy."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.remote.runtimes.loading import check_block, images, job, measured, part, predicted, timing

runtime = part("runtimes/litert")
JOB = job("litert")
RANDOM = np.random.RandomState(0)
FILTERS = RANDOM.standard_normal((5, 3, 3, 3)).astype(np.float32)  # (out, height, width, in)
WEIGHTS = RANDOM.standard_normal((4, 8 * 6 * 5)).astype(np.float32)  # (classes, height * width * channels)


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")


class Writer:
    """One .tflite file: tensors and operators in the order they are given."""

    def __init__(self, schema) -> None:
        self.schema, self.model, self.graph = schema, schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind: str, data=None, scale: float = 0.0, zero_point: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = list(shape), getattr(self.schema.TensorType, kind)
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        if scale:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
        if data is not None:
            tensor.buffer = len(self.model.buffers)
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], outputs: list[int], options: str = "") -> None:
        code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        number = getattr(self.schema.BuiltinOperator, name, self.schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 4 if options else 1
        if number == self.schema.BuiltinOperator.CUSTOM:
            code.customCode = name.encode()
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, options + "T")()
            if options == "Conv2DOptions":
                operator.builtinOptions.strideH = operator.builtinOptions.strideW = 1
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes), inputs, outputs
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def save(self, path: Path, given: int, wanted: int) -> Path:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = [given], [wanted]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path


@pytest.fixture
def network(schema, tmp_path) -> Path:
    """(1, 8, 6, 3) -> (1, 4): a convolution and a matrix, in the format's own order."""
    w = Writer(schema)
    image, hidden = w.tensor([1, 8, 6, 3], "FLOAT32"), w.tensor([1, 8, 6, 5], "FLOAT32")
    filters, zeros = w.tensor(FILTERS.shape, "FLOAT32", FILTERS), w.tensor([5], "FLOAT32", np.zeros(5, "f4"))
    weights, bias = w.tensor(WEIGHTS.shape, "FLOAT32", WEIGHTS), w.tensor([4], "FLOAT32", np.arange(4, dtype="f4"))
    logits = w.tensor([1, 4], "FLOAT32")
    w.operator("CONV_2D", [image, filters, zeros], [hidden], "Conv2DOptions")
    w.operator("FULLY_CONNECTED", [hidden, weights, bias], [logits], "FullyConnectedOptions")
    return w.save(tmp_path / "network", image, logits)


def by_numpy(image: np.ndarray) -> np.ndarray:
    """(3, 8, 6) -> (4,), what the network computes."""
    padded = np.pad(image.transpose(1, 2, 0).astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    hidden = np.zeros((8, 6, 5))
    for y in range(8):
        for x in range(6):
            hidden[y, x] = (FILTERS * padded[y : y + 3, x : x + 3]).sum((1, 2, 3))
    return WEIGHTS @ hidden.ravel() + np.arange(4)


def matrix(schema, path: Path, shape: list[int], kind: str, scale: float, zero_point: int, weights: np.ndarray) -> Path:
    """One matrix over an input of any layout; an integer kind has integer inputs, weights and outputs."""
    w = Writer(schema)
    integer = kind != "FLOAT32"
    image = w.tensor(shape, kind, None, scale, zero_point)
    held = w.tensor(weights.shape, kind, weights, 0.01 if integer else 0, 128 if kind == "UINT8" else 0)
    bias = np.zeros(len(weights), "i4" if integer else "f4")
    zeros = w.tensor(bias.shape, "INT32" if integer else "FLOAT32", bias, scale * 0.01)
    logits = w.tensor([1, len(weights)], kind, None, 0.25 if integer else 0, zero_point)
    w.operator("FULLY_CONNECTED", [image, held, zeros], [logits], "FullyConnectedOptions")
    return w.save(path, image, logits)


def test_predictions_are_numpys_and_channels_go_last(network, tmp_path):
    rows = images(5, 3, 8, 6)
    found = predicted(runtime, JOB, network, rows, tmp_path)
    assert np.allclose(found, np.stack([by_numpy(row) for row in rows]), atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block(network, threads):
    value = measured(runtime, JOB | {"threads": threads}, network, network, energy_s=0.1)
    check_block(value)
    assert value["energy_window"]["runs"] > 10


def test_the_input_outlasts_a_run(network):
    """What is timed runs again and again on one input: its memory must not be lent to other tensors."""
    model = runtime.load(JOB, str(network))
    model.feed(None)
    model.run()
    first = model.output()
    model.run()
    assert model.output() == first and np.frombuffer(first, "<f4").any()


def test_an_input_with_channels_first_stays_so(schema, tmp_path):
    weights = RANDOM.standard_normal((2, 60)).astype(np.float32)
    path = matrix(schema, tmp_path / "model", [1, 3, 4, 5], "FLOAT32", 0, 0, weights)
    rows = images(3, 3, 4, 5)
    found = predicted(runtime, JOB, path, rows, tmp_path)
    assert np.allclose(found, rows.reshape(3, 60) @ weights.T, atol=1e-4)


@pytest.mark.parametrize(("kind", "zero_point"), [("INT8", -5), ("UINT8", 120)])
def test_integer_inputs_and_outputs_are_scaled(schema, tmp_path, kind, zero_point):
    numbers = RANDOM.randint(-127, 128, (2, 12))
    stored = (numbers + (128 if kind == "UINT8" else 0)).astype(kind.lower())
    path = matrix(schema, tmp_path / "model", [1, 2, 2, 3], kind, 0.03, zero_point, stored)
    rows = images(6, 3, 2, 2)
    want = rows.transpose(0, 2, 3, 1).reshape(6, 12) @ (numbers.T * 0.01)
    found = predicted(runtime, JOB | {"precision": "int8"}, path, rows, tmp_path)
    assert np.abs(found - want).max() < 0.25 and np.abs(want).max() > 2
    assert np.allclose(found % 0.25, 0)
    check_block(measured(runtime, JOB | {"precision": "int8"}, path, path))


def test_values_beyond_the_integers_are_clipped(schema, tmp_path):
    weights = np.eye(2, 12, dtype=np.int8) * 100
    path = matrix(schema, tmp_path / "model", [1, 2, 2, 3], "INT8", 0.03, 0, weights)
    rows = np.full((2, 3, 2, 2), 1e6, np.float32)
    rows[1] *= -1
    assert np.allclose(predicted(runtime, JOB, path, rows, tmp_path), [[3.75] * 2, [-3.75] * 2])


@pytest.mark.parametrize(
    ("shape", "row", "turned"),
    [
        ([1, 8, 6, 3], [3, 8, 6], True),
        ([1, 3, 8, 6], [3, 8, 6], False),
        ([1, 3, 3, 3], [3, 3, 3], True),
        ([1, 8, 6, 3], None, True),
        ([1, 3, 8, 6], None, False),
        ([1, 144], [3, 8, 6], False),
    ],
)
def test_which_layouts_are_turned(shape, row, turned):
    assert runtime.channels_last(shape, row) is turned


def test_images_of_another_size_are_unbuildable(network, tmp_path):
    with pytest.raises(timing.Unfit, match="48 values, the model takes 1x8x6x3") as caught:
        predicted(runtime, JOB, network, images(2, 3, 4, 4), tmp_path)
    assert caught.value.kind == "unbuildable"


def test_the_models_own_faults(schema, tmp_path):
    w = Writer(schema)
    image, result = w.tensor([1, 4], "FLOAT32"), w.tensor([1, 4], "FLOAT32")
    w.operator("Nonsense", [image], [result])
    with pytest.raises(timing.Unfit, match="Nonsense") as caught:
        runtime.load(JOB, str(w.save(tmp_path / "unknown", image, result)))
    assert caught.value.kind == "unsupported"
    (tmp_path / "garbage").write_bytes(b"garbage" * 10)
    with pytest.raises(timing.Unfit) as caught:
        runtime.load(JOB, str(tmp_path / "garbage"))
    assert caught.value.kind == "unbuildable" and "\n" not in str(caught.value)


def test_it_offers_what_is_installed(schema):
    offered = runtime.offers()
    assert set(offered) == {"litert"} and offered["litert"][0].isdigit()


def test_older_packages_of_it_do(monkeypatch):
    def import_module(name: str):
        if name == "tflite_runtime.interpreter":
            return SimpleNamespace(Interpreter="the class")
        if name == "numpy":
            return np
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtime, "importlib", SimpleNamespace(import_module=import_module))
    assert runtime.libraries() == ("the class", np)
    monkeypatch.setattr(timing, "version_of", lambda package, *names: "2.20.0" if "tensorflow_cpu" in names else None)
    assert runtime.offers() == {"litert": "2.20.0"}


def test_none_of_them_is_said(monkeypatch):
    for package, module, _ in runtime.PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(timing.Unfit, match=r"ai_edge_litert: .*tflite_runtime: .*tensorflow: ") as caught:
        runtime.load(JOB, "model")
    assert caught.value.kind == "no_runtime"
