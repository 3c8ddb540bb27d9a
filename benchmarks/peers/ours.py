"""What this project made of a parent: the rows that the benchmark of compression scored, each in every runtime."""

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
NOT_OFFERED = (FP16, INT8_PTQ, INT8_TENSORRT)  # made for the tables: a search on this machine would not choose them
CALIBRATION = 64


@dataclass(frozen=True)
class Entry:
    """A model in the contest."""

    name: str
    runtime: str  # onnxruntime | openvino
    path: Path
    image_px: int


@dataclass(frozen=True)
class Parent:
    """A trained network of one set, what was made of it, and pictures at any size: validation judges, test is shown."""

    task: Task
    net: Net
    dataset: Dataset
    cache: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.net.variant}, {self.task.data}"

    def rows(self, results: Path) -> list[Row]:
        """Everything of it that was scored and that a search would offer; the plain network first."""
        scored = keys(results, whole=True)
        rows = [*table_rows(self.task), *front_rows(self.task)]
        mine = [row for row in rows if row.candidate.variant == self.net.variant and row.key in scored]
        return [row for row in mine if row.treatment not in NOT_OFFERED]

    def pictures(self, split: str, image_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Normalised float32 (N, 3, px, px), and labels (N,)."""
        images, labels = arrays(self.dataset, split, image_px, self.cache)
        return normalise(images, *normalisation(self.net.family, self.net.variant)), labels

    def calibration(self) -> np.ndarray:
        """The images that the ladder calibrates with, normalised, at the parent's size."""
        return self.pictures(TRAIN, self.net.image_px)[0][calibration_images(self.dataset, CALIBRATION, 0)]


def parents(bench: Bench, data: str) -> list[Parent]:
    """Of a set. Raises DataError."""
    dataset = opened(data, bench.data, bench.work)
    return [Parent(TASKS[data], net, dataset, bench.work / "cache") for net in TASKS[data].nets]


def entries(bench: Bench, parent: Parent, rows: list[Row], folder: Path) -> list[Entry]:
    """Each row in each runtime; the images of every size are written to `folder`, by split."""
    for image_px in {row.candidate.image_px for row in rows}:
        for split in (VALIDATION, TRAIN, TEST):
            np.save(folder / f"{split}_{image_px}.npy", parent.pictures(split, image_px)[0])
    return [
        Entry(f"{row.treatment.name} {row.candidate.image_px}px {runtime}", runtime, path, row.candidate.image_px)
        for row in rows
        for path in [model(bench, parent.task, row).resolve()]
        for runtime in RUNTIMES
    ]
