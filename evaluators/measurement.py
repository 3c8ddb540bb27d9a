"""All that is known of a candidate, as plain data. Fractions are 0..1, times ms unless named otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from evaluators.class_scores import Confusion, Error, errors_from_json
from evaluators.layer_precision import LayerPrecision
from spaces.candidate import Candidate

TOP1, BALANCED, MACRO_F1 = "top1", "balanced", "macro-f1"
METRICS = {TOP1: "top-1 accuracy", BALANCED: "balanced accuracy", MACRO_F1: "macro-F1"}  # name: as people call it

DISAGREEMENT = 0.005  # of top-1 between device and host: above it one of them computes something else


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval (95 % unless said otherwise).

    `high` is infinite where too few samples were taken for an upper bound: enough to say no, not to say yes.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fresh process on the device: candidate and reference timed in turn, raw.

    The four lists have equal length, one entry a pair, in ms. `cpu_ms` is the process's CPU time, which stands
    for latency at one thread only.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    reference_wall_ms: tuple[float, ...]
    reference_cpu_ms: tuple[float, ...]
    peak_mb: float  # resident high-water mark of the process with the candidate alone loaded
    runtime_mb: float  # resident size before any model was loaded
    load_ms: float  # session creation, which is where the runtime optimizes the graph
    warmup_runs: int
    load_average: float  # of the device when the block ended, 1 minute
    gpu_ms: tuple[float, ...] = ()  # by GPU events, from enqueue to end without copies; empty on a CPU
    reference_gpu_ms: tuple[float, ...] = ()
    device_mb: float | None = None  # engine, activations and buffers, where the runtime tells
    build_s: float = 0.0  # of the engine; 0 where it was there already or there is none
    energy_mj: float | None = None  # of one run, above idle, where power can be read
    during: Mapping[str, float] = field(default_factory=dict)  # clocks, temperature, throttling while it ran
    disturbed: str = ""  # empty, or why this block is not to be trusted


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Timing of one graph on one device, reduced from its blocks.

    `percentile_ms` judges the budget (its `high` end), `rank_ms` orders candidates: the median ratio of the
    candidate to the reference timed right beside it, times the reference's own latency on the calm device.
    """

    percentile: float  # 0..100, which percentile `percentile_ms` is
    percentile_ms: Interval
    median_ms: Interval
    rank_ms: Interval
    peak_mb: float  # of the process, and of what it holds on a GPU
    runtime_mb: float
    load_ms: float
    samples: int
    blocks: int  # blocks the numbers rest on
    repeated: int  # blocks timed again because they were disturbed
    disturbed: str  # empty, or why even the repeated blocks were
    model_sha256: str  # of the file that was timed
    runtime_version: str
    simulated: bool = False
    gpu_ms: Interval | None = None  # median by GPU events
    build_s: float = 0.0
    energy_mj: float | None = None  # of one run, above idle
    runtime: str = ""  # that it ran in
    reference_ms: float = 0.0  # of the reference, that `rank_ms` was scaled by; 0 where that was not written down


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The network itself, before any training."""

    parameters: int
    macs: int  # multiply-accumulates of one image
    onnx_bytes: int
    parity_max_abs: float  # largest difference between torch and the exported graph, same random input
    exporter: str  # torchscript | dynamo | given, by the user
    opset: int
    granularity: int = 0  # what operations round its channel counts to, where nothing was measured; 0: not told
    rounded_to: str = ""  # what pruning rounded its channel counts to instead, as in `spaces/channel_rounding.py`
    unfolded: str = ""  # why its branches could not be folded into fewer layers; empty: there are none left


@dataclass(frozen=True, kw_only=True)
class LadderStep:
    """One step of what an int8 graph took, with its accuracy on the images that steps were compared on."""

    name: str  # fp32 | int8 min-max | ... | equalised | ... | 3 layers in floating point | ...
    top1: float
    seconds: float
    kept: bool = False  # what came after went on from here
    note: str = ""
    floating: int = 0  # layers in floating point
    floating_macs: float = 0.0  # their share of the multiply-accumulates


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well the exported graph does on one split, run by the device's runtime.

    `epochs` is the fidelity: fine-tuning epochs spent on the structure (0: weights straight from the parent).
    `score` is what a search compares: the value of `metric`. Entries of earlier versions have no `class_counts`, and
    no metric but top-1.
    """

    top1: float
    correct: int
    count: int
    epochs: int
    split: str  # validation | test
    model_sha256: str
    rungs: tuple[LadderStep, ...] = ()  # what int8 took, on the host; empty for other precisions
    relaid: bool = False  # the graph's operators are not those that were timed: its latency must be taken again
    class_counts: tuple[int, ...] = ()  # images by class; empty where classes are not told apart
    errors: tuple[Error, ...] = ()  # (label, predicted class, images) of what was wrong
    metric: str = TOP1  # one of METRICS
    unfolded: str = ""  # why the trained network's branches could not be folded; empty: there are none left

    @cached_property
    def confusion(self) -> Confusion | None:
        """The confusion matrix; None where classes are not told apart."""
        return Confusion(self.class_counts, self.errors) if self.class_counts else None

    @property
    def score(self) -> float:
        """The value of `metric`, 0..1."""
        return self.value_of(self.metric)

    def score_error(self) -> float:
        """Return the standard error of `score`."""
        return self.error_of(self.metric)

    def value_of(self, metric: str) -> float:
        """Return the value of one of METRICS, 0..1. Raises ValueError where only top-1 is known."""
        return self._value_and_error(metric)[0]

    def error_of(self, metric: str) -> float:
        """Return its standard error. Raises ValueError where only top-1 is known."""
        return self._value_and_error(metric)[1]

    def standard_error(self) -> float:
        """Of `top1`, Agresti-Coull style so that 0 and 1 do not claim certainty."""
        return standard_error(self.correct, self.count)

    def _value_and_error(self, metric: str) -> tuple[float, float]:
        if metric == TOP1:
            return self.top1, self.standard_error()
        if self.confusion is None:
            raise ValueError(f"no {METRICS[metric]}: which classes were wrong was not recorded, top-1 alone is known")
        return self._by_class[metric]

    @cached_property
    def _by_class(self) -> dict[str, tuple[float, float]]:
        assert self.confusion is not None
        return {BALANCED: self.confusion.balanced(), MACRO_F1: self.confusion.macro_f1()}


