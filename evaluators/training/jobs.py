"""Define requests and results of training jobs as plain data, so that the controlling process need not import torch."""

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
from remote.errors import CandidateFaultError, FailureKind
from spaces.candidate import Candidate


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Describe how networks are trained. The defaults suit some hundred to some ten thousand images.

    AdamW (Loshchilov & Hutter 2019); the learning rate rises over the first quarter and falls to zero along a cosine
    (one cycle: Smith & Topin 2018), anew in every rung (SGDR: Loshchilov & Hutter 2017), so that networks of one rung
    are comparable. Candidates learn from their parent's logits (Hinton et al. 2015).

    Attributes:
        parent_epochs: Training epochs of a parent.
        batch: Images in a batch.
        epoch_images: Minimum number of images in an epoch; a smaller set is repeated within an epoch.
        lr: Peak learning rate of a network with trained weights.
        lr_scratch: Peak learning rate of a network with random weights.
        lr_candidate: Peak learning rate of a candidate that starts from its parent's weights.
        weight_decay: Weight decay of convolution and linear weights; biases and BatchNorm parameters have none.
        clip: Maximum gradient norm, which keeps networks without BatchNorm from diverging.
        label_smoothing: Label smoothing of the cross-entropy loss, 0..1.
        distillation: Weight of the teacher's logits in the loss, 0..1; the labels have the rest.
        temperature: Distillation temperature applied to the logits of teacher and student.
        augment: Enabled switches of `evaluators.training.augmentation`.
        shift: Maximum shift, as a share of the image's side; border pixels are repeated.
        brightness: Maximum relative change of a pixel's value.
        batchnorm_images: Images from which new BatchNorm statistics are computed.
        seed: Random seed.
        threads: Number of threads; 0 uses all cores available to this process.
    """

    parent_epochs: int = 3
    batch: int = 32
    epoch_images: int = 1000
    lr: float = 1e-3
    lr_scratch: float = 1e-2
    lr_candidate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.1
    distillation: float = 0.7
    temperature: float = 2.0
    augment: tuple[str, ...] = DEFAULT
    shift: float = 0.06
    brightness: float = 0.2
    batchnorm_images: int = 512
    seed: int = 0
    threads: int = 0

    @staticmethod
    def of(dataset: Dataset, seed: int = 0, threads: int = 0) -> TrainingRecipe:
        """Return the recipe for a data set, in which digits get one more epoch for parents than other kinds.

        Args:
            dataset: Data set to train on.
            seed: Random seed.
            threads: Number of threads; 0 uses all cores available to this process.
        """
        return TrainingRecipe(parent_epochs=4 if dataset.kind == "digits" else 3, seed=seed, threads=threads)


def recipe_for(
    dataset: Dataset,
    seed: int,
    parent_epochs: int | None = None,
    distillation: float | None = None,
    temperature: float | None = None,
    augment: tuple[str, ...] | None = None,
) -> TrainingRecipe:
    """Return the recipe for a data set with the user's changes; None keeps the recipe's own value.

    Args:
        dataset: The recipe depends on its kind.
        seed: Random seed.
        parent_epochs: Training epochs of a parent.
        distillation: Weight of the teacher's logits in the loss, 0..1.
        temperature: Distillation temperature applied to the logits of teacher and student.
        augment: Enabled switches of `evaluators.training.augmentation`.
    """
    wanted: dict[str, Any] = {"parent_epochs": parent_epochs, "distillation": distillation, "temperature": temperature}
    wanted["augment"] = augment
    return replace(TrainingRecipe.of(dataset, seed=seed), **{name: v for name, v in wanted.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class ParentJob:
    """Request the training of a family's uncompressed network on the train split.

    Attributes:
        dataset: Data set.
        cache: Folder of decoded images.
        family: Architecture family.
        variant: Network of the family.
        image_px: Side of the input, in pixels.
        recipe: Training recipe.
        out: Path of the checkpoint.
        weights: Folder of weight files.
        download: Whether pretrained weights may be downloaded.
        progress: File that receives {"epoch", "epochs", "step", "steps", "loss"} during the training.
        seconds_max: Time limit, in s.
    """

    dataset: Dataset
    cache: Path
    family: str
    variant: str
    image_px: int
    recipe: TrainingRecipe
    out: Path
    weights: Path | None = None
    download: bool = False
    progress: Path | None = None
    seconds_max: float = math.inf


@dataclass(frozen=True, kw_only=True)
class CandidateJob:
    """Request a candidate's network, compressed from its trained parent without training."""

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
    """Request `epochs` more epochs of training for a saved network.

    Attributes:
        dataset: Data set.
        cache: Folder of decoded images.
        family: Architecture family.
        variant: Network of the family.
        image_px: Side of the input, in pixels.
        epochs: Additional epochs.
        recipe: Training recipe.
        teacher: File with the teacher's logits, which may be the parent's or another network's.
        net: Path of the saved network.
        out: Path of the fine-tuned network.
        progress: File that receives the progress, as in ParentJob.
        seconds_max: Time limit, in s.
    """

    dataset: Dataset
    cache: Path
    family: str
    variant: str
    image_px: int
    epochs: int
    recipe: TrainingRecipe
    teacher: Path
    net: Path
    out: Path
    progress: Path | None = None
    seconds_max: float = math.inf


CHECKPOINT = ".checkpoint"  # suffix of the state of an interrupted training

