"""Evaluate teachers and store the logits of an ONNX teacher for distillation; runs in a worker process."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from evaluators.data.dataset import TRAIN, VALIDATION, DataError
from evaluators.data.loading import arrays
from evaluators.data.preprocessing import normalise
from evaluators.training.batches import apply_view, device, logits
from evaluators.training.jobs import ParentJob, TeacherJob
from remote.files import write_file
from spaces import network
from spaces.network import family_module, family_names


def family_of(variant: str, own: Sequence[str] = ()) -> str | None:
    """Return the family that has a network of this name; None if no family has.

    Args:
        variant: Name of the network.
        own: The user's own families, which are searched first.
    """
    return next((family for family in (*own, *family_names()) if variant in family_module(family).VARIANTS), None)


def parent_top1(job: ParentJob) -> float:
    """Return the validation accuracy of a trained parent, computed by torch.

    It is separate from the training, which uses the train split only.
    """
    net = network.build(job.family, job.variant, len(job.dataset.classes), job.image_px)
    net.load_state_dict(torch.load(job.out, weights_only=True)["state"])
    images, labels = arrays(job.dataset, VALIDATION, job.image_px, job.cache)
    found = logits(net.to(device()), images, network.normalisation(job.family, job.variant)).argmax(1).numpy()
    return float((found == labels).mean())


def teach(job: TeacherJob) -> float:
    """Store the classifier's logits of every training image, in every view, in `job.out`.

    They have the same form as in a parent's file, (N, views, classes).

    Args:
        job: Request.

    Returns:
        Validation accuracy of the classifier, 0..1.

    Raises:
        DataError: The file is not a classifier of these classes.
    """
    session = _session(job.file)
    images, _ = arrays(job.dataset, TRAIN, job.image_px, job.cache)
    taught = np.stack([_logits(session, apply_view(images, view), job) for view in job.views], axis=1)
    seen, labels = arrays(job.dataset, VALIDATION, job.image_px, job.cache)
    top1 = float((_logits(session, seen, job).argmax(axis=1) == labels).mean())
    packed = io.BytesIO()  # torch's own writer hides errors of the disk
    torch.save({"logits": torch.from_numpy(taught), "top1": top1}, packed)
    write_file(job.out, packed.getvalue())
    return top1


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise DataError(f"teacher {file.name} can't be loaded: {' '.join(str(error).split())[:200]}") from None


def _logits(session: onnxruntime.InferenceSession, images: np.ndarray, job: TeacherJob) -> np.ndarray:
    """Return logits, float32 (N, classes). Probabilities become their logarithms, which soften as the logits would."""
    wanted = session.get_inputs()[0]
    step = wanted.shape[0] if isinstance(wanted.shape[0], int) else 64
    dtype = np.float16 if "float16" in wanted.type else np.float32
    parts = []
    for start in range(0, len(images), step):
        batch = normalise(images[start : start + step], job.mean, job.std).astype(dtype)
        missing = step - len(batch) if isinstance(wanted.shape[0], int) else 0
        filled = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), dtype)])
        try:
            out = session.run(None, {wanted.name: filled})[0]
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"teacher {job.file.name} can't be run at {job.image_px} px: {reason}") from None
        parts.append(np.asarray(out, np.float32).reshape(step if missing else len(batch), -1)[: len(batch)])
    found = np.concatenate(parts)
    classes = len(job.dataset.classes)
    if found.shape[1] != classes:
        raise DataError(f"teacher {job.file.name} distinguishes {found.shape[1]} classes, the data have {classes}")
    probabilities = found.min() >= 0 and np.allclose(found.sum(axis=1), 1.0, atol=1e-2)
    return np.log(np.maximum(found, 1e-7)) if probabilities else found
