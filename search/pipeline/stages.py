"""Evaluate one candidate stage by stage, from cheap to expensive, and stop at the first limit that it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.evaluator import Evaluator
from evaluators.measurement import Accuracy, Failure, Latency, Measurement, Outcome
from evaluators.training.time_allowance import OutOfTimeError
from search.budget import Budget
from spaces.candidate import Candidate, NoGainError


def uncut_alone(candidate: Candidate) -> tuple[Candidate, ...]:
    """Return the uncompressed original of a compressed candidate, which it must at least be faster than."""
    return (candidate.uncut(),) if candidate.steps else ()


@dataclass(frozen=True, kw_only=True)
class StageLimits:
    """Hold the limits at which candidates are stopped.

    Attributes:
        budget: Limits of latency, memory and accuracy.
        rungs: Fine-tuning epochs after which unpromising candidates are pruned, ascending.
        patience_se: Standard errors by which a candidate may be less accurate than a rival that is no slower.
        brief_epochs: Epochs of the low fidelity that a sampler may request; None if there is none.
        less_cut: Function that returns the less compressed candidates that a compressed one must be faster than.
        is_baseline: Function that returns whether a candidate is the greedy baseline, an uncompressed network that is
            scored even over the budget.
    """

    budget: Budget
    rungs: tuple[int, ...] = (0, 1, 3)
    patience_se: float = 2.0
    brief_epochs: int | None = None
    less_cut: Callable[[Candidate], Sequence[Candidate]] = uncut_alone
    is_baseline: Callable[[Candidate], bool] = lambda candidate: False

    @property
    def epochs_max(self) -> int:
        """Return the epochs of the last rung."""
        return self.rungs[-1]

    def rungs_of(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the epochs after which a candidate is scored: a fixed one is scored once, without training."""
        return (0,) if candidate.fixed else self.rungs


def evaluate(
    candidate: Candidate,
    evaluator: Evaluator,
    gates: StageLimits,
    rivals: Sequence[Measurement],
    tell: Callable[[str], None],
) -> Measurement:
    """Return everything that was measured of a candidate before a stage limit stopped it.

    Args:
        candidate: Candidate to measure.
        evaluator: Evaluator that measures it.
        gates: Stage limits. Over the budget, only the baseline is trained, up to the first rung.
        rivals: Measurements so far.
        tell: Callback that receives one progress line before each stage.
    """
    so_far = before_training(candidate, evaluator, gates, tell)
    if so_far.outcome == Outcome.KEPT:
        return _run_accuracy_stages(so_far, evaluator, gates, rivals, tell)
    if so_far.outcome == Outcome.OVER_BUDGET and gates.is_baseline(candidate):
        return _run_accuracy_stages(so_far, evaluator, replace(gates, rungs=gates.rungs[:1]), (), tell)
    return so_far


def before_training(
    candidate: Candidate, evaluator: Evaluator, gates: StageLimits, tell: Callable[[str], None]
) -> Measurement:
    """Return structure and latency of a candidate; the outcome is KEPT if it passes every limit before training.

    Args:
        candidate: Candidate to measure.
        evaluator: Evaluator that measures it.
        gates: Stage limits.
        tell: Callback that receives one progress line before each stage.
    """
    so_far = Measurement(candidate=candidate, outcome=Outcome.KEPT)
    tell(f"structure of {candidate.describe()}")
    structure = evaluator.structure(candidate)
    if isinstance(structure, Failure):
        return _as_failed(so_far, structure)
    so_far = replace(so_far, structure=structure)
    tell(f"timing {candidate.describe()}")
    latency = evaluator.latency(candidate, gates.budget.latency_ms)
    if isinstance(latency, Failure):
        return _as_failed(so_far, latency)
    so_far = replace(so_far, latency=latency)
    if not gates.budget.may_keep(latency):
        return replace(so_far, outcome=Outcome.OVER_BUDGET, reason=over(gates.budget, latency))
    if rival := _no_slower(candidate, latency, evaluator, gates, tell):
        return replace(so_far, outcome=Outcome.NO_GAIN, reason=_no_faster(latency, *rival))
    return so_far


def over(budget: Budget, latency: Latency) -> str:
    """Describe in one line which limits are exceeded and by how much.

    Args:
        budget: Limits of the run.
        latency: Latency and memory of a candidate.
    """
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


def promising(accuracy: Accuracy, latency: Latency, gates: StageLimits, rivals: Sequence[Measurement]) -> str:
    """Explain in one line why a candidate need not be trained further; return an empty string if it should be.

    Training stops if a rival that is no slower was, after no more epochs, more accurate by more than noise allows. A
    freshly pruned network's accuracy is not predictive before its first epoch, so no candidate is stopped before it.

    Args:
        accuracy: Newest accuracy of the candidate.
        latency: Latency of the candidate.
        gates: Stage limits.
        rivals: Measurements so far.
    """
    if accuracy.epochs == 0:
        return ""
    for rival in rivals:
        if rival.candidate.fixed:  # a fixed candidate has no epochs to compare at
            continue
        if rival.latency is None or rival.latency.rank_ms.value > latency.rank_ms.value:
            continue
        reached = [a for a in rival.accuracies if a.epochs <= accuracy.epochs]
        if not reached:
            continue
        best = max(reached, key=lambda a: a.score)
        noise = gates.patience_se * (best.score_error() ** 2 + accuracy.score_error() ** 2) ** 0.5
        if best.score - accuracy.score > noise:
            return (
                f"{100 * accuracy.score:.1f} % after {accuracy.epochs} epochs; trial {rival.trial}, "
                f"which is no slower, had {100 * best.score:.1f} % after {best.epochs}"
            )
    return ""


