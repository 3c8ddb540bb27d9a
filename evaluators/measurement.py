"""Define the measurements of a candidate as plain data: fractions are 0..1 and times in ms unless stated otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from evaluators.class_scores import Confusion, Error, errors_from_json
from evaluators.layer_precision import LayerPrecision
from remote.errors import FailureKind
from spaces.candidate import Candidate

TOP1, BALANCED, MACRO_F1 = "top1", "balanced", "macro-f1"
METRICS = {TOP1: "top-1 accuracy", BALANCED: "balanced accuracy", MACRO_F1: "macro-F1"}  # name -> display name

DISAGREEMENT = 0.005  # difference in top-1 between device and host above which one of them computes something else


@dataclass(frozen=True)
class Interval:
    """Hold an estimate with its two-sided confidence interval (95 % unless stated otherwise).

    `high` is infinite where the samples are too few for an upper bound. Such an interval can show that a limit is
    exceeded, but never that it is kept.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """Hold the raw measurements of one fresh process on the device, which times candidate and reference in turn.

    The four lists have equal length and one entry per pair.

    Attributes:
        wall_ms: Wall times of the candidate, in ms.
        cpu_ms: CPU times of the process, in ms; they stand for latency at one thread only.
        reference_wall_ms: Wall times of the reference, in ms.
        reference_cpu_ms: CPU times of the reference, in ms.
        peak_mb: Resident high-water mark of the process with the candidate alone loaded, in MB.
        runtime_mb: Resident size before any model was loaded, in MB.
        load_ms: Time of session creation, in which the runtime optimizes the graph, in ms.
        warmup_runs: Number of runs before the first sample.
        load_average: Load average of the device over 1 minute, at the end of the block.
        gpu_ms: GPU event times from enqueue to end, without copies, in ms; empty on a CPU.
        reference_gpu_ms: The same times of the reference, in ms.
        device_mb: Engine, activations and buffers in MB, where the runtime reports them.
        build_s: Build time of the engine in s; 0 where the engine existed already or there is none.
        energy_mj: Energy of one run above idle in mJ, where power can be read.
        during: Clocks, temperature and throttling while the block ran.
        disturbed: Reason why this block is not trustworthy; empty if it is.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    reference_wall_ms: tuple[float, ...]
    reference_cpu_ms: tuple[float, ...]
    peak_mb: float
    runtime_mb: float
    load_ms: float
    warmup_runs: int
    load_average: float
    gpu_ms: tuple[float, ...] = ()
    reference_gpu_ms: tuple[float, ...] = ()
    device_mb: float | None = None
    build_s: float = 0.0
    energy_mj: float | None = None
    during: Mapping[str, float] = field(default_factory=dict)
    disturbed: str = ""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Hold the timing of one graph on one device, reduced from its blocks.

    The upper end of `percentile_ms` decides whether the budget is kept. `rank_ms` orders candidates: it is the median
    ratio of the candidate to the reference timed right beside it, times the latency of the reference on the calm
    device. All values in ms hold at the pace of the calm device, at which the reference takes `reference_ms`.

    Attributes:
        percentile: Percentile that `percentile_ms` refers to, 0..100.
        percentile_ms: That percentile of the latency, in ms.
        median_ms: Median latency, in ms.
        rank_ms: Latency relative to the reference, in ms of the calm device.
        peak_mb: Peak memory of the process and of its allocations on a GPU, in MB.
        runtime_mb: Resident size before any model was loaded, in MB.
        load_ms: Time of session creation, in ms.
        samples: Number of samples.
        blocks: Number of blocks that the values are based on.
        repeated: Number of blocks that were timed again because they were disturbed.
        disturbed: Reason why even the repeated blocks were disturbed; empty if they were not.
        model_sha256: SHA-256 of the timed file.
        runtime_version: Version of the runtime.
        simulated: Whether the device is simulated.
        gpu_ms: Median by GPU events, in ms.
        build_s: Build time of the engine, in s.
        energy_mj: Energy of one run above idle, in mJ.
        runtime: Runtime in which the graph ran.
        reference_ms: Latency of the reference on the calm device, in ms; 0 where it was not recorded.
    """

    percentile: float
    percentile_ms: Interval
    median_ms: Interval
    rank_ms: Interval
    peak_mb: float
    runtime_mb: float
    load_ms: float
    samples: int
    blocks: int
    repeated: int
    disturbed: str
    model_sha256: str
    runtime_version: str
    simulated: bool = False
    gpu_ms: Interval | None = None
    build_s: float = 0.0
    energy_mj: float | None = None
    runtime: str = ""
    reference_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Describe a network before any training.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates of one image.
        onnx_bytes: Size of the graph to time, in bytes.
        parity_max_abs: Largest absolute difference between torch and the exported graph for the same random input.
        exporter: `torchscript`, `dynamo`, or `given` for a user's own graph.
        opset: ONNX opset of the graph.
        granularity: Number to whose multiples the operations round channel counts where nothing was measured; 0 if
            unknown.
        rounded_to: Rounding that pruning applied to its channel counts instead, as in `spaces/channel_rounding.py`.
        unfolded: Reason why the branches could not be folded into fewer layers; empty if none are left.
    """

    parameters: int
    macs: int
    onnx_bytes: int
    parity_max_abs: float
    exporter: str
    opset: int
    granularity: int = 0
    rounded_to: str = ""
    unfolded: str = ""


@dataclass(frozen=True, kw_only=True)
class LadderStep:
    """Describe one step of the int8 ladder, with its accuracy on the images that all steps were compared on.

    Attributes:
        name: fp32 | int8 min-max | ... | equalised | ... | 3 layers in floating point | ...
        top1: Top-1 accuracy, 0..1.
        seconds: Duration of the step, in s.
        kept: Whether the following steps started from this one.
        note: Remark for the report.
        floating: Number of layers in floating point.
        floating_macs: Share of those layers in the multiply-accumulates, 0..1.
    """

    name: str
    top1: float
    seconds: float
    kept: bool = False
    note: str = ""
    floating: int = 0
    floating_macs: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Hold the accuracy of the exported graph on one split, computed by the device's runtime.

    A search compares `score`, the value of `metric`. Entries written by earlier versions have no `class_counts` and no
    metric but top-1.

    Attributes:
        top1: Top-1 accuracy, 0..1.
        correct: Number of correctly classified images.
        count: Number of images.
        epochs: Fidelity: fine-tuning epochs spent on the structure (0: weights straight from the parent).
        split: `validation` or `test`.
        model_sha256: SHA-256 of the scored file.
        rungs: Steps of the int8 ladder, which ran on the host; empty for other precisions.
        relaid: Whether the graph's operators differ from those that were timed, so that it must be timed again.
        class_counts: Images by class; empty where no errors by class were recorded.
        errors: Misclassified images as (label, predicted class, images).
        metric: One of METRICS.
        unfolded: Reason why the branches of the trained network could not be folded; empty if none are left.
    """

    top1: float
    correct: int
    count: int
    epochs: int
    split: str
    model_sha256: str
    rungs: tuple[LadderStep, ...] = ()
    relaid: bool = False
    class_counts: tuple[int, ...] = ()
    errors: tuple[Error, ...] = ()
    metric: str = TOP1
    unfolded: str = ""

    @cached_property
    def confusion(self) -> Confusion | None:
        """Return the confusion matrix; None where no errors by class were recorded."""
        return Confusion(self.class_counts, self.errors) if self.class_counts else None

    @property
    def score(self) -> float:
        """Return the value of `metric`, 0..1."""
        return self.value_of(self.metric)

    def score_error(self) -> float:
        """Return the standard error of `score`."""
        return self.error_of(self.metric)

    def value_of(self, metric: str) -> float:
        """Return the value of a metric, 0..1.

        Args:
            metric: One of METRICS.

        Raises:
            ValueError: The metric is not top-1 and only top-1 was recorded.
        """
        return self._value_and_error(metric)[0]

    def error_of(self, metric: str) -> float:
        """Return the standard error of a metric.

        Args:
            metric: One of METRICS.

        Raises:
            ValueError: The metric is not top-1 and only top-1 was recorded.
        """
        return self._value_and_error(metric)[1]

    def standard_error(self) -> float:
        """Return the standard error of `top1` (Agresti-Coull, so that 0 and 1 do not imply certainty)."""
        return standard_error(self.correct, self.count)

    def _value_and_error(self, metric: str) -> tuple[float, float]:
        if metric == TOP1:
            return self.top1, self.standard_error()
        if self.confusion is None:
            raise ValueError(f"no {METRICS[metric]}: the confused classes were not recorded, only top-1")
        return self._by_class[metric]

    @cached_property
    def _by_class(self) -> dict[str, tuple[float, float]]:
        assert self.confusion is not None
        return {BALANCED: self.confusion.score_balanced(), MACRO_F1: self.confusion.macro_f1()}


