"""What a training is asked and what it answers: plain data, so that who asks need not import torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluators.data.dataset import Dataset
from evaluators.measurement import LadderStep
from evaluators.training.augmentation import DEFAULT, View
from evaluators.training.onnx_teacher import OnnxClassifier
from remote.device import Int8Recipe
from spaces.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How networks are trained. The defaults suit some hundred to some ten thousand images.

    AdamW (Loshchilov & Hutter 2019); the learning rate rises over the first quarter and falls to nothing
    along a cosine (one cycle: Smith & Topin 2018), anew in every rung (SGDR: Loshchilov & Hutter 2017), so
    that networks of one rung compare. Candidates learn from their parent's logits (Hinton et al. 2015).
    """

    parent_epochs: int = 3
    batch: int = 32
    epoch_images: int = 1000  # least an epoch shows: a smaller set is gone through several times
    lr: float = 1e-3  # peak, of a net with trained weights
    lr_scratch: float = 1e-2  # peak, of a net with random weights
    lr_candidate: float = 1e-3  # peak, of a candidate that goes on from its parent's weights
    weight_decay: float = 0.01  # of matrices and kernels; biases and BatchNorm have none
    clip: float = 1.0  # largest gradient norm: keeps nets without BatchNorm from diverging
    label_smoothing: float = 0.1
    distillation: float = 0.7  # weight of the teacher's logits in the loss, the labels have the rest
    temperature: float = 2.0  # of both logits in it
    augment: tuple[str, ...] = DEFAULT  # switches of evaluators.training.augmentation that are on
    shift: float = 0.06  # largest move, of the image's side; the border is repeated
    brightness: float = 0.2  # largest change, of a pixel's value
    batchnorm_images: int = 512  # for new BatchNorm statistics
    seed: int = 0
    threads: int = 0  # 0: all cores this process may use

    @staticmethod
    def of(dataset: Dataset, seed: int = 0, threads: int = 0) -> TrainingRecipe:
        """Return the recipe for a data set."""
        return TrainingRecipe(parent_epochs=4 if dataset.kind == "digits" else 3, seed=seed, threads=threads)


