"""Whose logits candidates learn from (Hinton et al. 2015): their own parent's, the best parent's, a named network's, or
those of any ONNX classifier of the same classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from evaluators.dataset import DataError
from evaluators.resizing import RESIZES, SQUASH

PARENT, BEST = "parent", "best"  # other words name a network or a file


@dataclass(frozen=True)
class OnnxTeacher:
    """A classifier in a file, and what its input is made of."""

    file: Path
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    resize: str = SQUASH  # how its images become squares

    def describe(self) -> str:
        """For people."""
        return f"{self.file} at {self.image_px} px"


def _content(file: Path) -> str:
    """Return the SHA-256 of a model and of the files beside it that hold its weights.

    Raises DataError for what is no ONNX file, or lacks such a file.
    """
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        raise DataError(f"teacher {file} is not an ONNX file: {' '.join(str(error).split())[:200]}") from None
    hashed = hashlib.sha256(file.read_bytes())
    tensors = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    for name in sorted({ExternalDataInfo(tensor).location for tensor in tensors}):
        beside = file.parent / name
        if not beside.is_file() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"teacher {file}: its weights are in {name!r}, which is not beside it; put it there")
        hashed.update(beside.read_bytes())
    return hashed.hexdigest()


def is_file(name: str) -> bool:
    """True if a teacher's name means an ONNX file or a folder with a model.onnx, such as a run's chosen/."""
    path = Path(name).expanduser()
    return path.suffix == ".onnx" or (path / "model.onnx").is_file()


def opened(name: str, classes: Sequence[str]) -> OnnxTeacher:
    """The teacher in a file. What its input is made of stands in `<stem>.json` or `config.json` beside it, under
    `preprocessing`, as in the config.json that a run writes into chosen/.

    Raises DataError for a file that is not there, does not say so, or has other classes.
    """
    path = Path(name).expanduser()
    file = path if path.suffix == ".onnx" else path / "model.onnx"
    if not file.is_file():
        raise DataError(f"teacher {name}: there is no such file; name an ONNX classifier, a network, parent or best")
    beside = [file.with_suffix(".json"), file.with_name("config.json")]
    note = next((place for place in beside if place.is_file()), None)
    wanted = (
        '{"preprocessing": {"image_px": 224, "mean": [..], "std": [..]}}, mean and std of pixels / 255; '
        '"resize" may be crop or pad'
    )
    if note is None:
        raise DataError(f"teacher {file}: how its input is made is not known; write {beside[0].name} with {wanted}")
    try:
        words: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        made = words["preprocessing"]
        mean, std = (tuple(float(value) for value in made[key]) for key in ("mean", "std"))
        image_px, resize = int(made["image_px"]), made.get("resize", SQUASH)
        resize = SQUASH if resize == "bilinear, squashed" else resize  # as earlier versions wrote it
        if resize not in RESIZES:
            raise ValueError(f"resize {resize!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"teacher {file}: {note.name} lacks what is needed ({error!r}): {wanted}") from None
    theirs = words.get("classes")
    if theirs is not None and list(theirs) != list(classes):
        raise DataError(f"teacher {file}: its classes are {', '.join(theirs)}; the data have {', '.join(classes)}")
    return OnnxTeacher(file, image_px, mean, std, _content(file), resize)
