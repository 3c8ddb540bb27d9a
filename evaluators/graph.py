"""From a trained network to the graph that is scored and timed. Runs in a worker process, which has torch."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from evaluators.ceiling import check
from evaluators.data import arrays, calibration_images, normalise
from evaluators.dataset import TRAIN, VALIDATION
from evaluators.export import export, save
from evaluators.feed import Feed
from evaluators.given import write_plain
from evaluators.jobs import Graph, GraphJob, beside
from evaluators.measurement import Rung
from evaluators.precision import layout, to_precision
from evaluators.quantizing.ladder import climb
from evaluators.quantizing.qdq import Plan, prepared
from evaluators.quantizing.scoring import Exam
from evaluators.quantizing.tuning import tuned
from evaluators.training import Deadline, load_net
from remote.files import replace_file, write_file
from spaces import network
from spaces.folding import deployed


def make_graph(job: GraphJob) -> Graph:
    """The exported file, and beside it what it took as JSON. Raises what export and conversion raise, Unsupported."""
    unfolded = ""
    if not job.plain.exists():
        with replace_file(job.plain) as part:
            px = job.candidate.image_px
            if job.given is not None:
                write_plain(job.given, part, job.opset)
            else:
                net, unfolded = deployed(load_net(job.net), px, bool(job.candidate.steps))
                export(net, px, part, job.opset)
    with replace_file(job.out) as part:
        return _made(job, part, unfolded)


def _made(job: GraphJob, part: Path, unfolded: str) -> Graph:
    rungs: tuple[Rung, ...] = ()
    if job.candidate.precision == "int8":
        rungs = _climbed(job, part)
    else:
        images = _calibration(job) if job.candidate.precision == "fp16" else None
        to_precision(job.plain, part, job.candidate.precision, calibration=images)
    check(part, job.opset, job.runtimes, job.candidate.describe())
    relaid = job.timed.exists() and layout(part) != layout(job.timed)
    note = {"rungs": [asdict(rung) for rung in rungs], "relaid": relaid, "unfolded": unfolded}
    write_file(beside(job.out), json.dumps(note, indent=1))
    return Graph(job.out, rungs, relaid, unfolded)


def _calibration(job: GraphJob) -> np.ndarray:
    """Normalised float32 (N, 3, image_px, image_px), the classes in equal parts."""
    images, _ = arrays(job.dataset, TRAIN, job.candidate.image_px, job.cache)
    chosen = calibration_images(job.dataset, job.calibration_images, job.recipe.seed)
    return normalise(images[chosen], *_normalisation(job))


def _normalisation(job: GraphJob) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if job.given is not None:
        return job.given.mean, job.given.std
    return network.normalisation(job.candidate.family, job.candidate.variant)


def _climbed(job: GraphJob, part: Path) -> tuple[Rung, ...]:
    """What the int8 graph now in `part` took."""
    if job.int8 is None:
        raise ValueError("int8 needs a recipe: the device has none")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(job.recipe.threads or cores)
    torch.manual_seed(job.recipe.seed)
    normalisation = _normalisation(job)
    plain = prepared(job.plain)

    end_s = time.monotonic() + job.seconds_max

    def tune(plan: Plan) -> Plan:
        images, labels = arrays(job.dataset, TRAIN, job.candidate.image_px, job.cache)
        feed = Feed(images, labels, normalisation, job.recipe)
        deadline, steps = Deadline(time.monotonic(), end_s - time.monotonic()), job.ladder.qat_epochs * len(feed)
        return tuned(plan, plain, feed, job.ladder, lambda epoch, step, loss: deadline.check(step, steps))

    def is_late() -> bool:
        return time.monotonic() > end_s

    climbed = climb(plain, job.int8, _exam(job), _calibration(job), job.ladder, tune, lambda: _second(job), is_late)
    save(climbed.graph, part)
    return climbed.rungs


def _exam(job: GraphJob) -> Exam:
    """The validation images that rungs are compared on: all, or the same share of them every time."""
    count = len(job.dataset.splits[VALIDATION].labels)
    return _of(job, VALIDATION, np.random.default_rng([job.recipe.seed, 3]).permutation(count)[: job.ladder.images])


def _second(job: GraphJob) -> Exam:
    """Training images that none of the graph's ranges come from."""
    used = calibration_images(job.dataset, job.calibration_images, job.recipe.seed)
    others = np.setdiff1d(np.arange(len(job.dataset.splits[TRAIN].labels)), used)
    return _of(job, TRAIN, np.random.default_rng([job.recipe.seed, 4]).permutation(others)[: job.ladder.second])


def _of(job: GraphJob, split: str, chosen: np.ndarray) -> Exam:
    images, labels = arrays(job.dataset, split, job.candidate.image_px, job.cache)
    normalisation = _normalisation(job)
    chosen = np.sort(chosen)
    return Exam(normalise(images[chosen], *normalisation), labels[chosen])
