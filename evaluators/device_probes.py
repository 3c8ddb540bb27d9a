"""Run small typed models on a device to find the precisions that its runtimes really compute in.

The features of a processor are not what a runtime uses: ONNX Runtime accepts an fp16 graph on any x86-64 CPU and
computes it in fp32, even on CPUs with fp16 arithmetic. A precision is therefore offered where layers of a probe ran
in it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.layer_precision import summarise
from remote.device import Facts, Int8Recipe, capabilities
from remote.errors import CandidateError
from remote.files import home_folder, read_or_none, write_file
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job
from remote.link.transport import texts
from spaces.candidate import UnbuildableError

# The convolutions are large enough for a builder that takes the fastest kernel of any precision to take the low one.
IMAGE_PX = 32
WIDTHS = (3, 64, 64, 64)
VERSION = 1  # of the models: stored results of other versions are measured again
PROFILE_S = 0.2
LIMIT = 6.0  # range of activations after a ReLU, and of inputs on both sides, in standard deviations
CLEAR = ("unsupported", "unbuildable")  # kinds of errors that a retry can't change


@dataclass(frozen=True)
class ProbeResult:
    """Describe the precisions that a runtime of a device was observed to run.

    Attributes:
        why_not: One-line reason for each precision that must not be offered.
        basis: One line for each precision that says how it is known whether it runs.
    """

    why_not: dict[str, str]
    basis: dict[str, str]


class DeviceProbes:
    """Probe each runtime of a device once; results are stored by the device's fingerprint."""

    def __init__(self, session: RetryingSession, facts: Facts, folder: Path | None, workspace_mb: int = 256) -> None:
        """Set the device and the folder of results.

        Args:
            session: Connected device.
            facts: Properties that the device reports.
            folder: Folder of stored results; None probes anew every time.
            workspace_mb: Memory for engine builders, in MB.
        """
        self._session, self._facts, self._folder, self._workspace_mb = session, facts, folder, workspace_mb

    def __call__(self, runtime: str, precisions: Sequence[str]) -> ProbeResult:
        """Return the results for those precisions that the device's facts do not exclude.

        Args:
            runtime: Runtime to probe.
            precisions: Requested precisions.

        Raises:
            DeviceError: The device failed, not the probe.
        """
        able = capabilities(self._facts, [runtime])
        why_not: dict[str, str] = {}
        basis: dict[str, str] = {}
        for precision in precisions:
            if precision == "fp32" or precision not in able.precisions:
                continue
            refused, known_by = self._read_or_ask(runtime, precision, able.int8)
            basis[precision] = known_by
            if refused:
                why_not[precision] = refused
        return ProbeResult(why_not, basis)

    def _read_or_ask(self, runtime: str, precision: str, recipe: Int8Recipe | None) -> tuple[str, str]:
        """Return (reason why the precision must not be offered or "", how that is known)."""
        if why := untold(self._facts, runtime):
            return "", f"from the processor's features: {why}"
        file = None
        if self._folder is not None:
            name = f"{runtime.replace(':', '-')}-{precision}-{VERSION}.json"
            file = self._folder / self._facts.fingerprint() / name
            known = read_or_none(file, _answer)
            if isinstance(known, tuple):
                return known
        refused, known_by, is_clear = self._ask(runtime, precision, recipe)
        if file is not None and is_clear:
            with contextlib.suppress(OSError):  # the next run probes again
                write_file(file, json.dumps({"why_not": refused, "basis": known_by}))
        return refused, known_by

    def _ask(self, runtime: str, precision: str, recipe: Int8Recipe | None) -> tuple[str, str, bool]:
        """Return the same two lines, and whether a retry would give them again."""
        named = f"{runtime} {self._facts.runtimes.get(runtime, '')}".strip()
        job = Job(runtime=runtime, precision=precision, workspace_mb=self._workspace_mb)
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "probe.onnx"
                path.write_bytes(probe_model(precision, recipe))
                sent = self._session.put(for_runtime(path, needs(runtime), IMAGE_PX, Path(folder)).read_bytes())
                layers, why = self._session.layers(sent, job, PROFILE_S)
        except (CandidateError, UnbuildableError) as error:
            reason = f"{named} does not run a probe in it: {error}"
            return reason, reason, getattr(error, "kind", "unbuildable") in CLEAR
        seen = summarise(precision, layers, why)
        if not seen.known:
            return "", f"from the processor's features: {seen.untold}", True
        said = f"{named} runs {seen.asked} of {seen.count} layers of a probe in it"
        return ("" if 2 * seen.asked > seen.count else said), said, True


def default_folder() -> Path | None:
    """Return the default folder of stored results, which a search uses unless another cache is set.

    Returns:
        The folder; None if the user has no home folder.
    """
    home = home_folder()
    return home / ".cache" / "edgefront" / "probes" if home else None


