"""ONNX files a device can read: fp32 from torch, then fp16 or int8 from the fp32 file.

Opset 13 and IR version 8 at most, static batch of 1, input `image`, output `logits`: what TensorRT 8.2 and old ONNX
Runtimes take. Precision is in the graph: fp16 is typed, int8 has explicit QuantizeLinear and DequantizeLinear.
Equal inputs give equal files, byte for byte. Needs torch, so it runs in a worker process.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import nn

from remote.device import Int8Recipe

INPUT, OUTPUT = "image", "logits"
IR_VERSION = 8  # the newest that ONNX Runtime 1.10 and TensorRT 8.2 read


def export(net: nn.Module, image_px: int, path: Path, opset: int = 13) -> str:
    """Which exporter wrote `path`: torchscript, or dynamo where that fails (then the opset may be higher).

    (1, 3, image_px, image_px) -> (1, classes), weights and batch norm folded, in eval mode.
    """
    example = (torch.zeros(1, 3, image_px, image_px),)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "opset_version": opset}
    training = net.training
    net.eval()
    try:
        with quiet(), _silent_below_python():
            exporter = _write(net, example, path, names)
    finally:
        net.train(training)
    _save(onnx.load(path), path)
    return exporter


def to_precision(
    fp32_path: Path,
    out_path: Path,
    precision: str,
    int8: Int8Recipe | None = None,
    calibration: np.ndarray | None = None,
) -> None:
    """Write the fp32 graph as `precision`; inputs and outputs stay float32.

    int8 needs the target's recipe and calibration images, normalised float32 (N, 3, image_px, image_px).
    """
    if precision == "fp32":
        shutil.copyfile(fp32_path, out_path)
    elif precision == "fp16":
        with quiet():
            model = convert_float_to_float16(onnx.load(fp32_path), keep_io_types=True)
            # it appends the casts of input and output at the end, which readers other than ONNX Runtime refuse
            OnnxModel(model).topological_sort(is_deterministic=True)
        _save(model, out_path)
    elif precision == "int8":
        if int8 is None or calibration is None or not len(calibration):
            raise ValueError("int8 needs a recipe (the device's) and calibration images: give both")
        _quantize(fp32_path, out_path, int8, calibration)
    else:
        raise ValueError(f"no precision {precision!r}; there are fp32, fp16, int8")


def opset_of(path: Path) -> int:
    """Version of the standard operators a file uses."""
    imports = onnx.load(path, load_external_data=False).opset_import
    return int(next(entry.version for entry in imports if entry.domain in ("", "ai.onnx")))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed, warned or logged below an error inside: the libraries report progress to stdout."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write(net: nn.Module, example: tuple[torch.Tensor], path: Path, names: dict[str, Any]) -> str:
    try:
        torch.onnx.export(net, example, path, dynamo=False, **names)
        return "torchscript"
    except Exception as first:  # exporters' errors have no common class
        try:
            torch.onnx.export(net, example, path, dynamo=True, external_data=False, **names)
            return "dynamo"
        except Exception:
            raise first from None  # it names the operator, dynamo's fills a page


@contextlib.contextmanager
def _silent_below_python() -> Iterator[None]:
    # A failing TorchScript export prints its whole graph from C++, where Python's redirection does not reach.
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class _Images(CalibrationDataReader):
    """One image at a time, as the graph takes them."""

    def __init__(self, images: np.ndarray) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {INPUT: np.ascontiguousarray(image[None], dtype=np.float32)}


def _quantize(fp32_path: Path, out_path: Path, recipe: Int8Recipe, images: np.ndarray) -> None:
    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        # Folds batch norm and padding into convolutions, so that no Q/DQ pair is put between them.
        quant_pre_process(str(fp32_path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=recipe.weight_bits == 7,
            activation_type=kinds[recipe.activation],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": recipe.symmetric,
                "WeightSymmetric": True,
                # TensorRT keeps biases in floating point and refuses to dequantize an int32
                "QuantizeBias": not recipe.symmetric,
            },
        )
        _save(onnx.load(quantized), out_path)


def _save(model: Any, path: Path) -> None:
    """Write a model that old readers take and that holds nothing of the machine it was made on."""
    model.ir_version = min(model.ir_version, IR_VERSION)
    used = {"" if node.domain == "ai.onnx" else node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:]
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))
