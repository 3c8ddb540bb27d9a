"""Write the `chosen/` folder: the timed model, everything needed to use it, and an example program."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from evaluators.data.preprocessing import fit, resize_image, rgb
from evaluators.data.resizing import RESIZES, SQUASH, Preprocessing
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.measurement import Accuracy, Measurement
from remote.files import write_file
from reports.classes import class_warnings, summary
from search.result import Result
from spaces.family_files import identity


def _source_of(step: Callable[..., object]) -> str:
    """Return a function's source text with the first sentence of its docstring alone: an example is to be short."""
    source, doc = inspect.getsource(step), step.__doc__ or ""
    return source.replace(doc, doc.split("\n")[0], 1)


# The example contains the source text of the search's own preprocessing, so a picture becomes the same numbers in both.
EXAMPLE = (
    '''\
"""python predict.py IMAGE: the class and its probability. Needs onnxruntime, numpy and pillow."""
import json, os, pathlib, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: onnxruntime sends what it is used for otherwise
import numpy as np, onnxruntime
from PIL import Image, ImageOps


'''
    + "\n\n".join([_source_of(fit), _source_of(rgb), _source_of(resize_image)]).replace("Image.Resampling.", "Image.")
    + """

here = pathlib.Path(__file__).parent
config = json.loads((here / "config.json").read_text(encoding="utf-8"))
pre = config["preprocessing"]
image = fit(Image.open(sys.argv[1]), pre["image_px"], pre.get("resize", "squash"))
x = (np.asarray(image, dtype=np.float32) / 255 - np.float32(pre["mean"])) / np.float32(pre["std"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = config["candidate"]["threads"]  # as it was timed
session = onnxruntime.InferenceSession(here / "model.onnx", options, providers=["CPUExecutionProvider"])
scores = session.run(None, {session.get_inputs()[0].name: x.transpose(2, 0, 1)[None]})[0][0].astype(np.float64)
is_probability = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-2
p = scores if is_probability else np.exp(scores - scores.max())
print(config["classes"][p.argmax()], round(float(p.max() / p.sum()), 4))
"""
)


def write_chosen(result: Result, classes: Sequence[str], preprocessing: Preprocessing) -> Path:
    """Write `chosen/` into the run folder: model.onnx, config.json and predict.py; for ncnn model.ncnn.zip too.

    Args:
        result: The result of the run.
        classes: Class names by index.
        preprocessing: `mean` and `std` (of pixels / 255, one value per channel) and `image_px`; other entries are kept.

    Returns:
        Path of the folder.

    Raises:
        ValueError: There is no choice, its file is not the measured one, or `preprocessing` is incomplete.
    """
    choice = result.choice
    if choice is None:
        raise ValueError(
            f"no choice to write: no candidate keeps {result.budget.describe()}; the report names the nearest miss"
        )
    source = result.folder / choice.model_path
    if not choice.model_path or not source.is_file():
        raise ValueError(f"the chosen model {source} is gone; run the same command again to rebuild it")
    if missing := {"mean", "std", "image_px"} - preprocessing.keys():
        raise ValueError(f"preprocessing lacks {', '.join(sorted(missing))}; it has {', '.join(preprocessing)}")
    model = source.read_bytes()
    digest = hashlib.sha256(model).hexdigest()
    # a runtime with its own format was sent a file made from this graph; that file was scored and timed
    candidate = choice.candidate
    sent = for_runtime(source, needs(candidate.runtime), candidate.image_px, source.parent)
    _check(sent, hashlib.sha256(sent.read_bytes()).hexdigest(), choice)
    config = _config(result, choice, list(classes), preprocessing, digest)
    part = result.folder / ".chosen.part"
    remove_chosen(result.folder, keep=result.folder / "chosen")
    write_file(part / "model.onnx", model)
    if sent != source:
        write_file(part / f"model{sent.name.removeprefix(source.stem)}", sent.read_bytes())
    write_file(part / "predict.py", EXAMPLE)
    write_file(part / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return _swap_folders(part, result.folder / "chosen")


def remove_chosen(run: Path, keep: Path | None = None) -> None:
    """Remove a run's `chosen/`, and the leftovers of a run that was killed.

    Args:
        run: The run folder.
        keep: A folder that stays.
    """
    for name in (".chosen.part", ".chosen.old", "chosen"):
        if run / name != keep and (run / name).exists():
            shutil.rmtree(run / name)


def _swap_folders(part: Path, folder: Path) -> Path:
    """Replace an old folder, complete until then, by a new one; return its path."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _check(source: Path, digest: str, choice: Measurement) -> None:
    """Check that the file is the scored one and, if it was timed with trained weights, the timed one."""
    measured = {"scored": choice.accuracy, "tested": choice.test}
    hashes = {what: accuracy.model_sha256 for what, accuracy in measured.items() if accuracy}
    if choice.confirmed and choice.latency:
        hashes["timed"] = choice.latency.model_sha256
    for what, expected in hashes.items():
        if expected and expected != digest:
            raise ValueError(
                f"{source} has sha256 {digest[:12]}, the model that was {what} had {expected[:12]}: "
                "the file was changed; run the same command again"
            )


def _config(
    result: Result, choice: Measurement, classes: list[str], preprocessing: Preprocessing, digest: str
) -> dict[str, object]:
    resize = RESIZES[preprocessing.get("resize", SQUASH)]
    how = f"open, turn upright by EXIF, RGB, resize (bilinear, {resize}), / 255, - mean, / std, NCHW float32"
    told = choice.candidate.to_dict() | {"family": identity(choice.candidate.family)}
    return {
        "candidate": told | {"description": choice.candidate.describe()},
        "classes": classes,
        "preprocessing": preprocessing | {"steps": how},
        "measured": {
            "latency": asdict(choice.latency) if choice.latency else None,
            "latency_of": "the trained model" if choice.confirmed else "the same graph with random weights",
            "validation": _accuracy(choice.accuracy, classes),
            "test": _accuracy(choice.test, classes),
            "coverage": asdict(choice.coverage) if choice.coverage else None,
            "agreement": asdict(choice.agreement) | {"same_answer": choice.agreement.share}
            if choice.agreement
            else None,
            "structure": asdict(choice.structure) if choice.structure else None,
        },
        "budget": asdict(result.budget),
        "sha256": {"model.onnx": digest, "predict.py": hashlib.sha256(EXAMPLE.encode()).hexdigest()},
        "device": result.device,
        "data": result.data,
        "provenance": result.provenance,
        "run": {"command": result.command, "started": result.started, "trial": choice.trial},
        "warnings": [*class_warnings(result), *result.warnings],
    }


def _accuracy(accuracy: Accuracy | None, classes: list[str]) -> dict[str, object] | None:
    if accuracy is None:
        return None
    return asdict(accuracy) | {"standard_error": accuracy.standard_error()} | summary(accuracy, classes)