# Calibration methods for the range of a quantized activation, simplest first.
CALIBRATIONS = ("min-max", "percentile 99.999", "percentile 99.99", "percentile 99.9", "entropy")
QUICK = (CALIBRATIONS[0], CALIBRATIONS[2])  # one of these suffices for most networks
FITTED = "fitted"  # a search per tensor for the smallest error at its consumers


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """Configure the int8 ladder, which goes from cheap to expensive steps until the accuracy loss is small enough.

    Attributes:
        allowed_drop: Maximum accuracy loss against fp32, 0..1; or one standard error of the difference if that is
            larger.
        methods: Calibration methods to try.
        best: Whether to take the best method, rather than the first sufficient one.
        correct: Whether to apply cross-layer equalisation and bias correction.
        floating_macs: Maximum share of the multiply-accumulates that may return to floating point before weights are
            tuned; afterwards any share may.
        qat_epochs: Epochs of quantization-aware training; 0 disables it.
        qat_lr: Peak learning rate; batch norm is folded by then, and the weights need small changes only.
        images: Maximum number of validation images on which graphs are compared.
        second: Maximum number of training images on which a sufficient graph must prove sufficient again.
    """

    allowed_drop: float = 0.01
    methods: tuple[str, ...] = (*CALIBRATIONS, FITTED)
    best: bool = True
    correct: bool = True

    floating_macs: float = 0.25
    qat_epochs: int = 2
    qat_lr: float = 1e-4
    images: int = 1000
    second: int = 500

    def at(self, epochs: int, epochs_max: int) -> LadderConfig:
        """Return the steps that are worthwhile after `epochs` of a network's training.

        A freshly pruned network's int8 accuracy is not predictive yet, halfway through the training a sufficient method
        is as good as the best one, and layout and weights are decided when the training has ended.

        Args:
            epochs: Fine-tuning epochs so far.
            epochs_max: Fine-tuning epochs of the last rung; a polished network has more.
        """
        if epochs >= epochs_max:
            return self
        short = replace(self, floating_macs=0.0, qat_epochs=0, best=False, second=0)
        if not epochs:
            return replace(short, methods=self.methods[:1], correct=False)
        return replace(short, methods=tuple(name for name in self.methods if name in QUICK))


@dataclass(frozen=True, kw_only=True)
class TeacherJob:
    """Request a file with the logits of an ONNX classifier, for distillation.

    Attributes:
        dataset: Data set.
        cache: Folder of decoded images.
        file: ONNX file.
        image_px: Side of the input, in pixels.
        mean: Mean by channel of pixels / 255.
        std: Standard deviation by channel of pixels / 255.
        views: Views to compute logits of, the unchanged one first.
        out: Path of the file with the logits.
    """

    dataset: Dataset
    cache: Path
    file: Path
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    views: tuple[View, ...]
    out: Path


@dataclass(frozen=True, kw_only=True)
class GraphJob:
    """Request the export of a saved network at the candidate's precision.

    Attributes:
        candidate: Candidate to export.
        dataset: Data set.
        cache: Folder of decoded images.
        net: Path of the saved network.
        plain: Path of the fp32 graph, which all precisions share and which is written if it does not exist.
        out: Path of the exported graph.
        timed: Path of the same candidate's graph with random weights, which was timed.
        int8: Int8 recipe of the device, if it has int8.
        opset: Newest opset of the graph.
        runtimes: Runtimes in which the graph must load.
        calibration_images: Number of images for calibration.
        ladder: Configuration of the int8 ladder.
        recipe: Recipe of the quantization-aware training.
        given: Classifier that is exported in place of `net`.
        seconds_max: Time in s after which no further escalation level of int8 begins.
    """

    candidate: Candidate
    dataset: Dataset
    cache: Path
    net: Path
    plain: Path
    out: Path
    timed: Path
    int8: Int8Recipe | None
    opset: int
    runtimes: tuple[str, ...]
    calibration_images: int
    ladder: LadderConfig
    recipe: TrainingRecipe
    given: OnnxClassifier | None = None
    seconds_max: float = math.inf


@dataclass(frozen=True)
class ExportedGraph:
    """Describe the result of a GraphJob.

    Attributes:
        path: Path of the graph.
        rungs: Steps of the int8 ladder; empty for other precisions.
        relaid: Whether its operators differ from those of the graph that was timed.
        unfolded: Reason why it still has branches that a folded network has as one layer; known for the first precision
            only.
    """

    path: Path
    rungs: tuple[LadderStep, ...] = ()
    relaid: bool = False
    unfolded: str = ""


def checkpoint_path(out: Path) -> Path:
    """Return the path of the state of the training that writes `out`, from which it goes on after a kill."""
    return out.with_name(out.name + CHECKPOINT)


def beside(path: Path) -> Path:
    """Return the path of the JSON file that describes how a graph was made."""
    return path.with_suffix(".json")


def graph_from_json(path: Path) -> ExportedGraph:
    """Restore the ExportedGraph of an existing file from its JSON file."""
    told = json.loads(beside(path).read_text(encoding="utf-8"))
    return ExportedGraph(
        path, tuple(LadderStep(**rung) for rung in told["rungs"]), told["relaid"], told.get("unfolded", "")
    )


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """Describe the result of a training job.

    Attributes:
        path: File of the network.
        steps: Gradient steps of this job.
        epochs: Epochs since the network left its parent; for a parent, its own.
        loss: Mean loss of the last epoch; 0.0 without training.
        seconds: Duration, in s.
        start: Origin of a parent's initial weights.
    """

    path: Path
    steps: int
    epochs: int
    loss: float
    seconds: float
    start: str


class TrainingFailedError(CandidateFaultError):
    """Raised when the network itself is the reason that it can't be trained."""

    kind = FailureKind.CRASHED
