"""Export a trained network to the graph that is scored and timed; runs in a worker process, which has torch."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from evaluators.data.dataset import TRAIN, VALIDATION, SplitName
from evaluators.data.loading import arrays, calibration_images
from evaluators.data.preprocessing import normalise
from evaluators.export.onnx_export import export, save
from evaluators.export.operator_support import check
from evaluators.fixed_models import write_plain
from evaluators.measurement import LadderStep
from evaluators.quantization.host_scoring import EvaluationSet
from evaluators.quantization.ladder import climb
from evaluators.quantization.precision import layout, to_precision
from evaluators.quantization.qat import tune
from evaluators.quantization.qdq import QuantizationPlan, prepare
from evaluators.training.batches import BatchSource
from evaluators.training.jobs import ExportedGraph, GraphJob, beside
from evaluators.training.trainer import Deadline, load_net
from remote.files import replace_file, write_file
from spaces import network
from spaces.folding import fold_for_export


def make_graph(job: GraphJob) -> ExportedGraph:
    """Export a network at the candidate's precision, and describe in a JSON file beside it how it was made.

    Args:
        job: Request.

    Raises:
        UnsupportedOperatorError: The graph is beyond the device's operator support. Export and conversion raise further
            errors of their own.
    """
    unfolded = ""
    if not job.plain.exists():
        with replace_file(job.plain) as part:
            px = job.candidate.image_px
            if job.given is not None:
                write_plain(job.given, part, job.opset)
            else:
                net, unfolded = fold_for_export(load_net(job.net), px, bool(job.candidate.steps))
                export(net, px, part, job.opset)
    with replace_file(job.out) as part:
        return _make(job, part, unfolded)


def _make(job: GraphJob, part: Path, unfolded: str) -> ExportedGraph:
    rungs: tuple[LadderStep, ...] = ()
    if job.candidate.precision == "int8":
        rungs = _climb_ladder(job, part)
    else:
        images = _calibration(job) if job.candidate.precision == "fp16" else None
        to_precision(job.plain, part, job.candidate.precision, calibration=images)
    check(part, job.opset, job.runtimes, job.candidate.describe())
    relaid = job.timed.exists() and layout(part) != layout(job.timed)
    note = {"rungs": [asdict(rung) for rung in rungs], "relaid": relaid, "unfolded": unfolded}
    write_file(beside(job.out), json.dumps(note, indent=1))
    return ExportedGraph(job.out, rungs, relaid, unfolded)


def _calibration(job: GraphJob) -> np.ndarray:
    """Return normalised calibration images, float32 (N, 3, image_px, image_px), the classes in equal parts."""
    images, _ = arrays(job.dataset, TRAIN, job.candidate.image_px, job.cache)
    chosen = calibration_images(job.dataset, job.calibration_images, job.recipe.seed)
    return normalise(images[chosen], *_normalisation(job))


def _normalisation(job: GraphJob) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if job.given is not None:
        return job.given.mean, job.given.std
    return network.normalisation(job.candidate.family, job.candidate.variant)


def _climb_ladder(job: GraphJob, part: Path) -> tuple[LadderStep, ...]:
    """Write the int8 graph to `part` and return the steps of its ladder."""
    if job.int8 is None:
        raise ValueError("int8 needs a recipe: the device has none")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(job.recipe.threads or cores)
    torch.manual_seed(job.recipe.seed)
    normalisation = _normalisation(job)
    plain = prepare(job.plain)

    end_s = time.monotonic() + job.seconds_max

    def tune_plan(plan: QuantizationPlan) -> QuantizationPlan:
        images, labels = arrays(job.dataset, TRAIN, job.candidate.image_px, job.cache)
        feed = BatchSource(images, labels, normalisation, job.recipe)
        deadline, steps = Deadline(time.monotonic(), end_s - time.monotonic()), job.ladder.qat_epochs * len(feed)
        return tune(plan, plain, feed, job.ladder, lambda epoch, step, loss: deadline.check(step, steps))

    def is_late() -> bool:
        return time.monotonic() > end_s

    climbed = climb(
        plain,
        job.int8,
        exam=_exam(job),
        calibration=_calibration(job),
        ladder=job.ladder,
        tune=tune_plan,
        second=lambda: _second(job),
        is_late=is_late,
    )
    save(climbed.graph, part)
    return climbed.rungs


def _exam(job: GraphJob) -> EvaluationSet:
    """Return the validation images on which steps are compared: all, or the same share of them every time."""
    count = len(job.dataset.splits[VALIDATION].labels)
    return _of(job, VALIDATION, np.random.default_rng([job.recipe.seed, 3]).permutation(count)[: job.ladder.images])


def _second(job: GraphJob) -> EvaluationSet:
    """Return training images that were not used for calibration."""
    used = calibration_images(job.dataset, job.calibration_images, job.recipe.seed)
    others = np.setdiff1d(np.arange(len(job.dataset.splits[TRAIN].labels)), used)
    return _of(job, TRAIN, np.random.default_rng([job.recipe.seed, 4]).permutation(others)[: job.ladder.second])


def _of(job: GraphJob, split: SplitName, chosen: np.ndarray) -> EvaluationSet:
    images, labels = arrays(job.dataset, split, job.candidate.image_px, job.cache)
    normalisation = _normalisation(job)
    chosen = np.sort(chosen)
    return EvaluationSet(normalise(images[chosen], *normalisation), labels[chosen])
