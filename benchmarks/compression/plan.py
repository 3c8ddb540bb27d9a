"""Define the measured rows: data sets, their networks, and the treatments of a network."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.training.jobs import LadderConfig
from remote.device import Int8Recipe
from spaces.candidate import Candidate

WHOLE_LADDER = LadderConfig()
FIRST_RUNG = LadderConfig(methods=("min-max",), correct=False, floating_macs=0.0, qat_epochs=0, second=0)


@dataclass(frozen=True)
class Way:
    """Describe a way to int8 graphs, with a folder of its own, since the evaluator names files by candidate alone."""

    folder: str
    ladder: LadderConfig = WHOLE_LADDER
    int8: Int8Recipe | None = None  # None: the device's own recipe


LADDER, PTQ = Way("ladder"), Way("ptq", FIRST_RUNG)
TENSORRT = Way("tensorrt", int8=Int8Recipe("int8", symmetric=True, weight_bits=8))


@dataclass(frozen=True)
class Treatment:
    """Describe the compression of a network, with its name in the tables."""

    name: str
    steps: tuple[tuple[str, float], ...] = ()
    precision: str = "fp32"
    way: Way = LADDER


FP32, FP16 = Treatment("fp32"), Treatment("fp16", precision="fp16")
INT8_PTQ = Treatment("int8 PTQ", precision="int8", way=PTQ)
INT8 = Treatment("int8 ladder", precision="int8")
INT8_TENSORRT = Treatment("int8 ladder, for TensorRT", precision="int8", way=TENSORRT)
AS_IT_IS = (FP32, FP16, INT8_PTQ, INT8)
PRUNED = tuple(Treatment(f"prune {amount}", (("prune", amount),)) for amount in (0.3, 0.5, 0.7))
PRUNED_INT8 = tuple(Treatment(f"{t.name} + int8", t.steps, "int8") for t in PRUNED[:2])
LOW_RANK = Treatment("lowrank 0.5", (("lowrank", 0.5),))
TABLE = (*AS_IT_IS, *PRUNED, *PRUNED_INT8, LOW_RANK)
GRID = (FP32, INT8, *PRUNED[:2], *PRUNED_INT8)  # treatments of the joint front at smaller input sizes


@dataclass(frozen=True)
class Net:
    """Describe a network at the input size at which its parent is trained."""

    family: str
    variant: str
    image_px: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe a data set, its networks, and their training.

    Attributes:
        data: Name of the data set.
        nets: The networks.
        parent_epochs: Training epochs of a parent; 0 if its weights are for these very classes.
        epochs: Fine-tuning epochs of a compressed network.
        plain_epochs: Fine-tuning epochs of an uncompressed network.
        treatments: Treatments in the tables.
        smaller: Further input sizes in px, with their treatments.
    """

    data: str
    nets: tuple[Net, ...]
    parent_epochs: int
    epochs: int
    plain_epochs: int
    treatments: tuple[Treatment, ...] = TABLE
    smaller: tuple[tuple[int, tuple[Treatment, ...]], ...] = ()


@dataclass(frozen=True)
class Row:
    """Describe one candidate to measure."""

    data: str
    treatment: Treatment
    candidate: Candidate
    epochs: int

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Return the key of the row in the results."""
        return self.data, self.candidate.variant, self.candidate.image_px, self.treatment.name


TASKS = {
    "neu_cls": Task(
        data="neu_cls",
        nets=(
            Net("mobilenet_v2", "mobilenet_v2", 96),
            Net("timm", "tf_mobilenetv3_small_100", 96),
            Net("timm", "tf_efficientnet_lite0", 96),
        ),
        parent_epochs=3,
        epochs=3,
        plain_epochs=3,
        smaller=((60, (FP32, INT8)), (72, GRID), (84, (FP32, INT8))),
    ),
    "cifar10_subset": Task(
        data="cifar10_subset",
        nets=tuple(Net("cifar_resnet", f"cifar_resnet{depth}", 32) for depth in (20, 32, 44, 56)),
        parent_epochs=0,
        epochs=1,
        plain_epochs=0,
    ),
    "imagenet_val700": Task(
        data="imagenet_val700",
        nets=(
            Net("mobilenet_v2", "mobilenet_v2", 224),
            Net("timm", "tf_mobilenetv3_small_100", 224),
            Net("timm", "tf_efficientnet_lite0", 224),
        ),
        parent_epochs=0,
        epochs=0,
        plain_epochs=0,
        treatments=(*AS_IT_IS, INT8_TENSORRT),
    ),
    "digits": Task(  # the small form, with embedded images
        data="digits",
        nets=(Net("tiny_resnet", "res8_w8_s2", 24),),
        parent_epochs=2,
        epochs=1,
        plain_epochs=1,
    ),
}


def table_rows(task: Task) -> list[Row]:
    """Return the rows of the tables, network by network."""
    return [_row(task, net, net.image_px, treatment) for net in task.nets for treatment in task.treatments]


def front_rows(task: Task) -> list[Row]:
    """Return the further rows of the joint front."""
    return [
        _row(task, net, image_px, treatment)
        for net in task.nets
        for image_px, treatments in task.smaller
        for treatment in treatments
    ]


def _row(task: Task, net: Net, image_px: int, treatment: Treatment) -> Row:
    candidate = Candidate(
        family=net.family, variant=net.variant, image_px=image_px, steps=treatment.steps, precision=treatment.precision
    )
    return Row(task.data, treatment, candidate, task.epochs if treatment.steps else task.plain_epochs)
