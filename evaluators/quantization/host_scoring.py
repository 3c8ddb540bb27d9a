"""Score a graph on this machine independently of how its processor computes int8.

Q/DQ operators are computed as they are defined, in float32: a host without VNNI would saturate on full-range weights
that the target device multiplies exactly, and the ladder must judge the graph, not the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto

from evaluators.export.onnx_export import INPUT, quiet


@dataclass(frozen=True)
class EvaluationSet:
    """Hold the images on which graphs are compared.

    Attributes:
        images: Normalised images, float32 (N, 3, H, W).
        labels: True classes, integers (N,).
    """

    images: np.ndarray
    labels: np.ndarray

    def grade(self, out: np.ndarray) -> np.ndarray:
        """Return whether the greatest of each image's logits is the label's, bool (N,).

        Args:
            out: Logits (N, classes); an image with a NaN or infinite logit counts as wrong.
        """
        right: np.ndarray = (out.argmax(axis=1) == self.labels) & np.isfinite(out).all(axis=1)
        return right


def logits(model: ModelProto, images: np.ndarray) -> np.ndarray:
    """Compute logits with ONNX Runtime, image by image.

    Args:
        model: ModelProto.
        images: Normalised images, float32 (N, 3, H, W).

    Returns:
        Logits, (N, classes).
    """
    session = open_session(model)
    return np.concatenate([session.run(None, {INPUT: image[None].astype(np.float32)})[0] for image in images])


def open_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """Open a session in which Q/DQ operators are computed as written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # threads that wait by spinning block each other as soon as another process needs a core
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with quiet():
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def decibels(whole: np.ndarray, quantized: np.ndarray) -> float:
    """Return the signal-to-noise ratio of quantized logits in dB; -inf where any of them is not finite.

    Args:
        whole: Logits of the fp32 graph.
        quantized: Logits of the quantized graph, of the same shape.
    """
    noise = float(((whole - quantized) ** 2).sum())
    if not np.isfinite(noise):
        return -np.inf
    return float(10 * np.log10(max(float((whole**2).sum()), 1e-30) / max(noise, 1e-30)))