def _run_accuracy_stages(
    so_far: Measurement,
    evaluator: Evaluator,
    gates: StageLimits,
    rivals: Sequence[Measurement],
    tell: Callable[[str], None],
) -> Measurement:
    """Return the measurement with its accuracies, rung by rung."""
    for epochs in gates.rungs_of(so_far.candidate):
        tell(f"accuracy of {so_far.candidate.describe()} after {epochs} epochs")
        try:
            accuracy = evaluator.accuracy(so_far.candidate, epochs)
        except OutOfTimeError as error:
            return (
                replace(so_far, outcome=Outcome.UNFINISHED, reason=str(error))
                if so_far.outcome == Outcome.KEPT
                else so_far
            )
        if isinstance(accuracy, Failure):
            return _as_failed(so_far, accuracy)
        path = evaluator.model_path(so_far.candidate, epochs)
        so_far = replace(so_far, accuracies=(*so_far.accuracies, accuracy), model_path=path)
        assert so_far.latency is not None
        why = promising(accuracy, so_far.latency, gates, rivals)
        if why and epochs != gates.epochs_max:
            return replace(so_far, outcome=Outcome.UNPROMISING, reason=why)
    return _retime_scored_graph(so_far, evaluator, gates, tell)


def _retime_scored_graph(
    so_far: Measurement, evaluator: Evaluator, gates: StageLimits, tell: Callable[[str], None]
) -> Measurement:
    """Return the measurement with the latency of the scored graph, if its operators differ from the timed graph's.

    int8 quantization may have put layers back into floating point, which is known only after training.
    """
    if so_far.accuracy is None or not so_far.accuracy.relaid:
        return so_far
    tell(f"timing {so_far.candidate.describe()} again: its trained graph has other operators")
    latency = evaluator.confirm(so_far.candidate, so_far.accuracy.epochs)
    if isinstance(latency, Failure):
        return _as_failed(so_far, latency)
    so_far = replace(so_far, latency=latency)
    if so_far.outcome == Outcome.KEPT and not gates.budget.may_keep(latency):
        return replace(so_far, outcome=Outcome.OVER_BUDGET, reason=over(gates.budget, latency))
    return so_far


def _no_slower(
    candidate: Candidate,
    latency: Latency,
    evaluator: Evaluator,
    gates: StageLimits,
    tell: Callable[[str], None],
) -> tuple[Candidate, Latency] | None:
    """Return a less compressed candidate within budget that this one is not significantly faster than, or None.

    Training a candidate with such a rival is not worthwhile. A rival that itself gained nothing is skipped, as is one
    that can't be built; its less compressed original takes its place. Otherwise small compressions, each too small to
    be measured, would never add up.
    """
    for less in gates.less_cut(candidate):
        tell(f"timing {less.describe()}, which is {'less compressed' if less.steps else 'uncompressed'}")
        before: Latency | Failure | None = None
        if not isinstance(evaluator.structure(less), Failure):
            before = evaluator.latency(less, gates.budget.latency_ms)
        rival: tuple[Candidate, Latency] | None = None
        if not isinstance(before, Latency):
            rival = _no_slower(less, latency, evaluator, gates, tell)
        elif gates.budget.keeps(before) and not surely_faster(latency, before):
            idle = _no_slower(less, before, evaluator, gates, tell)
            rival = _no_slower(less, latency, evaluator, gates, tell) if idle else (less, before)
        if rival is not None:
            return rival
    return None


def surely_faster(latency: Latency, before: Latency) -> bool:
    """Return True if the gain exceeds the combined uncertainty of both measurements.

    Args:
        latency: Latency of the compressed candidate.
        before: Latency of the less compressed one.
    """
    ours, theirs = latency.rank_ms, before.rank_ms
    return theirs.value - ours.value > math.hypot(ours.high - ours.value, theirs.value - theirs.low)


def _no_faster(latency: Latency, rival: Candidate, before: Latency) -> str:
    ours, theirs = latency.rank_ms, before.rank_ms
    sure = "no" if ours.value >= theirs.value else "not surely"
    amount = "less compressed" if rival.steps else "uncompressed"
    return (
        f"{ours.value:.3g} ms [{ours.low:.3g}, {ours.high:.3g}], {sure} faster than the {theirs.value:.3g} ms "
        f"[{theirs.low:.3g}, {theirs.high:.3g}] of {rival.describe()}, which is {amount}"
    )


def _as_failed(so_far: Measurement, failure: Failure) -> Measurement:
    if failure.kind == NoGainError.kind:
        return replace(so_far, outcome=Outcome.NO_GAIN, reason=failure.reason)
    return replace(so_far, outcome=Outcome.FAILED, reason=f"{failure.stage}, {failure.kind}: {failure.reason}")
