"""Top-1 of an exported graph, run by the device's own runtime on prepared images."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy

from evaluators.data import Dataset, arrays, normalise
from evaluators.measurement import Accuracy
from remote.session import Job


class Predicts(Protocol):
    """The part of a patient device session that scoring needs."""

    def put(self, data: bytes | Path) -> str: ...

    def predict(self, model: str, data: bytes, shape: tuple[int, ...], job: Job) -> bytes: ...


def score(
    session: Predicts,
    model: Path,
    dataset: Dataset,
    split: str,
    image_px: int,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    job: Job,
    epochs: int,
    cache: Path,
    answers: Path | None = None,
) -> Accuracy:
    """Accuracy of the file `model` on one split, image by image at batch 1. The classes it gave go to `answers` (.npy).

    Raises what the session raises: CandidateError, DeviceError.
    """
    images, labels = arrays(dataset, split, image_px, cache)
    batch = normalise(images, *normalisation)  # (N, 3, image_px, image_px)
    sha256 = session.put(model)
    logits = session.predict(sha256, batch.tobytes(), batch.shape, job)
    predicted = numpy.frombuffer(logits, dtype=numpy.float32).reshape(len(labels), -1).argmax(axis=1)
    correct = int((predicted == labels).sum())
    if answers is not None:
        part = answers.with_suffix(".part.npy")
        numpy.save(part, predicted)
        part.replace(answers)
    return Accuracy(correct / len(labels), correct, len(labels), epochs, split, sha256)