def standard_error(correct: int, count: int) -> float:
    """Return the standard error of a share (Agresti-Coull, so that 0 and 1 do not imply certainty).

    Args:
        correct: Number of correct answers.
        count: Number of answers.
    """
    p = (correct + 2) / (count + 4)
    return (p * (1 - p) / (count + 4)) ** 0.5


def standard_error_of_difference(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the standard error of the difference between two accuracies on the same images.

    This is McNemar's: only images that exactly one of the two classifies correctly count. One image of either kind is
    added, so that few images do not imply certainty.

    Args:
        first: Whether each image is classified correctly by the first classifier.
        second: The same of the second classifier, in the same order.
    """
    count = len(first)
    won = 1 + sum(1 for a, b in zip(first, second, strict=True) if b and not a)
    lost = 1 + sum(1 for a, b in zip(first, second, strict=True) if a and not b)
    return float((won + lost - (won - lost) ** 2 / (count + 2)) ** 0.5 / (count + 2))


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Compare the engine that was timed on the device with the same graph on the host, on the validation images.

    Attributes:
        same: Number of images for which both predict the same class.
        count: Number of images.
        device_top1: Top-1 accuracy on the device, 0..1.
        host_top1: Top-1 accuracy on the host, 0..1.
        host: Runtime of the host, such as `onnxruntime 1.31.1`.
    """

    same: int
    count: int
    device_top1: float
    host_top1: float
    host: str

    @property
    def share(self) -> float:
        """Return the share of the images with the same prediction, 0..1."""
        return self.same / self.count

    @property
    def disagrees(self) -> bool:
        """Return True if the two accuracies differ by more than rounding explains."""
        return abs(self.device_top1 - self.host_top1) > DISAGREEMENT + 1e-9

    def warning(self, candidate: str) -> str:
        """Return a one-line warning if device and host disagree; empty if they agree."""
        if not self.disagrees:
            return ""
        device, host, share = (f"{100 * part:.1f} %" for part in (self.device_top1, self.host_top1, self.share))
        return (
            f"{candidate} classifies {device} of the validation images correctly on the device and {host} on the host "
            f"({self.host}), with the same graph; {share} get the same answer from both: use the device's number, "
            "and check what its runtime computes differently"
        )


FailedStage = Literal["structure", "latency", "accuracy", "coverage", "agreement"]


@dataclass(frozen=True)
class Failure:
    """Describe why a candidate failed. Only failures of the candidate itself inform the sampler.

    Attributes:
        stage: Stage of the evaluation that failed.
        kind: Kind of the failure.
        reason: One line.
    """

    stage: FailedStage
    kind: FailureKind
    reason: str


class Outcome(StrEnum):
    """Name how the evaluation of a candidate ended. The texts stand in journals, tables and reports.

    Attributes:
        KEPT: It was measured in full.
        OVER_BUDGET: It exceeds a limit of the budget.
        NO_GAIN: It is not faster than a less compressed candidate.
        UNPROMISING: Its accuracy after few epochs is too low.
        UNFINISHED: The time limit ended its training; the fidelity reached before counts.
        FAILED: It could not be built, run or trained.
        TIMED_ONLY: It never became a trial: a sampler requested its latency.
        TRIED_BRIEFLY: It never became a trial: a sampler requested its latency and a short training.
    """

    KEPT = "kept"
    OVER_BUDGET = "over budget"
    NO_GAIN = "no gain"
    UNPROMISING = "unpromising"
    UNFINISHED = "out of time"
    FAILED = "failed"
    TIMED_ONLY = "timed only"
    TRIED_BRIEFLY = "tried briefly"


SCREENED = (Outcome.TIMED_ONLY, Outcome.TRIED_BRIEFLY)
OUTCOMES = tuple(outcome for outcome in Outcome if outcome not in SCREENED)  # of trials, in the order of reports


@dataclass(frozen=True)
class Measurement:
    """Hold a candidate and all measurements of it, by stage; None for a stage that was not reached.

    Attributes:
        candidate: The candidate that was proposed.
        outcome: How its evaluation ended.
        reason: One line, for any outcome but KEPT.
        structure: Size and parity of the network.
        latency: Latency of its graph.
        accuracies: Validation accuracies, in order of epochs.
        test: Test accuracy of a finalist.
        coverage: Precision in which a finalist's layers really ran.
        agreement: Agreement of device and host on a finalist.
        confirmed: Whether it was timed again as a finalist, with its trained weights.
        model_path: Path of the scored graph, relative to the run folder.
        trial: Number of the trial in the study; -1 for none.
    """

    candidate: Candidate
    outcome: Outcome
    _: KW_ONLY
    reason: str = ""
    structure: Structure | None = None
    latency: Latency | None = None
    accuracies: tuple[Accuracy, ...] = ()
    test: Accuracy | None = None
    coverage: LayerPrecision | None = None
    agreement: Agreement | None = None
    confirmed: bool = False
    model_path: str = ""
    trial: int = -1

    @property
    def is_scored(self) -> bool:
        """Return True if no stage limit excluded it and it has an accuracy, even if time ran out in its training."""
        is_measured = self.latency is not None and self.accuracy is not None
        return is_measured and self.outcome in (Outcome.KEPT, Outcome.UNFINISHED)

    @property
    def accuracy(self) -> Accuracy | None:
        """Return the validation accuracy at the highest fidelity reached."""
        return self.accuracies[-1] if self.accuracies else None

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, with the score of each accuracy instead of its errors, which the ledger keeps."""
        plain = asdict(self) | {"candidate": self.candidate.to_dict(), "outcome": str(self.outcome)}
        plain["accuracies"] = [_summary(accuracy) for accuracy in self.accuracies]
        plain["test"] = _summary(self.test) if self.test else None
        return plain


def latency_from_dict(data: dict[str, Any]) -> Latency:
    """Restore a latency from JSON values.

    Args:
        data: The result of `asdict` for a Latency, after a round trip through JSON.

    Returns:
        The latency, its intervals restored too.
    """
    intervals = {k: Interval(**data[k]) for k in ("percentile_ms", "median_ms", "rank_ms", "gpu_ms") if data.get(k)}
    return Latency(**(data | intervals))


def accuracy_from_dict(data: dict[str, Any]) -> Accuracy:
    """Restore an accuracy from JSON values.

    Args:
        data: The result of `asdict` for an Accuracy, after a round trip through JSON; entries of earlier versions may
            lack `rungs`, `class_counts` and `errors`.

    Returns:
        The accuracy, its int8 steps and errors restored too.
    """
    rungs = tuple(LadderStep(**rung) for rung in data.get("rungs", ()))
    counts = tuple(int(count) for count in data.get("class_counts", ()))
    errors = errors_from_json(data.get("errors", ()))
    return Accuracy(**(data | {"rungs": rungs, "class_counts": counts, "errors": errors}))


def failure_from_dict(data: dict[str, Any]) -> Failure:
    """Restore a failure from JSON values.

    Args:
        data: The result of `asdict` for a Failure, after a round trip through JSON.

    Raises:
        ValueError: The kind is none of this version.
    """
    return Failure(**(data | {"kind": FailureKind(data["kind"])}))


def _summary(accuracy: Accuracy) -> dict[str, object]:
    """Return an accuracy as plain values, without those that grow with the number of classes."""
    plain = {name: value for name, value in asdict(accuracy).items() if name not in ("class_counts", "errors")}
    return plain | {"score": accuracy.score}


@dataclass(frozen=True, kw_only=True)
class WallTime:
    """Hold the wall time of a run by kind of work, in s."""

    structure: float = 0.0
    timing: float = 0.0
    training: float = 0.0
    scoring: float = 0.0
    wall: float = 0.0

    @property
    def other(self) -> float:
        """Return the seconds spent neither on training, evaluating (structure, scoring) nor timing."""
        return self.wall - self.structure - self.timing - self.training - self.scoring
