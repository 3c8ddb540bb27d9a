"""Open the data sets in the form that the product accepts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy
from PIL import Image

from evaluators.data.dataset import TEST, TRAIN, VALIDATION, DataError, Dataset, Split, digest_of
from evaluators.data.loading import open_dataset

CALIBRATION = "imagenet_calib500"


def opened(name: str, data: Path, work: Path) -> Dataset:
    """Open the data set `name` below `data`; `work` is the folder for converted copies. Raises DataError."""
    if name == "digits":
        return open_dataset("digits", 0)
    if not (data / name).is_dir():
        raise DataError(f"no {name} in {data}: name the folder that has it with --data")
    if name == "imagenet_val700":
        return _imagenet(data, name)
    if (data / name / "train.png").exists():
        return open_dataset(str(_laid_out(data / name, work / name)), 0, work / "cache")
    return open_dataset(str(data / name), 0, work / "cache")


def _laid_out(source: Path, out: Path) -> Path:
    """Write class folders from PNG files that hold one 32 x 32 image per row; return the folder."""
    done = out / ".whole"
    if done.exists():
        return out
    classes = json.loads((source / "meta.json").read_text(encoding="utf-8"))["classes"]
    for split in ("train", "test"):
        pixels = numpy.asarray(Image.open(source / f"{split}.png")).reshape(-1, 32, 32, 3)
        labels = numpy.load(source / f"{split}_labels.npy")
        for name in classes:
            (out / split / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            Image.fromarray(image).save(out / split / classes[label] / f"{number:05}.png")
    done.touch()
    return out


def _imagenet(data: Path, name: str) -> Dataset:
    """Split `name` in turn into validation (for the ladder) and test; the calibration images are the train split."""
    classes = tuple((data / name / "class_names.txt").read_text(encoding="utf-8").splitlines())
    shown, train = _listed(data, name), _listed(data, CALIBRATION)
    splits = {TRAIN: _part(train, slice(None)), VALIDATION: _part(shown, slice(0, None, 2))}
    splits[TEST] = _part(shown, slice(1, None, 2))
    return Dataset(
        name=name,
        kind="folder",
        root=data,
        seed=0,
        classes=classes,
        splits=splits,
        note=f"train is {CALIBRATION}; validation and test are every other image of {name}",
        left_out=(),
        sizes=((227, 227),),
        digest=digest_of(name, [[split.sources, split.labels] for split in splits.values()]),
    )


def _listed(data: Path, folder: str) -> list[tuple[str, int]]:
    with (data / folder / "labels.csv").open(encoding="utf-8") as file:
        return [(f"{folder}/images/{row['file']}", int(row["label"])) for row in csv.DictReader(file)]


def _part(rows: list[tuple[str, int]], chosen: slice) -> Split:
    sources, labels = zip(*rows[chosen], strict=True)
    return Split(sources, labels)