def untold(facts: Facts, runtime: str) -> str:
    """Return the reason why a runtime's layers can't be observed; empty if they can.

    Args:
        facts: Properties that the device reports.
        runtime: Runtime, which may have an option, as in `onnxruntime:cuda`.
    """
    if facts.simulated:
        return "a simulated board runs no layers"
    text = texts().get(f"runtimes/{runtime.partition(':')[0]}", "")
    return "" if "\ndef layers(" in text else f"{runtime} does not report its layers"


def _answer(text: str) -> tuple[str, str]:
    found = json.loads(text)
    return str(found["why_not"]), str(found["basis"])


@lru_cache
def probe_model(precision: str, recipe: Int8Recipe | None = None) -> bytes:
    """Build a model of three 3x3 convolutions, 80 M MACs, at opset 13, always with the same bytes.

    Args:
        precision: fp32; fp16, which is typed, with casts at both ends; or int8, with Q/DQ around each convolution.
        recipe: Int8 recipe of the device.

    Returns:
        The serialized ONNX model: image float32 (1, 3, 32, 32) -> logits float32 (1, 64).
    """
    build = _GraphBuilder(precision, recipe)
    name = build.enter("image")
    for index, kernel in enumerate(_kernels()):
        name = build.convolve(name, index, kernel)
    build.node("GlobalAveragePool", [name], "pooled")
    build.node("Flatten", ["pooled"], "flat", axis=1)
    if precision == "fp16":
        build.node("Cast", ["flat"], "logits", to=TensorProto.FLOAT)
    else:
        build.node("Identity", ["flat"], "logits")
    return build.model()


def image() -> NDArray[numpy.float32]:
    """Return the input for which device and host are compared, float32 (1, 3, 32, 32)."""
    return numpy.random.default_rng(1).standard_normal((1, 3, IMAGE_PX, IMAGE_PX)).astype(numpy.float32)


def _kernels() -> list[NDArray[numpy.float32]]:
    rng = numpy.random.default_rng(0)
    shapes = [(outputs, inputs, 3, 3) for inputs, outputs in itertools.pairwise(WIDTHS)]
    return [(rng.standard_normal(s) * (2 / (9 * s[1])) ** 0.5).astype(numpy.float32) for s in shapes]


class _GraphBuilder:
    """Build a graph node by node."""

    def __init__(self, precision: str, recipe: Int8Recipe | None) -> None:
        self._precision, self._recipe = precision, recipe or Int8Recipe("uint8", symmetric=False, weight_bits=8)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: NDArray[numpy.generic]) -> str:
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def enter(self, name: str) -> str:
        if self._precision == "fp16":
            return self.node("Cast", [name], "halved", to=TensorProto.FLOAT16)
        return self.add_requantize(name, both_sides=True)

    def convolve(self, name: str, index: int, kernel: NDArray[numpy.float32]) -> str:
        if self._precision == "int8":
            weight = self.add_quantized_kernel(index, kernel)
        else:
            dtype = numpy.float16 if self._precision == "fp16" else numpy.float32
            weight = self.constant(f"w{index}", kernel.astype(dtype))
        self.node("Conv", [name, weight], f"c{index}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.add_requantize(self.node("Relu", [f"c{index}"], f"r{index}"), both_sides=False)

    def add_quantized_kernel(self, index: int, kernel: NDArray[numpy.float32]) -> str:
        most = 2 ** (self._recipe.weight_bits - 1) - 1
        scales = (numpy.abs(kernel).max(axis=(1, 2, 3)) / most).astype(numpy.float32)
        whole = numpy.clip(numpy.round(kernel / scales[:, None, None, None]), -most, most).astype(numpy.int8)
        inputs = [
            self.constant(f"w{index}", whole),
            self.constant(f"ws{index}", scales),
            self.constant(f"wz{index}", numpy.zeros(len(scales), dtype=numpy.int8)),
        ]
        return self.node("DequantizeLinear", inputs, f"wd{index}", axis=0)

    def add_requantize(self, name: str, both_sides: bool) -> str:
        """Return the name of the tensor behind a pair of Q and DQ if the model is int8, else the tensor's own name."""
        if self._precision != "int8":
            return name
        is_signed = self._recipe.activation == "int8"
        if self._recipe.symmetric or is_signed:
            scale, zero = LIMIT / 127, 0 if is_signed else 128
        else:
            scale, zero = (LIMIT / 127, 128) if both_sides else (LIMIT / 255, 0)
        dtype = numpy.int8 if is_signed else numpy.uint8
        pair = [
            self.constant(f"{name}s", numpy.array(scale, dtype=numpy.float32)),
            self.constant(f"{name}z", numpy.array(zero, dtype=dtype)),
        ]
        self.node("QuantizeLinear", [name, *pair], f"{name}q")
        return self.node("DequantizeLinear", [f"{name}q", *pair], f"{name}d")

    def model(self) -> bytes:
        shapes = [("image", [1, 3, IMAGE_PX, IMAGE_PX]), ("logits", [1, WIDTHS[-1]])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
        graph = helper.make_graph(self._nodes, "probe", ends[:1], ends[1:], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="edgefront")
        model.ir_version = 7
        onnx.checker.check_model(model)
        return model.SerializeToString(deterministic=True)
