"""What makes an int8 graph of a trained network: rung by rung, until little enough accuracy is lost against fp32.

1. the calibration method that scores best; 2. cross-layer equalisation and bias correction, each where it scores
better; 3. the most sensitive layers back in floating point, the fewest that do; 4. quantization-aware fine-tuning.
Every rung is measured on the same images. Only the third changes which operators there are, and so the latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluators.jobs import Ladder
from evaluators.measurement import Rung, standard_error
from evaluators.quantizing.correcting import bias_corrected, equalised
from evaluators.quantizing.qdq import Plan, Ranges, layers, macs
from evaluators.quantizing.ranges import Histogram, extremes, histograms, ranges
from evaluators.quantizing.replay import NoSuchOperator
from evaluators.quantizing.scoring import Exam, decibels, logits
from remote.device import Int8Recipe

CORRECTION_IMAGES = 32  # their means are of thousands of values each
SENSITIVITY_IMAGES = 16

Histograms = dict[str, Histogram]
Tune = Callable[[Plan], Plan]  # the plan with weights fine-tuned for it; raises NoSuchOperator where it can't


@dataclass(frozen=True)
class Climbed:
    """The plan that was kept, its graph, and every rung that was tried."""

    plan: Plan
    graph: Any  # ModelProto
    rungs: tuple[Rung, ...]


def climb(
    plain: Any, recipe: Int8Recipe, exam: Exam, calibration: np.ndarray, ladder: Ladder, tune: Tune | None
) -> Climbed:
    """The int8 form of `plain` (from `prepared`). `calibration` are normalised images, none of the exam's."""
    way = _Way(exam, recipe, ladder, plain)
    method = _calibrated(way, calibration)
    if ladder.correct and not way.good:
        _corrected(way, calibration, method)
    whole = way.sure().plan  # fine-tuning goes on from here: it keeps the layout that was timed
    if ladder.floating_macs and not way.good:
        _floated(way, calibration[:SENSITIVITY_IMAGES])
    if ladder.qat_epochs and tune is not None and not way.good:
        _tuned(way, whole, tune)
    best = way.sure()
    return Climbed(best.plan, best.graph, tuple(way.rungs))


@dataclass(frozen=True)
class Found:
    """A plan, its graph (a ModelProto) and its accuracy."""

    plan: Plan
    graph: Any
    top1: float


class _Way:
    """The rungs so far and the best of them."""

    def __init__(self, exam: Exam, recipe: Int8Recipe, ladder: Ladder, plain: Any) -> None:
        self.exam, self.recipe, self.ladder, self.plain = exam, recipe, ladder, plain
        self.rungs: list[Rung] = []
        self.began = time.monotonic()
        self.fp32 = exam.top1(plain)
        count = len(exam.labels)
        noise = standard_error(round(self.fp32 * count), count)
        self.least = self.fp32 - max(ladder.allowed_drop, noise)
        self.best: Found | None = None
        self.tell("fp32", self.fp32, False)

    @property
    def good(self) -> bool:
        return self.best is not None and self.best.top1 >= self.least

    def sure(self) -> Found:
        assert self.best is not None  # calibration comes first and finds something
        return self.best

    def tell(self, name: str, top1: float, kept: bool, note: str = "") -> None:
        now = time.monotonic()
        self.rungs.append(Rung(name, top1, round(now - self.began, 3), kept, note))
        self.began = now

    def trial(self, name: str, plan: Plan, note: str = "", leaner: bool = False) -> float:
        """Accuracy of a plan, which is kept if it is the best so far; a `leaner` one if it is good enough."""
        graph = plan.graph()
        top1 = self.exam.top1(graph)
        better = self.best is None or top1 > self.best.top1 or (leaner and top1 >= self.least)
        if better:
            self.best = Found(plan, graph, top1)
        self.tell(name, top1, better, note)
        return top1


def _calibrated(way: _Way, images: np.ndarray) -> str:
    """The method that scored best. Every one is tried in turn; none after one that loses nothing."""
    counts, best = None, ""
    for method in way.ladder.methods:
        if method != "min-max":
            counts = counts or histograms(way.plain, images)
        before = way.best
        top1 = way.trial(f"int8 {method}", Plan(way.plain, way.recipe, _cut(way, way.plain, images, method, counts)))
        best = best if way.best is before else method
        if top1 >= way.fp32:
            break
    return best


def _cut(way: _Way, plain: Any, images: np.ndarray, method: str, counts: Histograms | None = None) -> Ranges:
    if method == "min-max":
        return extremes(plain, images)
    return ranges(counts or histograms(plain, images), method, way.recipe.symmetric)


def _corrected(way: _Way, images: np.ndarray, method: str) -> None:
    plain, pairs = equalised(way.plain)
    if pairs:
        plan = Plan(plain, way.recipe, _cut(way, plain, images, method))
        way.trial("equalised", plan, f"{pairs} pairs of convolutions")
    if way.good:
        return
    try:
        way.trial("bias corrected", bias_corrected(way.sure().plan, images[:CORRECTION_IMAGES]))
    except NoSuchOperator as error:
        way.tell("bias corrected", way.sure().top1, False, f"not done: {error}")


def _floated(way: _Way, images: np.ndarray) -> None:
    """The fewest of the most sensitive layers in floating point that do, by bisection; all that may be if none do."""
    base = way.sure().plan
    groups = layers(base.plain)
    order = sensitivity(base, images)
    counted, allowed = macs(base.plain), []
    room = way.ladder.floating_macs * sum(counted.values())
    for name in order:
        if counted[name] <= room:
            allowed.append(name)
            room -= counted[name]

    def tried(count: int) -> bool:
        names = allowed[:count]
        floating = frozenset(node for name in names for node in groups[name])
        share = sum(counted[name] for name in names) / max(1, sum(counted.values()))
        plan = replace(base, floating=floating)
        note = f"{share:.0%} of the multiply-accumulates, {names[0]} first"
        return way.trial(f"{count} layers in floating point", plan, note, leaner=way.good) >= way.least

    fewest, most = 0, len(allowed)
    if not most or not tried(most):
        return
    while most - fewest > 1:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if tried(middle) else (middle, most)


def sensitivity(plan: Plan, images: np.ndarray) -> list[str]:
    """Layers, the one first that alone in int8 disturbs the logits most."""
    whole, groups = logits(plan.plain, images), layers(plan.plain)
    every = frozenset(node.name for node in plan.plain.graph.node)
    heard = {}
    for name, nodes in groups.items():
        alone = replace(plan, floating=every - frozenset(nodes))
        heard[name] = decibels(whole, logits(alone.graph(), images))
    return sorted(heard, key=lambda name: heard[name])


def _tuned(way: _Way, whole: Plan, tune: Tune) -> None:
    name = f"fine-tuned {way.ladder.qat_epochs} epochs in int8"
    try:
        way.trial(name, tune(whole), "all layers in int8")
    except NoSuchOperator as error:
        way.tell(name, way.sure().top1, False, f"not done: {error}")
