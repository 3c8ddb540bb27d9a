"""Score an exported graph with the device's own runtime on prepared images."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy

from evaluators.class_scores import Error
from evaluators.data.dataset import Dataset, SplitName
from evaluators.data.loading import arrays
from evaluators.data.preprocessing import normalise
from evaluators.measurement import TOP1, Accuracy
from remote.link.session import Job

PART_BYTES = 128 << 20  # bytes of normalised images in one request: neither host nor device holds a whole split
FLOAT_BYTES = 4


class PredictsOnDevice(Protocol):
    """Describe the methods of a retrying device session that scoring needs."""

    def put(self, data: bytes | Path) -> str:
        """Send a file to the device and return its SHA-256."""
        ...

    def predict(self, model: str, data: bytes, shape: tuple[int, ...], job: Job) -> bytes:
        """Return the logits, float32 (N, classes), of images, float32 of `shape`."""
        ...


def score(
    session: PredictsOnDevice,
    model: Path,
    dataset: Dataset,
    split: SplitName,
    image_px: int,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    job: Job,
    epochs: int,
    cache: Path,
    answers: Path | None = None,
    metric: str = TOP1,
) -> Accuracy:
    """Return the accuracy of a graph on one split, image by image at batch 1, with its errors by class.

    Args:
        session: Connected device.
        model: File in the format of the runtime.
        dataset: Data set with the candidate's resizing.
        split: `validation` or `test`.
        image_px: Side of the input, in pixels.
        normalisation: Mean and standard deviation by channel of pixels / 255.
        job: Runtime, threads and precision.
        epochs: Fidelity to record, in fine-tuning epochs.
        cache: Folder of decoded images.
        answers: File (.npy) for the predicted classes; None stores none.
        metric: Metric that the search compares, one of METRICS.

    Raises:
        CandidateError: The graph can't be run.
        DeviceError: The device or the link failed.
    """
    images, labels = arrays(dataset, split, image_px, cache)
    sha256 = session.put(model)
    count = max(1, PART_BYTES // (FLOAT_BYTES * images[0].size))
    parts = []
    for start in range(0, len(labels), count):
        batch = normalise(images[start : start + count], *normalisation)  # (n, 3, image_px, image_px)
        logits = numpy.frombuffer(session.predict(sha256, batch.tobytes(), batch.shape, job), dtype=numpy.float32)
        parts.append(logits.reshape(len(batch), -1).argmax(axis=1))
    predicted = numpy.concatenate(parts)
    correct = int((predicted == labels).sum())
    if answers is not None:
        part = answers.with_suffix(".part.npy")
        numpy.save(part, predicted)
        part.replace(answers)
    counts, errors = count_errors(labels, predicted, len(dataset.classes))
    return Accuracy(
        top1=correct / len(labels),
        correct=correct,
        count=len(labels),
        epochs=epochs,
        split=split,
        model_sha256=sha256,
        class_counts=counts,
        errors=tuple(errors),
        metric=metric,
    )


def count_errors(labels: numpy.ndarray, predicted: numpy.ndarray, classes: int) -> tuple[tuple[int, ...], list[Error]]:
    """Count the images and the errors of each class.

    Args:
        labels: True class of each image, 0 to `classes` - 1, integers (N,).
        predicted: Predicted class of each image, integers (N,); may exceed `classes` - 1 where a network has more
            outputs.
        classes: Number of classes of the data set.

    Returns:
        (images by class, errors).
    """
    wrong = numpy.stack([labels, predicted])[:, labels != predicted]  # (2, errors)
    pairs, counts = numpy.unique(wrong, axis=1, return_counts=True)
    errors = [(int(label), int(taken), int(count)) for label, taken, count in zip(*pairs, counts, strict=True)]
    return tuple(int(count) for count in numpy.bincount(labels, minlength=classes)), errors
