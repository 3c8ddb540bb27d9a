"""Collect the models that this project made of a parent: rows of the compression benchmark, each in every runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.compression.__main__ import keys
from benchmarks.compression.bench import Bench, model
from benchmarks.compression.plan import FP16, INT8_PTQ, INT8_TENSORRT, TASKS, Net, Row, Task, front_rows, table_rows
from benchmarks.compression.sets import opened
from evaluators.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from evaluators.data.loading import arrays, calibration_images
from evaluators.data.preprocessing import normalise
from spaces.network import normalisation

RUNTIMES = ("onnxruntime", "openvino")
NOT_OFFERED = (FP16, INT8_PTQ, INT8_TENSORRT)  # for comparison only: a search on this machine would not choose them
CALIBRATION = 64


@dataclass(frozen=True)
class Entry:
    """Describe a model in the contest."""

    name: str
    runtime: str  # onnxruntime | openvino
    path: Path
    image_px: int


@dataclass(frozen=True)
class Parent:
    """Describe a trained network of one data set, with its rows and images at any size."""

    task: Task
    net: Net
    dataset: Dataset
    cache: Path

    @property
    def name(self) -> str:
        """Return the name for tables."""
        return f"{self.net.variant}, {self.task.data}"

    def rows(self, results: Path) -> list[Row]:
        """Return the scored rows that a search would offer, the uncompressed network first."""
        scored = keys(results, whole=True)
        rows = [*table_rows(self.task), *front_rows(self.task)]
        mine = [row for row in rows if row.candidate.variant == self.net.variant and row.key in scored]
        return [row for row in mine if row.treatment not in NOT_OFFERED]

    def pictures(self, split: str, image_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Return normalised float32 images (N, 3, px, px) and labels (N,)."""
        images, labels = arrays(self.dataset, split, image_px, self.cache)
        return normalise(images, *normalisation(self.net.family, self.net.variant)), labels

    def calibration(self) -> np.ndarray:
        """Return the normalised calibration images of the int8 ladder at the parent's size."""
        return self.pictures(TRAIN, self.net.image_px)[0][calibration_images(self.dataset, CALIBRATION, 0)]


def parents(bench: Bench, data: str) -> list[Parent]:
    """Return the parents of a data set. Raises DataError."""
    dataset = opened(data, bench.data, bench.work)
    return [Parent(TASKS[data], net, dataset, bench.work / "cache") for net in TASKS[data].nets]


def entries(bench: Bench, parent: Parent, rows: list[Row], folder: Path) -> list[Entry]:
    """Return each row in each runtime, and write the images of every size and split to `folder`."""
    for image_px in {row.candidate.image_px for row in rows}:
        for split in (VALIDATION, TRAIN, TEST):
            np.save(folder / f"{split}_{image_px}.npy", parent.pictures(split, image_px)[0])
    return [
        Entry(f"{row.treatment.name} {row.candidate.image_px}px {runtime}", runtime, path, row.candidate.image_px)
        for row in rows
        for path in [model(bench, parent.task, row).resolve()]
        for runtime in RUNTIMES
    ]