def recipe_for(
    dataset: Dataset,
    seed: int,
    parent_epochs: int | None = None,
    distillation: float | None = None,
    temperature: float | None = None,
    augment: tuple[str, ...] | None = None,
) -> TrainingRecipe:
    """Return the recipe for a data set with what the user wants otherwise; None leaves the recipe's own value."""
    wanted: dict[str, Any] = {"parent_epochs": parent_epochs, "distillation": distillation, "temperature": temperature}
    wanted["augment"] = augment
    return replace(TrainingRecipe.of(dataset, seed=seed), **{name: v for name, v in wanted.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class ParentJob:
    """Train a family's uncompressed network on the train split."""

    dataset: Dataset
    cache: Path  # of decoded images
    family: str
    variant: str
    image_px: int
    recipe: TrainingRecipe
    out: Path  # the checkpoint
    weights: Path | None = None  # folder of weight files
    download: bool = False
    progress: Path | None = None  # {"epoch", "epochs", "step", "steps", "loss"} goes there while it works
    seconds_max: float = math.inf  # in which it must end


@dataclass(frozen=True, kw_only=True)
class CandidateJob:
    """Cut a network out of its trained parent; no training."""

    dataset: Dataset
    cache: Path
    family: str
    variant: str
    image_px: int
    steps: tuple[tuple[str, float], ...]
    recipe: TrainingRecipe
    parent: Path
    out: Path
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class FineTuneJob:
    """Train a saved network for `epochs` more."""

    dataset: Dataset
    cache: Path
    family: str
    variant: str
    image_px: int
    epochs: int
    recipe: TrainingRecipe
    teacher: Path  # file with the logits that are learned from, a parent's or another's
    net: Path
    out: Path
    progress: Path | None = None
    seconds_max: float = math.inf  # in which it must end


# How a quantized activation's range is found, the simpler first.
CALIBRATIONS = ("min-max", "percentile 99.999", "percentile 99.99", "percentile 99.9", "entropy")
QUICK = (CALIBRATIONS[0], CALIBRATIONS[2])  # of these one does for most networks
FITTED = "fitted"  # tensor by tensor, by what its readers make of it


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """How far an int8 graph is taken: rung by rung, the cheap ones first, until little enough accuracy is lost."""

    allowed_drop: float = 0.01  # against fp32, 0..1; one standard error of the difference where that is more
    methods: tuple[str, ...] = (*CALIBRATIONS, FITTED)
    best: bool = True  # of the methods; else the first that will do
    correct: bool = True  # equalisation and bias correction
    # share of the multiply-accumulates that may go back to floating point before weights are tuned, and any share after
    floating_macs: float = 0.25
    qat_epochs: int = 2  # of quantization-aware fine-tuning; 0: none
    qat_lr: float = 1e-4  # peak: batch norm is folded by then, and the weights are nearly right
    images: int = 1000  # of the validation split that graphs are compared on, at most
    second: int = 500  # training images on which a graph that loses little there must lose as little, at most

    def at(self, epochs: int, epochs_max: int) -> LadderConfig:
        """The rungs that are worth climbing after `epochs` of a network's training.

        What was just cut shows nothing yet, halfway a method that will do is as good as the best one, and layout and
        weights are decided when training has ended.
        """
        if epochs == epochs_max:
            return self
        short = replace(self, floating_macs=0.0, qat_epochs=0, best=False, second=0)
        if not epochs:
            return replace(short, methods=self.methods[:1], correct=False)
        return replace(short, methods=tuple(name for name in self.methods if name in QUICK))


@dataclass(frozen=True, kw_only=True)
class TeacherJob:
    """Write the logits of an ONNX classifier as a file to learn from."""

    dataset: Dataset
    cache: Path  # of decoded images
    file: Path
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    views: tuple[View, ...]  # that logits are wanted of, the plain one first
    out: Path


@dataclass(frozen=True, kw_only=True)
class GraphJob:
    """Export a saved network at the candidate's precision."""

    candidate: Candidate
    dataset: Dataset
    cache: Path  # of decoded images
    net: Path
    plain: Path  # the fp32 graph, shared by every precision; made if it is not there
    out: Path
    timed: Path  # the graph of the same candidate that was timed, with random weights
    int8: Int8Recipe | None
    opset: int
    runtimes: tuple[str, ...]  # that the graph must load in
    calibration_images: int
    ladder: LadderConfig
    recipe: TrainingRecipe  # of fine-tuning, where int8 needs it
    given: OnnxClassifier | None = None  # what is exported in place of `net`
    seconds_max: float = math.inf  # after which no further escalation level of int8 is begun


@dataclass(frozen=True)
class ExportedGraph:
    """What a GraphJob made. `rungs` is what int8 took, empty for other precisions."""

    path: Path
    rungs: tuple[LadderStep, ...] = ()
    relaid: bool = False  # its operators are not those of the graph that was timed
    unfolded: str = ""  # why it has branches still that are one layer in a folded network; told of the first precision


def beside(path: Path) -> Path:
    """The JSON file that says what a graph took."""
    return path.with_suffix(".json")


def graph_from_json(path: Path) -> ExportedGraph:
    """The Graph of a file that is there, as its JSON tells it."""
    told = json.loads(beside(path).read_text(encoding="utf-8"))
    return ExportedGraph(
        path, tuple(LadderStep(**rung) for rung in told["rungs"]), told["relaid"], told.get("unfolded", "")
    )


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """What a job did. The network is in the file `path`."""

    path: Path
    steps: int  # gradient steps of this job
    epochs: int  # the network has had since it left its parent; of a parent, its own
    loss: float  # mean over the last epoch; 0.0 without training
    seconds: float
    start: str  # of a parent: which weights it began with


class TrainingFailedError(Exception):
    """The network cannot be trained; its own fault."""

    kind = "crashed"
