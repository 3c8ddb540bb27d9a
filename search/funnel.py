"""The way of one candidate: from cheap stages to dear ones, stopped at the first gate it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.evaluator import Evaluator
from evaluators.measurement import (
    FAILED,
    KEPT,
    NO_GAIN,
    OVER_BUDGET,
    UNPROMISING,
    Accuracy,
    Failure,
    Latency,
    Measurement,
)
from search.budget import Budget
from spaces.candidate import Candidate


@dataclass(frozen=True)
class Gates:
    """Where candidates are stopped."""

    budget: Budget
    rungs: tuple[int, ...] = (0, 1, 3)  # fine-tuning epochs at which the promising are told from the rest
    patience_se: float = 2.0  # standard errors a candidate may lie behind a rival that is no slower
    brief_epochs: int | None = None  # of the low fidelity that a sampler may ask for; None: there is none

    @property
    def epochs_max(self) -> int:
        return self.rungs[-1]


def evaluate(
    candidate: Candidate,
    evaluator: Evaluator,
    gates: Gates,
    rivals: Sequence[Measurement],
    plain: bool,
    tell: Callable[[str], None],
) -> Measurement:
    """Everything that could be measured of a candidate before a gate stopped it.

    `rivals` are the measurements so far; `tell` is called with a line before each stage. A `plain` network, of
    which the greedy choice is one, is scored even above the budget.
    """
    so_far = before_training(candidate, evaluator, gates, tell)
    if so_far.outcome == KEPT:
        return _scored(so_far, evaluator, gates, rivals, tell)
    if so_far.outcome == OVER_BUDGET and plain:
        return _scored(so_far, evaluator, replace(gates, rungs=gates.rungs[:1]), (), tell)
    return so_far


def before_training(
    candidate: Candidate, evaluator: Evaluator, gates: Gates, tell: Callable[[str], None]
) -> Measurement:
    """Structure and latency of a candidate; its outcome is KEPT if every gate before a training lets it pass."""
    so_far = Measurement(candidate, KEPT)
    tell(f"structure of {candidate.describe()}")
    structure = evaluator.structure(candidate)
    if isinstance(structure, Failure):
        return _failed(so_far, structure)
    so_far = replace(so_far, structure=structure)
    tell(f"timing {candidate.describe()}")
    latency = evaluator.latency(candidate, gates.budget.latency_ms)
    if isinstance(latency, Failure):
        return _failed(so_far, latency)
    so_far = replace(so_far, latency=latency)
    if not gates.budget.keeps(latency):
        return replace(so_far, outcome=OVER_BUDGET, reason=over(gates.budget, latency))
    if slower := _slower_than_uncut(candidate, latency, evaluator, gates, tell):
        return replace(so_far, outcome=NO_GAIN, reason=slower)
    return so_far


def over(budget: Budget, latency: Latency) -> str:
    """Which limits are missed and by how much, one line."""
    parts = []
    if budget.excess_ms(latency) > 0:
        interval = latency.percentile_ms
        if interval.low > budget.latency_ms:
            how = f"{interval.value:.3g} ms (at least {interval.low:.3g})"
        elif math.isfinite(interval.high):
            how = f"may reach {interval.high:.3g} ms"
        else:
            how = f"{interval.value:.3g} ms on {latency.samples} samples, too few for a bound, may be"
        parts.append(f"p{latency.percentile:g} {how} > {budget.latency_ms:g}")
    if budget.excess_mb(latency) > 0:
        parts.append(f"peak {latency.peak_mb:.0f} MB > {budget.peak_mb:g}")
    return ", ".join(parts)


def promising(accuracy: Accuracy, latency: Latency, gates: Gates, rivals: Sequence[Measurement]) -> str:
    """Why a candidate need not be trained on, one line; empty if it should.

    It is let go when a rival that is no slower was, after no more epochs, better by more than noise allows. Not
    before its first epoch: what was just cut says nothing of what it will be.
    """
    if accuracy.epochs == 0:
        return ""
    for rival in rivals:
        if rival.latency is None or rival.latency.rank_ms.value > latency.rank_ms.value:
            continue
        reached = [a for a in rival.accuracies if a.epochs <= accuracy.epochs]
        if not reached:
            continue
        best = max(reached, key=lambda a: a.top1)
        noise = gates.patience_se * (best.standard_error() ** 2 + accuracy.standard_error() ** 2) ** 0.5
        if best.top1 - accuracy.top1 > noise:
            return (
                f"{100 * accuracy.top1:.1f} % after {accuracy.epochs} epochs where trial {rival.trial}, "
                f"no slower, had {100 * best.top1:.1f} % after {best.epochs}"
            )
    return ""


def _scored(
    so_far: Measurement,
    evaluator: Evaluator,
    gates: Gates,
    rivals: Sequence[Measurement],
    tell: Callable[[str], None],
) -> Measurement:
    """The measurement with its accuracies, rung by rung."""
    for epochs in gates.rungs:
        tell(f"accuracy of {so_far.candidate.describe()} after {epochs} epochs")
        accuracy = evaluator.accuracy(so_far.candidate, epochs)
        if isinstance(accuracy, Failure):
            return _failed(so_far, accuracy)
        path = evaluator.model_path(so_far.candidate, epochs)
        so_far = replace(so_far, accuracies=(*so_far.accuracies, accuracy), model_path=path)
        assert so_far.latency is not None
        why = promising(accuracy, so_far.latency, gates, rivals)
        if why and epochs != gates.epochs_max:
            return replace(so_far, outcome=UNPROMISING, reason=why)
    return _timed_again(so_far, evaluator, gates, tell)


def _timed_again(so_far: Measurement, evaluator: Evaluator, gates: Gates, tell: Callable[[str], None]) -> Measurement:
    """The measurement with the latency of the graph that was scored, where that is not laid out as the timed one.

    int8 may have put layers back into floating point, which only training could tell.
    """
    if so_far.accuracy is None or not so_far.accuracy.relaid:
        return so_far
    tell(f"timing {so_far.candidate.describe()} again: its trained graph has other operators")
    latency = evaluator.confirm(so_far.candidate, so_far.accuracy.epochs)
    if isinstance(latency, Failure):
        return _failed(so_far, latency)
    so_far = replace(so_far, latency=latency)
    if so_far.outcome == KEPT and not gates.budget.keeps(latency):
        return replace(so_far, outcome=OVER_BUDGET, reason=over(gates.budget, latency))
    return so_far


def _slower_than_uncut(
    candidate: Candidate,
    latency: Latency,
    evaluator: Evaluator,
    gates: Gates,
    tell: Callable[[str], None],
) -> str:
    """Why a compressed candidate is not worth training: the network it was cut from is as fast."""
    if not candidate.steps:
        return ""
    uncut = candidate.uncut()
    tell(f"timing {uncut.describe()}, which it was cut from")
    if isinstance(evaluator.structure(uncut), Failure):
        return ""
    before = evaluator.latency(uncut, gates.budget.latency_ms)
    if isinstance(before, Failure) or latency.rank_ms.value < before.rank_ms.value:
        return ""
    return (
        f"{latency.rank_ms.value:.3g} ms, no faster than the {before.rank_ms.value:.3g} ms "
        f"of {uncut.describe()} it was cut from"
    )


def _failed(so_far: Measurement, failure: Failure) -> Measurement:
    return replace(so_far, outcome=FAILED, reason=f"{failure.stage}, {failure.kind}: {failure.reason}")
