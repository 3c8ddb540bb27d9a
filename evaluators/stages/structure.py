"""Build, export and check a candidate: the first and cheapest stage, which also measures its size.

It needs neither training nor a device. Weights are random, as latency does not depend on them. It runs in a worker
process.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from evaluators.export.onnx_export import INPUT, export, opset_of, quiet
from evaluators.export.operator_support import UnsupportedOperatorError, check
from evaluators.fixed_models import parity as given_parity
from evaluators.fixed_models import size_of, write_plain
from evaluators.measurement import Structure
from evaluators.quantization.precision import to_precision
from evaluators.rounding_evaluator import AXIS
from evaluators.training.onnx_teacher import OnnxClassifier
from remote.device import Int8Recipe
from remote.errors import FailureKind
from spaces.candidate import Candidate, UnbuildableError
from spaces.channel_rounding import granularity
from spaces.folding import fold_for_export
from spaces.network import NetworkPlan, build_from_plan, count_macs, head_name

# Largest difference of a logit between torch and the exported fp32 graph: PARITY_MAX_ABS, or, if that is larger,
# ROUNDING_FACTOR times the error of torch's own logits from float32 rounding, up to ROUNDING_MAX_ABS.
PARITY_MAX_ABS = 1e-4
ROUNDING_FACTOR = 10
ROUNDING_MAX_ABS = 1e-2
NORM_GAIN = 0.3
OPSET = 13
CALIBRATION_IMAGES = 4  # random images: a timing needs nothing but their range
SETTLING_PIXELS = 2**15  # of noise for batch statistics: 32 images of 32 px, 8 of 64 px, at least 4


class ParityError(UnbuildableError):
    """Raised when an exported graph does not compute the same as torch."""

    kind = FailureKind.PARITY


def measure(
    candidate: Candidate,
    classes: int,
    int8: Int8Recipe | None,
    folder: Path,
    opset_max: int,
    seed: int,
    runtimes: tuple[str, ...] = (),
) -> tuple[Structure, Path]:
    """Measure the structure of a candidate and export the graph to time.

    Args:
        candidate: Candidate to build with random weights.
        classes: Number of classes of the data set.
        int8: Int8 recipe of the device, if it has int8.
        folder: Folder of graphs.
        opset_max: Newest opset that the device reads.
        seed: Seed of weights and calibration images.
        runtimes: Runtimes in which the graph must load.

    Returns:
        The structure, and the graph's path `folder/<graph key>-random.onnx`.

    Raises:
        UnbuildableError: The candidate can't be evaluated further; one line with a `kind`. It is an
            UnsupportedOperatorError or a ParityError where one of these is the reason.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = random_net(candidate, classes)
    path, image_px = folder / f"{candidate.graph_key()}-random.onnx", candidate.image_px
    as_deployed, unfolded = fold_for_export(net, image_px, bool(candidate.steps))
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = Path(scratch) / "fp32.onnx"
        exporter = _export(as_deployed, candidate, fp32, min(OPSET, opset_max))
        opset = opset_of(fp32)
        if opset > opset_max:
            raise UnsupportedOperatorError(
                f"{candidate.describe()}: needs ONNX opset {opset}, the device reads up to {opset_max}"
            )
        difference = _check_parity(as_deployed, fp32, candidate, seed)
        _convert(candidate, fp32, path, int8, seed)
        check(path, opset_max, runtimes, candidate.describe())
    structure = Structure(
        parameters=sum(parameter.numel() for parameter in as_deployed.parameters()),
        macs=count_macs(as_deployed, torch.zeros(1, 3, image_px, image_px)),
        onnx_bytes=path.stat().st_size,
        parity_max_abs=difference,
        exporter=exporter,
        opset=opset_of(path),
        granularity=granularity(net),
        rounded_to=dict(candidate.options).get(AXIS, ""),
        unfolded=unfolded,
    )
    return structure, path


def measure_given(
    candidate: Candidate,
    given: OnnxClassifier,
    int8: Int8Recipe | None,
    folder: Path,
    opset_max: int,
    seed: int,
    runtimes: tuple[str, ...] = (),
) -> tuple[Structure, Path]:
    """Measure the structure of the user's classifier and export the graph to time.

    Args:
        candidate: Candidate that stands for the classifier.
        given: The user's classifier.
        int8: Int8 recipe of the device, if it has int8.
        folder: Folder of graphs.
        opset_max: Newest opset that the device reads.
        seed: Seed of calibration images.
        runtimes: Runtimes in which the graph must load.

    Returns:
        The structure, and the graph's path `folder/<graph key>-random.onnx`.

    Raises:
        UnbuildableError: As `measure` does.
        DataError: The classifier's file has changed.
    """
    path = folder / f"{candidate.graph_key()}-random.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = Path(scratch) / "fp32.onnx"
        write_plain(given, fp32, opset_max)
        difference = given_parity(given, fp32)
        parameters, macs = size_of(fp32)
        _convert(candidate, fp32, path, int8, seed)
        check(path, opset_max, runtimes, candidate.describe())
    return Structure(
        parameters=parameters,
        macs=macs,
        onnx_bytes=path.stat().st_size,
        parity_max_abs=difference,
        exporter="given",
        opset=opset_of(path),
    ), path


