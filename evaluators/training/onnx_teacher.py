"""Open ONNX classifiers of the data's classes as teachers or candidates.

Candidates learn from the logits of a teacher (Hinton et al. 2015): their own parent, the best parent, a named network
or such a classifier.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from evaluators.data.dataset import DataError
from evaluators.data.resizing import RESIZES, SQUASH

PARENT, BEST = "parent", "best"  # all other values name a network or a file
TEACHER, MODEL = "teacher", "model"  # display names of a classifier in messages


@dataclass(frozen=True, kw_only=True)
class OnnxClassifier:
    """Describe a classifier in a file, and its preprocessing.

    Attributes:
        file: ONNX file.
        image_px: Side of the input, in pixels.
        mean: Mean by channel of pixels / 255.
        std: Standard deviation by channel of pixels / 255.
        sha256: SHA-256 of the file and of its external weights.
        resize: Method that makes images square, one of `evaluators.data.resizing.RESIZES`.
    """

    file: Path
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    resize: str = SQUASH

    def provenance(self) -> str:
        """Return a line for the report that describes it as a candidate."""
        return f"fixed, given by the user: {self.file}, sha256 {self.sha256[:12]}; not trained, not pruned"

    def describe(self) -> str:
        """Return its file and input size for display."""
        return f"{self.file} at {self.image_px} px"


def content_of(file: Path, what: str = TEACHER) -> str:
    """Return the SHA-256 of a model and of the files beside it that contain its weights.

    Args:
        file: ONNX file.
        what: Display name of the classifier in messages.

    Raises:
        DataError: The file is not an ONNX file, or a file of its weights is missing.
    """
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        raise DataError(f"{what} {file} is not an ONNX file: {' '.join(str(error).split())[:200]}") from None
    hashed = hashlib.sha256(file.read_bytes())
    tensors = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    for name in sorted({ExternalDataInfo(tensor).location for tensor in tensors}):
        beside = file.parent / name
        if not beside.is_file() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{what} {file}: its weights are in {name!r}, which is not beside it; put it there")
        hashed.update(beside.read_bytes())
    return hashed.hexdigest()


def is_file(name: str) -> bool:
    """Return True if a teacher's name means an ONNX file or a folder with a model.onnx, such as a run's chosen/."""
    path = Path(name).expanduser()
    return path.suffix == ".onnx" or (path / "model.onnx").is_file()


def open_teacher(name: str, classes: Sequence[str], what: str = TEACHER) -> OnnxClassifier:
    """Open the classifier in a file.

    Its preprocessing is read from `<stem>.json` or `config.json` beside it, under `preprocessing`, as in the
    config.json that a run writes into chosen/.

    Args:
        name: ONNX file, or a folder with a model.onnx.
        classes: Classes of the data set.
        what: Display name of the classifier in messages.

    Raises:
        DataError: The file does not exist, its preprocessing is unknown, or it has other classes.
    """
    path = Path(name).expanduser()
    file = path if path.suffix == ".onnx" else path / "model.onnx"
    if not file.is_file():
        others = ", a network, parent or best" if what == TEACHER else ""
        raise DataError(f"{what} {name}: no such file; name an ONNX classifier{others}")
    beside = [file.with_suffix(".json"), file.with_name("config.json")]
    note = next((place for place in beside if place.is_file()), None)
    wanted = (
        '{"preprocessing": {"image_px": 224, "mean": [..], "std": [..]}}, mean and std of pixels / 255; '
        '"resize" may be crop or pad'
    )
    if note is None:
        raise DataError(f"{what} {file}: its preprocessing is unknown; write {beside[0].name} with {wanted}")
    try:
        words: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        made = words["preprocessing"]
        mean, std = (tuple(float(value) for value in made[key]) for key in ("mean", "std"))
        image_px, resize = int(made["image_px"]), made.get("resize", SQUASH)
        resize = SQUASH if resize == "bilinear, squashed" else resize  # the value that earlier versions wrote
        if resize not in RESIZES:
            raise ValueError(f"resize {resize!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{what} {file}: {note.name} is invalid ({error!r}); it must contain {wanted}") from None
    theirs = words.get("classes")
    if theirs is not None and list(theirs) != list(classes):
        raise DataError(f"{what} {file}: its classes are {', '.join(theirs)}; the data have {', '.join(classes)}")
    return OnnxClassifier(
        file=file, image_px=image_px, mean=mean, std=std, sha256=content_of(file, what), resize=resize
    )


def open_models(names: Iterable[str], classes: Sequence[str]) -> dict[str, OnnxClassifier]:
    """Open the user's classifiers as families of candidates.

    Args:
        names: ONNX files, or folders with a model.onnx.
        classes: Classes of the data set.

    Returns:
        Classifiers by family, which is the path and a digest of the graph, its weights and its preprocessing.

    Raises:
        DataError: A classifier can't be used, or two have the same name.
    """
    found: dict[str, OnnxClassifier] = {}
    for name in dict.fromkeys(names):
        model = open_teacher(name, classes, MODEL)
        model = replace(model, file=model.file.resolve())
        made = [model.sha256, model.image_px, model.mean, model.std, model.resize]
        family = f"{model.file}@{hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]}"
        twin = next((other for other in found.values() if other.file.stem == model.file.stem), model)
        if twin.file != model.file:
            raise DataError(f"model {model.file} has the same name as {twin.file}: rename it, as tables show it")
        found[family] = model
    return found
