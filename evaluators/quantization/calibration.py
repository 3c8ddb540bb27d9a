"""Determine the range of every activation of a graph from calibration images: by min-max, entropy or percentile."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from evaluators.export.onnx_export import INPUT
from evaluators.quantization.host_scoring import open_session
from evaluators.quantization.qdq import Ranges, activations
from evaluators.training.jobs import CALIBRATIONS

BINS = 2048
LEVELS = 128  # levels of |x| in int8; twice as many where an unsigned type has values of one sign only


@dataclass(frozen=True)
class Histogram:
    """Hold a histogram of one tensor's values over all calibration images.

    Attributes:
        low: Smallest value, at most 0.
        high: Largest value, at least 0.
        counts: Counts of |x| between 0 and the larger of -low and high, int64 (BINS,).
    """

    low: float
    high: float
    counts: np.ndarray

    @property
    def top(self) -> float:
        """Return the largest absolute value."""
        return max(-self.low, self.high)


def histograms(plain: ModelProto, images: np.ndarray) -> dict[str, Histogram]:
    """Compute the histogram of every activation that may be quantized.

    Two passes avoid storing the activations of any image: the first finds the extremes, the second counts.

    Args:
        plain: Prepared float32 ModelProto.
        images: Normalised calibration images, float32 (N, 3, H, W).

    Returns:
        Histograms by tensor.
    """
    whole = extremes(plain, images)
    names = tuple(whole)
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in names}
    for name, value in _values(plain, names, images):
        top = max(-whole[name][0], whole[name][1])
        if top > 0:
            bins = np.minimum((np.abs(value) * np.float32(BINS / top)).astype(np.int64), BINS - 1)
            counts[name] += np.bincount(bins.ravel(), minlength=BINS)
    return {name: Histogram(*whole[name], counts[name]) for name in names}


def extremes(plain: ModelProto, images: np.ndarray) -> Ranges:
    """Return the range of every activation by min-max, extended to contain 0.

    Args:
        plain: Prepared float32 ModelProto.
        images: Normalised calibration images, float32 (N, 3, H, W).
    """
    names = activations(plain)
    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name, value in _values(plain, names, images):
        low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))
    return {name: (low[name], high[name]) for name in names}


def ranges(found: dict[str, Histogram], method: str, symmetric: bool) -> Ranges:
    """Return the range of every tensor by a calibration method.

    Args:
        found: Histograms by tensor.
        method: One of CALIBRATIONS.
        symmetric: Whether the device quantizes symmetrically around 0.
    """
    kind, _, share = method.partition(" ")
    cut = {}
    for name, histogram in found.items():
        if kind == "min-max":
            top = histogram.top
        elif kind == "percentile":
            top = _percentile(histogram, float(share) / 100)
        elif kind == "entropy":
            one_sign = not symmetric and (histogram.low >= 0 or histogram.high <= 0)
            top = _least_divergent(histogram, 2 * LEVELS if one_sign else LEVELS)
        else:
            raise ValueError(f"unknown calibration method {method!r}; accepted: {', '.join(CALIBRATIONS)}")
        cut[name] = (max(histogram.low, -top), min(histogram.high, top))
    return cut


def _open(plain: ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    model = copy.deepcopy(plain)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.input)}
    shown = {value.name for value in model.graph.output}
    ends = {value.name for value in model.graph.input}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, known[name].type.tensor_type.elem_type, None)
        for name in names
        if name not in shown and name not in ends
    )
    return open_session(model)


def _values(plain: ModelProto, names: Sequence[str], images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, value) of every tensor, image by image."""
    session = _open(plain, names)
    computed = [name for name in names if name != INPUT]
    for image in images:
        fed = np.ascontiguousarray(image[None], dtype=np.float32)
        if INPUT in names:
            yield INPUT, fed
        yield from zip(computed, session.run(computed, {INPUT: fed}), strict=True)


def _percentile(histogram: Histogram, share: float) -> float:
    total = histogram.counts.sum()
    if not total:
        return histogram.top
    bin_ = int(np.searchsorted(np.cumsum(histogram.counts), share * total))
    return (min(bin_, BINS - 1) + 1) / BINS * histogram.top


def _least_divergent(histogram: Histogram, levels: int) -> float:
    """Return the cut of |x| with which the quantized distribution differs least from the original one (Migacz 2017)."""
    counts = histogram.counts.astype(float)
    if not counts[1:].any():
        return histogram.top
    counts[0] = counts[1]  # a ReLU's zeros are exact at every scale and would dominate the choice
    best, where = np.inf, BINS
    for stop in range(levels, BINS + 1, 16):
        inside = counts[:stop]
        whole = inside.copy()
        whole[-1] += counts[stop:].sum()
        level = np.arange(stop) * levels // stop
        used = inside > 0
        sums = np.bincount(level, inside, levels)
        sizes = np.bincount(level, used, levels)
        coarse = np.where(used, (sums / np.maximum(sizes, 1))[level], 0.0)
        divergence = _divergence(whole, coarse)
        if divergence < best:
            best, where = divergence, stop
    return where / BINS * histogram.top


def _divergence(whole: np.ndarray, coarse: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence of counts; bins that only `whole` has count as very unlikely."""
    if not coarse.any():
        return np.inf
    p, q = whole / whole.sum(), coarse / coarse.sum()
    at = p > 0
    return float(np.sum(p[at] * np.log(p[at] / np.maximum(q[at], 1e-12))))
