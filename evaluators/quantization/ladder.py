"""Quantize a trained network to int8 step by step, until the accuracy loss against fp32 is small enough.

The steps are: 1. the calibration method that scores best; 2. cross-layer equalisation and bias correction, each where
it scores better; 3. the most sensitive layers back in floating point, as few as suffice, up to a share of the work;
4. quantization-aware fine-tuning; 5. as many layers in floating point as needed, of the tuned network or, if that does
not suffice, of the untuned: the last of these is fp32 itself, so that the ladder always reaches its goal.
Every step is measured on the same images. Of two that differ by less than the standard error of their difference, the
one is better whose logits are closer to fp32's, since logits tell more than a few hundred right or wrong answers. Among
many steps one may suffice on a few hundred images by chance, so a sufficient step is scored again on other images.
Only steps 3 and 5 change the operators, and so the latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from evaluators.measurement import LadderStep, standard_error_of_difference
from evaluators.quantization.calibration import Histogram, extremes, histograms, ranges
from evaluators.quantization.host_scoring import EvaluationSet, decibels, logits
from evaluators.quantization.qdq import QuantizationPlan, Ranges, layers, macs
from evaluators.quantization.range_search import fit_ranges
from evaluators.quantization.torch_graph import UnknownOperatorError
from evaluators.quantization.weight_correction import bias_corrected, equalise
from evaluators.training.jobs import FITTED, LadderConfig
from evaluators.training.time_allowance import OutOfTimeError
from remote.device import Int8Recipe

CORRECTION_IMAGES = 32  # enough, since each mean is over thousands of values
FITTING_IMAGES = 32
SENSITIVITY_IMAGES = 16

Histograms = dict[str, Histogram]
Tune = Callable[
    [QuantizationPlan], QuantizationPlan
]  # returns the plan with fine-tuned weights; raises UnknownOperatorError if it can't


@dataclass(frozen=True)
class LadderResult:
    """Hold the chosen plan and all steps that were tried.

    Attributes:
        plan: Chosen plan.
        graph: ModelProto of the plan.
        rungs: Steps in the order in which they were tried.
    """

    plan: QuantizationPlan
    graph: ModelProto
    rungs: tuple[LadderStep, ...]


def climb(
    plain: ModelProto,
    recipe: Int8Recipe,
    exam: EvaluationSet,
    calibration: np.ndarray,
    ladder: LadderConfig,
    tune: Tune | None,
    second: Callable[[], EvaluationSet] | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> LadderResult:
    """Quantize a graph to int8.

    A step that suffices on `exam` must also suffice on the `second` set. Once `is_late` returns True, no further
    escalation level begins, and the best graph so far is kept.

    Args:
        plain: Float32 ModelProto from `prepare`.
        recipe: Int8 recipe of the device.
        exam: Images on which all steps are compared.
        calibration: Normalised calibration images, float32 (N, 3, H, W), none of which are in `exam`.
        ladder: Configuration of the ladder.
        tune: Fine-tunes a plan; None skips that step.
        second: Returns the images on which a sufficient step is scored again; None skips that.
        is_late: Returns whether the time is over.
    """
    way = _LadderState(exam, recipe, ladder=ladder, plain=plain, second=second, is_late=is_late)
    method = _choose_calibration(way, calibration)
    calibrated = even = way.require_best().plan
    if ladder.correct and not way.ended:
        even = _correct_biases(way, calibration, method)
    whole = way.require_best().plan  # fine-tuning starts from here: it keeps the layout that was timed
    order: list[str] = []
    if ladder.floating_macs and not way.ended:
        order = sensitivity(even, calibration[:SENSITIVITY_IMAGES])
        _float_layers(way, even, order, ladder.floating_macs)
    learned = _tune(way, whole, tune) if ladder.qat_epochs and tune is not None and not way.ended else None
    for base, of in ((learned, ", fine-tuned"), (calibrated, "")):
        if order and base is not None and not way.ended:
            _float_layers(way, base, order, 1.0, of)
    best = way.require_best()
    return LadderResult(best.plan, best.graph, tuple(way.rungs))


@dataclass(frozen=True, kw_only=True)
class ScoredPlan:
    """Hold a plan, its graph and its scores.

    Attributes:
        plan: Plan that was scored.
        graph: ModelProto of the plan.
        right: Whether each image is classified correctly.
        near_db: Signal-to-noise ratio of its logits against fp32's, in dB.
        good: Whether its accuracy loss is small enough.
    """

    plan: QuantizationPlan
    graph: ModelProto
    right: list[bool]
    near_db: float
    good: bool

    @property
    def top1(self) -> float:
        """Return the top-1 accuracy, 0..1."""
        return sum(self.right) / len(self.right)

    def better(self, other: ScoredPlan) -> bool:
        """Return True if this plan is better: by accuracy where the difference is significant, else by its logits."""
        if self.good != other.good:
            return self.good
        if abs(self.top1 - other.top1) > standard_error_of_difference(self.right, other.right):
            return self.top1 > other.top1
        return self.near_db > other.near_db


class _LadderState:
    """Hold the steps so far and the best of them."""

    def __init__(
        self,
        exam: EvaluationSet,
        recipe: Int8Recipe,
        ladder: LadderConfig,
        plain: ModelProto,
        second: Callable[[], EvaluationSet] | None,
        is_late: Callable[[], bool],
    ) -> None:
        self.exam, self.recipe, self.ladder, self.plain = exam, recipe, ladder, plain
        self.rungs: list[LadderStep] = []
        self.is_late = is_late
        self.began = time.monotonic()
        self.macs = macs(plain)
        self.logits = logits(plain, exam.images)
        self.right: list[bool] = exam.grade(self.logits).tolist()
        self.fp32 = sum(self.right) / len(self.right)
        self.second = second if ladder.second else None
        self.others: tuple[EvaluationSet, list[bool]] | None = (
            None  # the second set and fp32's results on it, once they are needed
        )
        self.best: ScoredPlan | None = None
        self.tell("fp32", self.fp32, False)

    @property
    def good(self) -> bool:
        """Return True if the best plan so far suffices."""
        return self.best is not None and self.best.good

    @property
    def ended(self) -> bool:
        """Return True if the best plan so far suffices, or no time is left."""
        return self.good or self.is_late()

    def require_best(self) -> ScoredPlan:
        assert self.best is not None  # calibration comes first and always finds a plan
        return self.best

    def tell(self, name: str, top1: float, kept: bool, note: str = "", plan: QuantizationPlan | None = None) -> None:
        now = time.monotonic()
        floating = (plan.floating if plan else frozenset()) & self.macs.keys()
        share = sum(self.macs[name] for name in floating) / max(1, sum(self.macs.values()))
        self.rungs.append(
            LadderStep(
                name=name,
                top1=top1,
                seconds=round(now - self.began, 3),
                kept=kept,
                note=note,
                floating=len(floating),
                floating_macs=round(share, 4),
            )
        )
        self.began = now

    def trial(self, name: str, plan: QuantizationPlan, note: str = "", leaner: bool = False) -> ScoredPlan:
        """Score a plan and keep it if it is the best so far, or, for a `leaner` one, if it suffices."""
        graph = plan.graph()
        out = logits(graph, self.exam.images)
        right: list[bool] = self.exam.grade(out).tolist()
        good = self.close(self.right, right)
        if good and (lost := self.describe_second_loss(graph)):
            good, note = False, "; ".join(filter(None, [note, lost]))
        found = ScoredPlan(plan=plan, graph=graph, right=right, near_db=decibels(self.logits, out), good=good)
        better = self.best is None or (found.good if leaner else found.better(self.best))
        if better:
            self.best = found
        self.tell(name, found.top1, better, "; ".join([*filter(None, [note]), f"{found.near_db:.0f} dB"]), plan)
        return found

    def close(self, whole: list[bool], right: list[bool]) -> bool:
        """Return True if few enough correct answers are lost."""
        allowed = max(self.ladder.allowed_drop, standard_error_of_difference(whole, right))
        return (sum(whole) - sum(right)) / len(right) <= allowed + 1e-9

    def describe_second_loss(self, graph: ModelProto) -> str:
        """Return how much too much is lost on the second set; empty if the loss is small enough."""
        if self.second is None:
            return ""
        if self.others is None:
            exam = self.second()
            self.others = exam, exam.grade(logits(self.plain, exam.images)).tolist() if len(exam.labels) else []
        exam, whole = self.others
        if not whole or self.close(whole, right := exam.grade(logits(graph, exam.images)).tolist()):
            return ""
        points = 100 * (sum(whole) - sum(right)) / len(whole)
        return f"loses {points:.1f} points on {len(whole)} training images"


def _choose_calibration(way: _LadderState, images: np.ndarray) -> str:
    """Return the best method. All are tried in turn, but none after the first if that loses nothing.

    If the best method is not requested, none is tried after one that suffices.
    """
    counts, best = None, ""
    for method in way.ladder.methods:
        if best and way.is_late():
            break
        if method == FITTED and way.good:
            continue  # it takes as long as all other methods together
        if method not in ("min-max", FITTED):
            counts = counts or histograms(way.plain, images)
        before = way.best
        try:
            cut = _cut(way, way.plain, images, method, counts)
        except UnknownOperatorError as error:
            way.tell(f"int8 {method}", way.require_best().top1, False, f"not done: {error}")
            continue
        top1 = way.trial(f"int8 {method}", QuantizationPlan(way.plain, way.recipe, cut)).top1
        best = best if way.best is before else method
        if (method == way.ladder.methods[0] and top1 >= way.fp32) or (way.good and not way.ladder.best):
            break
    return best


def _cut(
    way: _LadderState, plain: ModelProto, images: np.ndarray, method: str, counts: Histograms | None = None
) -> Ranges:
    if method == "min-max":
        return extremes(plain, images)
    if method == FITTED:
        return fit_ranges(plain, images[:FITTING_IMAGES], extremes(plain, images), way.recipe)
    return ranges(counts or histograms(plain, images), method, way.recipe.symmetric)


def _correct_biases(way: _LadderState, images: np.ndarray, method: str) -> QuantizationPlan:
    """Return the best plan with the biases of fp32.

    Corrected biases compensate for errors that a layer in floating point, or a layer after it, does not have.
    """
    plain, pairs = equalise(way.plain)
    if pairs:
        plan = QuantizationPlan(plain, way.recipe, _cut(way, plain, images, method))
        way.trial("equalised", plan, f"{pairs} pairs of convolutions")
    even = way.require_best().plan
    if way.ended:
        return even
    try:
        way.trial("bias corrected", bias_corrected(even, images[:CORRECTION_IMAGES]))
    except UnknownOperatorError as error:
        way.tell("bias corrected", way.require_best().top1, False, f"not done: {error}")
    return even


def _float_layers(way: _LadderState, base: QuantizationPlan, order: list[str], share: float, of: str = "") -> None:
    """Find by bisection the fewest of the first layers in floating point that suffice; try all allowed ones first."""
    groups, counted, allowed = layers(base.plain), way.macs, []
    whole = max(1, sum(counted.values()))
    room = share * whole
    for name in order:
        if counted[name] <= room + 1e-9 * whole:
            allowed.append(name)
            room -= counted[name]

    def tried(count: int, leaner: bool) -> bool:
        names = allowed[:count]
        plan = replace(base, floating=frozenset(node for name in names for node in groups[name]))
        layers_ = "layer" if count == 1 else "layers"
        return way.trial(f"{count} {layers_} in floating point{of}", plan, f"{names[0]} first", leaner).good

    fewest, most = 0, len(allowed)
    if not most or not tried(most, False):
        return
    while most - fewest > 1 and not way.is_late():
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if tried(middle, True) else (middle, most)


def sensitivity(plan: QuantizationPlan, images: np.ndarray) -> list[str]:
    """Return the layers by sensitivity: first the one that disturbs the logits most when it alone is in int8.

    Args:
        plan: Int8 plan.
        images: Normalised images, float32 (N, 3, H, W).
    """
    whole, groups = logits(plan.plain, images), layers(plan.plain)
    every = frozenset(node.name for node in plan.plain.graph.node)
    heard = {}
    for name, nodes in groups.items():
        alone = replace(plan, floating=every - frozenset(nodes))
        heard[name] = decibels(whole, logits(alone.graph(), images))
    return sorted(heard, key=lambda name: heard[name])


def _tune(way: _LadderState, whole: QuantizationPlan, tune: Tune) -> QuantizationPlan | None:
    name = f"fine-tuned {way.ladder.qat_epochs} epochs in int8"
    try:
        return way.trial(name, tune(whole), "all layers in int8").plan
    except (UnknownOperatorError, OutOfTimeError) as error:
        way.tell(name, way.require_best().top1, False, f"not done: {error}")
        return None
