"""Predict classes with ONNX Runtime on the host, for comparison with the device; runs in a worker process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from evaluators.data.dataset import Dataset, SplitName
from evaluators.data.loading import arrays
from evaluators.data.preprocessing import normalise

HOST = f"onnxruntime {onnxruntime.__version__}"


def host_classes(
    graph: Path,
    dataset: Dataset,
    split: SplitName,
    image_px: int,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    cache: Path,
) -> tuple[np.ndarray, str]:
    """Predict the classes of a split's images with ONNX Runtime's CPU provider, image by image.

    Args:
        graph: ONNX file.
        dataset: Data set with the candidate's resizing.
        split: `validation` or `test`.
        image_px: Side of the input, in pixels.
        normalisation: Mean and standard deviation by channel of pixels / 255.
        cache: Folder of decoded images.

    Returns:
        (most probable classes, int64 (N,); name and version of the host's runtime).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images, _ = arrays(dataset, split, image_px, cache)
    classes = [
        session.run(None, {name: normalise(images[i : i + 1], *normalisation)})[0].argmax() for i in range(len(images))
    ]
    return np.array(classes, dtype=np.int64), HOST
