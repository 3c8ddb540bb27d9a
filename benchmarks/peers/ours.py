"""What this project makes of a parent without training it: input sizes, precisions and runtimes that can pay here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.int8_ladder import NETS, Norm, Pictures, imagenet, network
from evaluators.ceiling import check
from evaluators.export import export, save
from evaluators.feed import Feed
from evaluators.jobs import Ladder, Recipe
from evaluators.quantizing.ladder import climb
from evaluators.quantizing.qdq import macs, prepared
from evaluators.quantizing.scoring import Exam
from evaluators.quantizing.tuning import tuned
from remote.device import Int8Recipe

SIZES = (1.0, 13 / 14, 6 / 7, 11 / 14)  # of the parent's input: 224, 208, 192, 176 px
CALIBRATION = 64
OPSET = 13
EVERY, JUDGED, SHOWN = slice(None), slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class Parent:
    """A trained network, and pictures at any size: half of the validation images judge, the others are the test."""

    name: str

    @property
    def image_px(self) -> int:
        """That it was trained at."""
        return NETS[self.name][1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input sizes to try, its own first."""
        return tuple(round(self.image_px * share) for share in SIZES)

    def exported(self, image_px: int, path: Path) -> Norm:
        """The normalisation of the network, which is written as fp32."""
        net, norm = network(self.name, NETS[self.name][0], image_px)
        export(net, image_px, path, OPSET)
        return norm

    def pictures(self, image_px: int) -> tuple[Pictures, Pictures]:
        """(for calibration and tuning, for validation)."""
        return imagenet("imagenet_calib500", image_px, True), imagenet("imagenet_val700", image_px, False)


@dataclass(frozen=True)
class Entry:
    """A model in the contest."""

    name: str
    runtime: str  # onnxruntime | openvino
    path: Path
    image_px: int


def calibration(train: Pictures, norm: Norm) -> np.ndarray:
    """Normalised float32 (CALIBRATION, 3, H, W), evenly drawn."""
    return train.exam(norm, slice(None, None, max(1, len(train.labels) // CALIBRATION))).images[:CALIBRATION]


def candidates(
    parent: Parent, folder: Path, recipe: Int8Recipe, int8_sizes: int, runtimes: tuple[str, ...]
) -> Iterator[Entry]:
    """Each made graph in each runtime. What int8 took is printed."""
    for place, image_px in enumerate(parent.sizes):
        plain_path = folder / f"ours_{image_px}_fp32.onnx"
        norm = parent.exported(image_px, plain_path)
        paths = {"fp32": plain_path}
        train, shown = parent.pictures(image_px)
        for part, images in (("judge", shown.exam(norm, JUDGED)), ("test", shown.exam(norm, SHOWN))):
            np.save(folder / f"{part}_{image_px}.npy", images.images)
        if place < int8_sizes:
            paths["int8"] = folder / f"ours_{image_px}_int8.onnx"
            _quantize(plain_path, paths["int8"], recipe, shown.exam(norm, JUDGED), train, norm)
        for precision, path in paths.items():
            check(path, OPSET, runtimes, parent.name)
            for runtime in runtimes:
                yield Entry(f"ours {image_px}px {precision} {runtime}", runtime, path, image_px)


def _quantize(fp32: Path, out: Path, recipe: Int8Recipe, exam: Exam, train: Pictures, norm: Norm) -> None:
    plain, ladder = prepared(fp32), Ladder()
    feed = Feed(train.pixels, train.labels.astype(np.int64), norm, Recipe(epoch_images=len(train.labels)))
    climbed = climb(
        plain, recipe, exam, calibration(train, norm), ladder, lambda plan: tuned(plan, plain, feed, ladder)
    )
    save(climbed.graph, out)
    whole = sum(macs(plain).values())
    left = sum(count for name, count in macs(plain).items() if name in climbed.plan.floating)
    kept = [rung.name for rung in climbed.rungs if rung.kept]
    print(f"  {out.stem}: {', '.join(kept)}; {1 - left / whole:.0%} of the work in int8", flush=True)