def random_net(candidate: Candidate, classes: int) -> nn.Module:
    """Build the candidate's compressed network, untrained, in eval mode.

    Batch statistics are set from a batch of noise, and the classifier is scaled to give logits of unit spread. With the
    initial statistics, activations grow with depth beyond what fp16 holds, or shrink to denormals, which are slow:
    either would make the timing of random weights invalid. Gains below 1 keep gates and swishes where they are smooth,
    as a random network is chaotic: it amplifies rounding errors a thousandfold on the way to the logits.

    Args:
        candidate: Candidate to build.
        classes: Number of classes of the data set.

    Raises:
        UnbuildableError: The network can't be built or run.
    """
    px = candidate.image_px
    plan = NetworkPlan(
        family=candidate.family,
        variant=candidate.variant,
        classes=classes,
        image_px=px,
        steps=candidate.steps,
        options=candidate.options,
    )
    net = build_from_plan(plan).eval()
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.train().momentum = 1.0  # use the batch's own statistics only, not the initial ones
        nn.init.constant_(layer.weight, NORM_GAIN)
    try:
        with torch.no_grad():
            logits = net(torch.randn(max(4, SETTLING_PIXELS // px**2), 3, px, px))
            for parameter in net.get_submodule(head_name(net)).parameters():
                parameter.div_(logits.std().clamp(min=1e-6))
    except (RuntimeError, ValueError) as error:
        raise UnbuildableError(f"{candidate.describe()}: {str(error).splitlines()[0][:200]}") from error
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return net.eval()


def parity(net: nn.Module, onnx_path: Path, image_px: int, seed: int = 0) -> float:
    """Return the largest difference of a logit between a network and its graph, for one image of noise.

    Args:
        net: Network in eval mode.
        onnx_path: Exported graph.
        image_px: Side of the input, in pixels.
        seed: Seed of the noise.
    """
    image = _noise(1, image_px, seed)
    with torch.no_grad():
        expected = net(torch.from_numpy(image)).numpy()
    return float(np.abs(run(onnx_path, image) - expected).max())


def rounding(net: nn.Module, image_px: int, seed: int = 0) -> float:
    """Return the largest difference of a logit between `net` and itself in double precision, for the image of `parity`.

    Over a hundred random layers it exceeds 1e-4, and no other float32 program can be closer than that.

    Args:
        net: Network in eval mode.
        image_px: Side of the input, in pixels.
        seed: Seed of the noise.
    """
    image = torch.from_numpy(_noise(1, image_px, seed))
    with torch.no_grad():
        return float((net(image) - copy.deepcopy(net).double()(image.double())).abs().max())


def run(onnx_path: Path, image: np.ndarray) -> np.ndarray:
    """Run a graph with ONNX Runtime on this machine, with its default optimizations.

    Args:
        onnx_path: Graph.
        image: Input, float32 (1, 3, H, W).

    Returns:
        Logits, (1, classes).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT: image})[0]


def _export(net: nn.Module, candidate: Candidate, path: Path, opset: int) -> str:
    try:
        return export(net, candidate.image_px, path, opset)
    except Exception as error:  # exporters raise arbitrary errors for operators that they lack
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedOperatorError(
            f"{candidate.describe()}: can't be exported at opset {opset}: {reason}"
        ) from error


def _check_parity(net: nn.Module, path: Path, candidate: Candidate, seed: int) -> float:
    difference, allowed = parity(net, path, candidate.image_px, seed), PARITY_MAX_ABS
    if not difference <= allowed:
        allowed = min(ROUNDING_MAX_ABS, ROUNDING_FACTOR * rounding(net, candidate.image_px, seed))
    if not difference <= allowed:
        raise ParityError(f"{candidate.describe()}: the exported graph is off by {difference:.2g} in a logit")
    return difference


def _convert(candidate: Candidate, fp32: Path, path: Path, int8: Int8Recipe | None, seed: int) -> None:
    if candidate.precision == "int8" and int8 is None:
        raise UnsupportedOperatorError(f"{candidate.describe()}: the device has no int8")
    if candidate.precision == "int8" and opset_of(fp32) < OPSET:
        raise UnsupportedOperatorError(f"{candidate.describe()}: int8 per channel needs ONNX opset {OPSET}")
    noise = _noise(CALIBRATION_IMAGES, candidate.image_px, seed)
    with quiet():
        to_precision(fp32, path, candidate.precision, int8, noise)


def _noise(count: int, image_px: int, seed: int) -> np.ndarray:
    shape = (count, 3, image_px, image_px)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
