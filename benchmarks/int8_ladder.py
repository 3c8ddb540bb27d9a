"""python benchmarks/int8_ladder.py: what int8 takes and loses on networks that know ImageNet, on images it never saw.

Half of imagenet_val700 judges, the other half is the test; calibration and fine-tuning use imagenet_calib500. Minutes a
network. Needs ../shared/weights and ../shared/data, and timm for the tf_ networks.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from evaluators.export import export
from evaluators.feed import Feed
from evaluators.images import normalise
from evaluators.jobs import Ladder, Recipe
from evaluators.measurement import standard_error
from evaluators.quantizing.ladder import climb
from evaluators.quantizing.qdq import macs, prepared
from evaluators.quantizing.scoring import Exam
from evaluators.quantizing.tuning import tuned
from remote.device import Int8Recipe
from spaces import weights
from spaces.network import build, normalisation

SHARED = Path(__file__).parents[2] / "shared"
RECIPES = {
    "TensorRT": Int8Recipe("int8", symmetric=True, weight_bits=8),
    "CPU without VNNI": Int8Recipe("uint8", symmetric=False, weight_bits=7),
}
Norm = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation, by channel
EVERY = slice(None)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# family and variant here, or None and timm's name; image_px
NETS = {
    "mobilenet_v2": ("mobilenet_v2", 224),
    "tf_efficientnet_lite0": (None, 224),
    "tf_mobilenetv3_small_100": (None, 224),
}


@dataclass(frozen=True)
class Pictures:
    """uint8 (N, px, px, 3) and labels."""

    pixels: np.ndarray
    labels: np.ndarray

    def exam(self, norm: Norm, part: slice = EVERY) -> Exam:
        """Some of them as the network takes them, with their labels."""
        return Exam(normalise(self.pixels[part], *norm), self.labels[part])


def imagenet(folder: str, image_px: int, cropped: bool) -> Pictures:
    """A folder with labels.csv; the middle 0.875 of the shorter side where `cropped`, else the whole."""
    with (SHARED / "data" / folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    pixels = []
    for row in rows:
        image = Image.open(SHARED / "data" / folder / "images" / row["file"]).convert("RGB")
        side = 0.875 * min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        box = (left, top, left + side, top + side) if cropped else None
        pixels.append(np.asarray(image.resize((image_px, image_px), Image.Resampling.BICUBIC, box=box)))
    return Pictures(np.stack(pixels), np.array([int(row["label"]) for row in rows]))


def network(name: str, family: str | None, image_px: int) -> tuple[nn.Module, Norm]:
    """The trained net and its normalisation."""
    if family is not None:
        net = build(family, name, 1000, image_px)
        weights.load(net, SHARED / "weights" / f"{name}.safetensors")
        return net.eval(), normalisation(family, name)
    import timm

    net = timm.create_model(name, pretrained=False, exportable=True)
    state = load_file(SHARED / "weights" / f"{name}.safetensors")
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return net.eval(), HALF


def lost(
    folder: Path,
    net: nn.Module,
    norm: Norm,
    image_px: int,
    train: Pictures,
    exam: Exam,
    test: Exam,
    recipe: Int8Recipe,
) -> tuple[float, float]:
    """Accuracy lost on `test`, and what one standard error of it is; what it took is printed."""
    export(net, image_px, folder / "fp32.onnx")
    plain, ladder = prepared(folder / "fp32.onnx"), Ladder()
    feed = Feed(train.pixels, train.labels.astype(np.int64), norm, Recipe(epoch_images=500))
    calibration = train.exam(norm, slice(None, None, max(1, len(train.labels) // 64))).images[:64]
    climbed = climb(plain, recipe, exam, calibration, ladder, lambda plan: tuned(plan, plain, feed, ladder))
    counted = macs(plain)
    whole = sum(count for name, count in counted.items() if name not in climbed.plan.floating) / sum(counted.values())
    for rung in climbed.rungs:
        kept, work = "kept" if rung.kept else "", f"{1 - rung.floating_macs:.0%} int8" if rung.name != "fp32" else ""
        print(f"{rung.name:46} {rung.top1:.4f} {rung.seconds:7.1f} s {kept:4} {work:9} {rung.note}")
    fp32, int8 = test.top1(plain), test.top1(climbed.graph)
    print(f"on unseen images: fp32 {fp32:.4f}, int8 {int8:.4f}; {whole:.0%} of the work in int8")
    return fp32 - int8, standard_error(round(fp32 * len(test.labels)), len(test.labels))


def main() -> None:
    """A paragraph a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETS), choices=list(NETS))
    args = parser.parse_args()
    for name in args.networks:
        family, image_px = NETS[name]
        net, norm = network(name, family, image_px)
        train, shown = imagenet("imagenet_calib500", image_px, True), imagenet("imagenet_val700", image_px, False)
        exam, test = shown.exam(norm, slice(0, None, 2)), shown.exam(norm, slice(1, None, 2))
        for target, recipe in RECIPES.items():
            print(f"{name}, {target}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                loss, noise = lost(Path(folder), net, norm, image_px, train, exam, test, recipe)
            print(f"lost {100 * loss:.1f} points, one standard error is {100 * noise:.1f}", flush=True)


if __name__ == "__main__":
    main()
