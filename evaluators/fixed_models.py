"""Convert the user's ONNX classifier into a graph that is timed and quantized like a network's, but never trained.

It runs in a worker process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, version_converter

from evaluators.data.dataset import DataError
from evaluators.export.onnx_export import INPUT, IR_VERSION, OUTPUT, quiet, save
from evaluators.export.operator_support import check
from evaluators.quantization.qdq import macs, prepare
from evaluators.training.onnx_teacher import MODEL, OnnxClassifier, content_of

OPSET_MIN = 13  # the oldest opset with int8 per channel
PARITY_MAX = 1e-3  # relative to the largest output: error that float32 rounding may cause over many layers


def judge_model(model: OnnxClassifier, classes: int, opset_max: int, runtimes: tuple[str, ...] = ()) -> None:
    """Reject a model that can't be a candidate.

    Args:
        model: The user's classifier.
        classes: Number of classes of the data set.
        opset_max: Newest opset that the device reads.
        runtimes: Runtimes in which the graph must load.

    Raises:
        DataError: The model can't be a candidate; one line.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        write_plain(model, path, opset_max)
        out = _run(path, model, _noise(model, 1))
        if out.shape != (1, classes) or out.dtype != np.float32:
            found = f"{out.dtype} {out.shape}"
            raise DataError(f"model {model.file}: returns {found} for one image; it must return float32 (1, {classes})")
        parity(model, path)
        try:
            check(path, opset_max, runtimes, f"model {model.file}")
        except ValueError as error:
            raise DataError(str(error)) from None


def write_plain(model: OnnxClassifier, path: Path, opset_max: int) -> None:
    """Write the model like an exported network: one input `image` of batch 1, output `logits`, a supported opset.

    Args:
        model: The user's classifier.
        path: File to write.
        opset_max: Newest opset that the device reads.

    Raises:
        DataError: The file has changed since it was opened, or can't be converted.
    """
    if content_of(model.file, MODEL) != model.sha256:
        raise DataError(f"model {model.file} was changed during the run: restore it, or name a new --out")
    try:
        graph = onnx.load(model.file)
    except Exception as error:  # protobuf's and the file system's errors have no common class
        raise DataError(f"model {model.file} can't be read: {_words(error)}") from None
    _one_image(graph, model)
    with quiet():
        graph = _at_opset(graph, model, opset_max)
    save(graph, path)
    _run(path, model, _noise(model, 1))


def parity(model: OnnxClassifier, path: Path) -> float:
    """Return the largest difference of an output between the user's file and the one that `write_plain` made of it.

    Args:
        model: The user's classifier.
        path: Converted file.

    Raises:
        DataError: The difference is larger than rounding explains.
    """
    image = _noise(model, 1)
    batch = _session(model.file, model).get_inputs()[0].shape[0]
    given = _run(model.file, model, np.repeat(image, batch, axis=0) if isinstance(batch, int) else image)[:1]
    difference = float(np.abs(_run(path, model, image) - given).max())
    if not difference <= PARITY_MAX * max(1.0, float(np.abs(given).max())):
        raise DataError(f"model {model.file}: converted to another opset or batch, it is off by {difference:.2g}")
    return difference


def size_of(path: Path) -> tuple[int, int]:
    """Return (parameters, multiply-accumulates of one image) of a graph; the latter are 0 if its shapes are unknown."""
    graph = onnx.load(path).graph
    parameters = sum(int(np.prod(t.dims, dtype=int)) for t in graph.initializer if t.data_type == TensorProto.FLOAT)
    try:
        return parameters, sum(macs(prepare(path)).values())
    except Exception:  # shape inference raises errors without a common class
        return parameters, 0


def _one_image(graph: onnx.ModelProto, model: OnnxClassifier) -> None:
    """Give the graph one input of batch 1 and the usual names. Raises DataError if it does not have that form."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    for what, values in (("input", inputs), ("output", graph.graph.output)):
        if len(values) != 1:
            raise DataError(f"model {model.file} has {len(values)} {what}s; a classifier must have one")
        if values[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            raise DataError(
                f"model {model.file}: its {what} is not float32; the search makes fp16 and int8 of an fp32 model"
            )
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in graph.graph.node):
        raise DataError(f"model {model.file} is quantized; the search makes fp16 and int8 of an fp32 model")
    px = model.image_px
    dims = inputs[0].type.tensor_type.shape.dim
    shape, wanted = [dim.dim_value or None for dim in dims], [1, 3, px, px]
    if len(shape) != 4 or any(have not in (None, want) for have, want in zip(shape[1:], wanted[1:], strict=True)):
        shown = " x ".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
        raise DataError(f"model {model.file} takes {shown}; its preprocessing yields 1 x 3 x {px} x {px}")
    for dim, want in zip(dims, wanted, strict=True):
        dim.dim_value = want
    out = graph.graph.output[0].type.tensor_type.shape.dim
    if out:
        out[0].dim_value = 1
    _rename(graph.graph, {inputs[0].name: INPUT, graph.graph.output[0].name: OUTPUT})
    del graph.graph.value_info[:]  # these shapes may be of another batch size


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors in place; another tensor that already has a new name is renamed too."""
    taken = {name for name in names.values() if name not in names}
    names = names | {name: f"{name} of the model" for name in taken}
    for part in _parts(graph):
        for node in part.node:
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]
        for value in (*part.input, *part.output, *part.initializer, *part.value_info):
            value.name = names.get(value.name, value.name)


def _parts(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _parts(inner)


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Remove Identity operators in place; exporters insert them where two weight tensors are equal."""
    ends = {value.name for value in graph.output}
    idle = [node for node in graph.node if node.op_type == "Identity" and node.output[0] not in ends]
    source: dict[str, str] = {}
    for node in idle:
        source[node.output[0]] = source.get(node.input[0], node.input[0])
        graph.node.remove(node)
    for part in _parts(graph):
        for node in part.node:
            node.input[:] = [source.get(name, name) for name in node.input]


def _at_opset(graph: onnx.ModelProto, model: OnnxClassifier, opset_max: int) -> onnx.ModelProto:
    opset = next((entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")), 0)
    target = min(max(opset, OPSET_MIN), opset_max)
    if target == opset:
        return graph
    _drop_identities(graph.graph)
    try:
        return version_converter.convert_version(graph, target)
    except Exception as error:  # the converter's errors have no common class
        # the converter can't downgrade operators to which a later opset only added data types
        if target < opset and _is_valid_at(graph, target):
            return graph
        raise DataError(
            f"model {model.file} has ONNX opset {opset}, opset {target} is needed here, and it can't be converted "
            f"({_words(error)}); export it with opset {target}"
        ) from None


def _is_valid_at(graph: onnx.ModelProto, opset: int) -> bool:
    """Set the opset of the graph and return True if it is valid there; its outputs are compared later."""
    for entry in graph.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    graph.ir_version = min(graph.ir_version, IR_VERSION)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except Exception:  # the checker's errors have no common class
        return False
    return True


def _run(path: Path, model: OnnxClassifier, images: np.ndarray) -> np.ndarray:
    session = _session(path, model)
    try:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise DataError(f"model {model.file} can't be run at {model.image_px} px: {_words(error)}") from None


def _session(path: Path, model: OnnxClassifier) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise DataError(f"model {model.file} can't be loaded: {_words(error)}") from None


def _noise(model: OnnxClassifier, count: int) -> np.ndarray:
    shape = (count, 3, model.image_px, model.image_px)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