def standard_error(correct: int, count: int) -> float:
    """Of a share, Agresti-Coull style so that 0 and 1 do not claim certainty."""
    p = (correct + 2) / (count + 4)
    return (p * (1 - p) / (count + 4)) ** 0.5


def standard_error_of_difference(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Standard error of the difference between two accuracies on the same images (McNemar's: only images that one
    has right and the other wrong count), with one image of either kind added so that few do not claim certainty."""
    count = len(first)
    won = 1 + sum(1 for a, b in zip(first, second, strict=True) if b and not a)
    lost = 1 + sum(1 for a, b in zip(first, second, strict=True) if a and not b)
    return float((won + lost - (won - lost) ** 2 / (count + 2)) ** 0.5 / (count + 2))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The engine that was timed on the device against the same graph on the host, on the validation images."""

    same: int  # images both give the same class
    count: int
    device_top1: float
    host_top1: float
    host: str  # what ran the graph here: onnxruntime 1.31.1

    @property
    def share(self) -> float:
        """Of the images, those with the same answer."""
        return self.same / self.count

    @property
    def disagrees(self) -> bool:
        """True if the two accuracies are further apart than rounding makes them."""
        return abs(self.device_top1 - self.host_top1) > DISAGREEMENT + 1e-9

    def warning(self, candidate: str) -> str:
        """One line where they disagree; empty where they do not."""
        if not self.disagrees:
            return ""
        device, host, share = (f"{100 * part:.1f} %" for part in (self.device_top1, self.host_top1, self.share))
        return (
            f"{candidate} has {device} of the validation images right on the device and {host} on the host "
            f"({self.host}), from the same graph; {share} get the same answer from both: trust the device's number, "
            "and look for what it computes otherwise"
        )


@dataclass(frozen=True)
class Failure:
    """Why a candidate could not go on. The candidate's own failures teach the sampler, others do not."""

    stage: str  # structure | latency | accuracy
    kind: str  # unbuildable | no_gain | unsupported | out_of_memory | crashed | timed_out | parity | device
    reason: str  # one line

    @property
    def candidates_own(self) -> bool:
        return self.kind != "device"


# What became of a trial. KEPT: measured in full. The rest ended at the named gate.
KEPT, OVER_BUDGET, NO_GAIN, UNPROMISING, FAILED = "kept", "over budget", "no gain", "unpromising", "failed"
UNFINISHED = "out of time"  # the time limit ended its training; what it reached before that counts
OUTCOMES = (KEPT, OVER_BUDGET, NO_GAIN, UNPROMISING, UNFINISHED, FAILED)
# What became of a candidate that never was a trial: its latency was wanted, or a short training beside it.
TIMED_ONLY, TRIED_BRIEFLY = "timed only", "tried briefly"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One candidate and everything measured of it, stage by stage; None where no stage came."""

    candidate: Candidate
    outcome: str
    reason: str = ""  # one line, for any outcome but KEPT
    structure: Structure | None = None
    latency: Latency | None = None
    accuracies: tuple[Accuracy, ...] = ()  # validation, in order of epochs
    test: Accuracy | None = None
    coverage: LayerPrecision | None = None  # of a finalist: in which precision its layers really ran
    agreement: Agreement | None = None  # of a finalist: device against host
    confirmed: bool = False  # timed again as a finalist, with its trained weights
    model_path: str = ""  # the scored graph, relative to the run folder
    trial: int = -1  # number in the study

    @property
    def is_scored(self) -> bool:
        """True if no gate stopped it, and it has an accuracy: the time limit may have ended its training before."""
        return self.outcome in (KEPT, UNFINISHED) and self.latency is not None and self.accuracy is not None

    @property
    def accuracy(self) -> Accuracy | None:
        """Validation accuracy at the highest fidelity reached."""
        return self.accuracies[-1] if self.accuracies else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: of each accuracy its score instead of its errors, which the ledger keeps."""
        plain = asdict(self) | {"candidate": self.candidate.to_dict()}
        plain["accuracies"] = [_summary(accuracy) for accuracy in self.accuracies]
        plain["test"] = _summary(self.test) if self.test else None
        return plain


def latency_from_dict(data: dict[str, Any]) -> Latency:
    """The Latency whose `asdict` was `data`."""
    intervals = {k: Interval(**data[k]) for k in ("percentile_ms", "median_ms", "rank_ms", "gpu_ms") if data.get(k)}
    return Latency(**(data | intervals))


def accuracy_from_dict(data: dict[str, Any]) -> Accuracy:
    """The Accuracy whose `asdict` was `data`."""
    rungs = tuple(LadderStep(**rung) for rung in data.get("rungs", ()))
    counts = tuple(int(count) for count in data.get("class_counts", ()))
    errors = errors_from_json(data.get("errors", ()))
    return Accuracy(**(data | {"rungs": rungs, "class_counts": counts, "errors": errors}))


def _summary(accuracy: Accuracy) -> dict[str, Any]:
    """Return an accuracy as plain values without what grows with the number of classes."""
    plain = {name: value for name, value in asdict(accuracy).items() if name not in ("class_counts", "errors")}
    return plain | {"score": accuracy.score}


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Where a run's wall time went."""

    structure: float = 0.0
    timing: float = 0.0
    training: float = 0.0
    scoring: float = 0.0
    wall: float = 0.0

    @property
    def other(self) -> float:
        """Neither training, evaluating (structure, scoring) nor timing."""
        return self.wall - self.structure - self.timing - self.training - self.scoring
