"""Export torch networks to ONNX files in fp32; `evaluators.quantization.precision` makes fp16 and int8 of them.

Opset 13 and IR version 8 at most, static batch of 1, input `image`, output `logits`: TensorRT 8.2 and old versions of
ONNX Runtime read such files. Equal inputs give equal files, byte for byte. The module needs torch, so it runs in a
worker process.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from remote.files import write_file
from spaces.memory_errors import is_out_of_memory

INPUT, OUTPUT = "image", "logits"
IR_VERSION = 8  # newest version that ONNX Runtime 1.10 and TensorRT 8.2 read


def export(net: nn.Module, image_px: int, path: Path, opset: int = 13, dynamic_batch: bool = False) -> str:
    """Export a network in eval mode, with weights and batch norm folded.

    The graph maps (1, 3, image_px, image_px) to (1, classes).

    Args:
        net: Network; its training mode is restored afterwards.
        image_px: Side of the input, in pixels.
        path: File to write.
        opset: Opset of the graph.
        dynamic_batch: Whether the graph maps (N, 3, image_px, image_px) to (N, classes) for any N;
            `benchmarks.dynamic_batch` shows the cost of that.

    Returns:
        Name of the exporter: `torchscript`, or `dynamo` where that fails (then the opset may be higher).
    """
    example = (torch.zeros(1, 3, image_px, image_px),)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "opset_version": opset}
    if dynamic_batch:
        names["dynamic_axes"] = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    training = net.training
    net.eval()
    try:
        with quiet(), _silent_below_python():
            exporter = _write(net, example, path, names)
    finally:
        net.train(training)
    save(onnx.load(path), path)
    return exporter


def opset_of(path: Path) -> int:
    """Return the version of the standard operators that a file uses."""
    imports = onnx.load(path, load_external_data=False).opset_import
    return int(next(entry.version for entry in imports if entry.domain in ("", "ai.onnx")))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context manager that suppresses output, warnings and logs below errors: libraries report progress to stdout."""
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
        if is_out_of_memory(first):  # another exporter would not help
            raise
        try:
            torch.onnx.export(net, example, path, dynamo=True, external_data=False, **names)
            return "dynamo"
        except Exception:
            raise first from None  # the first error names the operator, dynamo's fills a page


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


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model in a form that old versions of runtimes read, without any trace of the machine it was made on.

    Args:
        model: ONNX model, which is modified in place.
        path: File to write.
    """
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
    write_file(path, model.SerializeToString(deterministic=True))
