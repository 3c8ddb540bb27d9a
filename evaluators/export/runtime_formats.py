"""Convert a graph to the file format of a runtime, on the host, where torch and onnx are installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from evaluators.fault_attribution import (
    SUSPECTS,
    HostMemoryError,
    WorkerCrashedError,
    WorkerTimeoutError,
    death,
    hosts_fault,
)
from spaces.candidate import UnbuildableError
from spaces.memory_errors import is_lack_of_memory

RUNTIMES = Path(__file__).parents[2] / "remote" / "runtimes"
PNNX_S_MAX = 600.0  # time limit in s; a mobilenet takes 5 s on one core
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def needs(runtime: str) -> str:
    """Return the format that a runtime reads, as its file declares it.

    Args:
        runtime: Name of a runtime, which may have an option, as in `onnxruntime:cuda`.

    Returns:
        `onnx` or `ncnn`.

    Raises:
        ValueError: There is no such runtime, or its file declares no format.
    """
    name = runtime.partition(":")[0]
    known = {path.stem: path for path in sorted(RUNTIMES.glob("[a-z]*.py"))}
    if name not in known:
        raise ValueError(f"unknown runtime {runtime!r}; accepted: {', '.join(known)}")
    for node in ast.parse(known[name].read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["NEEDS"]:
            return str(ast.literal_eval(node.value))
    raise ValueError(f"{known[name]} does not say what it NEEDS")


def for_runtime(graph: Path, needs: str, image_px: int, folder: Path) -> Path:
    """Return the file to send so that a graph runs in a runtime.

    Args:
        graph: ONNX file.
        needs: Format of the runtime, `onnx` or `ncnn`.
        image_px: Side of the input, in pixels.
        folder: Folder in which conversions are stored.

    Returns:
        The graph itself, or its conversion.

    Raises:
        UnbuildableError: The graph can't be converted.
        HostError: This machine ran out of memory or disk.
    """
    if needs == "onnx":
        return graph
    if needs == "ncnn":
        return _to_ncnn(graph, image_px, folder)
    raise ValueError(f"unknown format {needs!r}; accepted: onnx, ncnn")


def _to_ncnn(graph: Path, image_px: int, folder: Path) -> Path:
    """Return `<stem>.ncnn.zip` with model.param and model.bin; it is built once, and equal graphs give equal files."""
    out = folder / f"{graph.stem}.ncnn.zip"
    if out.exists():
        return out
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.load(graph)
    if any("QuantizeLinear" in node.op_type or node.op_type.startswith("QLinear") for node in model.graph.node):
        raise UnbuildableError("ncnn does not take int8 graphs with Q/DQ operators: choose fp32 or fp16 for it")
    half = _widen_to_fp32(model)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        onnx.save(model, Path(work) / "model.onnx")
        _run_pnnx(Path(work), image_px, half)
        part = _pack_ncnn(Path(work), image_px)
        part.replace(out)
    return out


def _widen_to_fp32(model: onnx.ModelProto) -> bool:
    """Return True if the graph was fp16, after it was converted to fp32 with the same values.

    ncnn computes in half precision by an option of its own and reads graphs in single precision only.
    """
    half = False
    for tensor in _tensors(model.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            half = True
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                half, attribute.i = True, TensorProto.FLOAT
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return half


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    constants = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*graph.initializer, *constants]


def _run_pnnx(work: Path, image_px: int, half: bool) -> None:
    """Create model.ncnn.param and model.ncnn.bin beside model.onnx; a crash is retried once, as a worker's is.

    Raises:
        UnbuildableError: pnnx can't convert the graph.
        HostError: This machine ran out of memory or disk. Nothing must be recorded for the candidate.
    """
    try:
        _try_pnnx(work, image_px, half)
    except SUSPECTS:
        try:
            _try_pnnx(work, image_px, half)
        except SUSPECTS as error:
            raise hosts_fault("pnnx", error) or UnbuildableError(str(error)) from None


def _try_pnnx(work: Path, image_px: int, half: bool) -> None:
    options = [f"inputshape=[1,3,{image_px},{image_px}]", f"fp16={int(half)}"]
    try:
        done = subprocess.run(
            [_pnnx(), "model.onnx", *options],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PNNX_S_MAX,
        )
    except subprocess.TimeoutExpired:
        raise WorkerTimeoutError(f"pnnx did not finish within {PNNX_S_MAX:g} s") from None
    files = [work / "model.ncnn.param", work / "model.ncnn.bin"]
    if done.returncode or not all(file.exists() for file in files):
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout.decode(errors="replace")).split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "none")
        if is_lack_of_memory(RuntimeError("\n".join(said))):
            raise HostMemoryError(f"pnnx: {last}"[:500])
        if done.returncode < 0:
            raise WorkerCrashedError(f"pnnx {death(done.returncode)}; last output: {last}"[:500], done.returncode)
        raise UnbuildableError(f"pnnx ended with {done.returncode}; last output: {last}"[:500])


def _pnnx() -> str:
    """Return the path of the program in the pnnx package; the package itself would import torch."""
    spec = importlib.util.find_spec("pnnx")
    places = [Path(sys.executable).parent / "pnnx"]
    if spec is not None and spec.origin:
        places = [*sorted(Path(spec.origin).parent.rglob("pnnx")), *places]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("pnnx")
    if found is None:
        raise UnbuildableError("the conversion to ncnn needs pnnx, which is not installed: pip install pnnx")
    return found


def _pack_ncnn(work: Path, image_px: int) -> Path:
    """Return the zip, with the input's size added to the network's text: pnnx omits it, and the device needs it."""
    part = work / "part.zip"
    lines = (work / "model.ncnn.param").read_text("utf-8").splitlines()
    for index, line in enumerate(lines):
        if line.split()[:1] == ["Input"]:
            lines[index] = f"{line} 0={image_px} 1={image_px} 2=3"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as packed:
        for name, data in (
            ("model.param", "\n".join(lines).encode() + b"\n"),
            ("model.bin", (work / "model.ncnn.bin").read_bytes()),
        ):
            packed.writestr(zipfile.ZipInfo(name, FIXED_DATE), data)
    return part
