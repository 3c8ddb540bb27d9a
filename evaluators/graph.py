"""From a trained network to the graph that is scored and timed. Runs in a worker process, which has torch."""

from __future__ import annotations

from pathlib import Path

from evaluators.data import arrays, calibration_images, normalise
from evaluators.dataset import TRAIN
from evaluators.export import export, to_precision
from evaluators.jobs import GraphJob
from evaluators.training import load_net
from spaces import network


def make_graph(job: GraphJob) -> Path:
    """The exported file. Raises what export and conversion raise."""
    if not job.plain.exists():
        part = job.plain.with_suffix(".part")
        export(load_net(job.net), job.candidate.image_px, part, job.opset)
        part.replace(job.plain)
    calibration = None
    if job.candidate.precision == "int8":
        images, _ = arrays(job.dataset, TRAIN, job.candidate.image_px, job.cache)
        chosen = calibration_images(job.dataset, job.calibration_images, job.seed)
        normalisation = network.normalisation(job.candidate.family, job.candidate.variant)
        calibration = normalise(images[chosen], *normalisation)
    part = job.out.with_suffix(".part")
    to_precision(job.plain, part, job.candidate.precision, job.int8, calibration)
    part.replace(job.out)
    return job.out
