"""Convert an fp32 graph to another precision: fp16 is typed, int8 has explicit QuantizeLinear and DequantizeLinear.

Inputs and outputs stay float32. Equal inputs give equal files, byte for byte.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from evaluators.export.onnx_export import quiet, save
from evaluators.quantization.calibration import extremes
from evaluators.quantization.qdq import QuantizationPlan, prepare
from remote.device import Int8Recipe

FP16_MAX = 65504.0
HEADROOM = 2.0  # factor by which later images may exceed the calibration images


def to_precision(
    fp32_path: Path,
    out_path: Path,
    precision: str,
    int8: Int8Recipe | None = None,
    calibration: np.ndarray | None = None,
) -> None:
    """Write the fp32 graph at another precision.

    Args:
        fp32_path: Float32 graph.
        out_path: File to write.
        precision: `fp32`, `fp16` or `int8`.
        int8: Int8 recipe of the device, which int8 needs.
        calibration: Normalised images, float32 (N, 3, image_px, image_px). int8 needs them, and its ranges are their
            extremes; fp16 keeps layers in fp32 that overflow on them.
    """
    if precision == "fp32":
        shutil.copyfile(fp32_path, out_path)
    elif precision == "fp16":
        _halve(fp32_path, out_path, calibration)
    elif precision == "int8":
        if int8 is None or calibration is None or not len(calibration):
            raise ValueError("int8 needs the device's recipe and calibration images: pass both")
        plain = prepare(fp32_path)
        save(QuantizationPlan(plain, int8, extremes(plain, calibration)).graph(), out_path)
    else:
        raise ValueError(f"unknown precision {precision!r}; accepted: fp32, fp16, int8")


def layout(path: Path) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the operators of a graph in order, with their numbers of inputs and outputs: its latency depends on these.

    Identity is ignored: the exporter inserts it where two weight tensors are equal, as the zero biases of an untrained
    network are, and every runtime folds it.
    """
    nodes = onnx.load(path, load_external_data=False).graph.node
    return tuple((node.op_type, (len(node.input), len(node.output))) for node in nodes if node.op_type != "Identity")


def _halve(fp32_path: Path, out_path: Path, images: np.ndarray | None) -> None:
    model = onnx.load(fp32_path)
    kept = [] if images is None else _overflowing(model, images)
    with quiet():
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept or None)
        _join(model)
        # the converter appends the casts of input and output at the end, which readers other than ONNX Runtime reject
        OnnxModel(model).topological_sort(is_deterministic=True)
    save(model, out_path)


def _join(model: onnx.ModelProto) -> None:
    """Remove the casts to fp16 and back between two nodes in fp32, which would overflow there."""
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    whole = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before is not None and _target(node) == TensorProto.FLOAT and _target(before) == TensorProto.FLOAT16:
            whole[name] = before.input[0]
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = whole.get(name, name)
    ends = {value.name for value in model.graph.output}
    while unused := _find_unused_casts(model, ends):
        for node in unused:
            model.graph.node.remove(node)


def _target(cast: onnx.NodeProto) -> int:
    return next(int(attribute.i) for attribute in cast.attribute if attribute.name == "to")


def _find_unused_casts(model: onnx.ModelProto, ends: set[str]) -> list[onnx.NodeProto]:
    read = {name for node in model.graph.node for name in node.input} | ends
    return [node for node in model.graph.node if node.op_type == "Cast" and node.output[0] not in read]


def _overflowing(model: onnx.ModelProto, images: np.ndarray) -> list[str]:
    """Return the nodes with values near or beyond what fp16 holds. A runtime may hide that by computing in fp32."""
    shaped = onnx.shape_inference.infer_shapes(model)
    most = {name: max(-low, high) for name, (low, high) in extremes(shaped, images).items()}
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    large = {name for name, top in most.items() if not top * HEADROOM <= FP16_MAX}
    return sorted(node.name for node in model.graph.node if large & {*node.input, *node.output})
