"""How well a graph does on this machine, whatever its processor would make of int8.

Q/DQ operators are computed as they are defined, in float32: a host without VNNI would saturate on full-range weights
that its target multiplies exactly, and the ladder is to judge the graph, not the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from evaluators.export.onnx_export import INPUT, quiet


@dataclass(frozen=True)
class EvaluationSet:
    """Images that graphs are compared on: normalised float32 (N, 3, H, W), and labels (N,)."""

    images: np.ndarray
    labels: np.ndarray

    def grade(self, out: np.ndarray) -> np.ndarray:
        """bool (N,): whether the greatest of the logits (N, classes) is the label's; not a number counts as wrong."""
        right: np.ndarray = (out.argmax(axis=1) == self.labels) & np.isfinite(out).all(axis=1)
        return right


def logits(model: Any, images: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) -> (N, classes) by ONNX Runtime, image by image."""
    session = open_session(model)
    return np.concatenate([session.run(None, {INPUT: image[None].astype(np.float32)})[0] for image in images])


def open_session(model: Any) -> onnxruntime.InferenceSession:
    """A session in which Q/DQ operators are computed as written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # threads that wait by spinning stand in each other's way as soon as anything else wants a core
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with quiet():
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def decibels(whole: np.ndarray, quantized: np.ndarray) -> float:
    """Signal to quantization noise of logits; -inf where any is not a number."""
    noise = float(((whole - quantized) ** 2).sum())
    if not np.isfinite(noise):
        return -np.inf
    return float(10 * np.log10(max(float((whole**2).sum()), 1e-30) / max(noise, 1e-30)))
