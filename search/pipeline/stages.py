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
    UNFINISHED,
    UNPROMISING,
    Accuracy,
    Failure,
    Latency,
    Measurement,
)
from evaluators.training.time_allowance import OutOfTimeError
from search.budget import Budget
from spaces.candidate import Candidate, NoGainError


def uncut_alone(candidate: Candidate) -> tuple[Candidate, ...]:
    """What a cut must at least be faster than."""
    return (candidate.uncut(),) if candidate.steps else ()


@dataclass(frozen=True, kw_only=True)
class StageLimits:
    """Where candidates are stopped."""

    budget: Budget
    rungs: tuple[int, ...] = (0, 1, 3)  # fine-tuning epochs at which the promising are told from the rest
    patience_se: float = 2.0  # standard errors a candidate may lie behind a rival that is no slower
    brief_epochs: int | None = None  # of the low fidelity that a sampler may ask for; None: there is none
    less_cut: Callable[[Candidate], Sequence[Candidate]] = uncut_alone  # what a cut must be faster than
    # an uncompressed network that is scored even over the budget: the greedy baseline
    is_baseline: Callable[[Candidate], bool] = lambda candidate: False

    @property
    def epochs_max(self) -> int:
        return self.rungs[-1]

    def rungs_of(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the epochs that a candidate is scored after: a fixed one as it is, and once."""
        return (0,) if candidate.fixed else self.rungs


def evaluate(
    candidate: Candidate,
    evaluator: Evaluator,
    gates: StageLimits,
    rivals: Sequence[Measurement],
    tell: Callable[[str], None],
) -> Measurement:
    """Return everything that could be measured of a candidate before a gate stopped it.

    Args:
        candidate: What is measured.
        evaluator: Who measures it.
        gates: Where it is stopped. Above the budget the baseline alone is trained, up to the first rung.
        rivals: The measurements so far.
        tell: Called with a line before each stage.
    """
    so_far = before_training(candidate, evaluator, gates, tell)
    if so_far.outcome == KEPT:
        return _run_accuracy_stages(so_far, evaluator, gates, rivals, tell)
    if so_far.outcome == OVER_BUDGET and gates.is_baseline(candidate):
        return _run_accuracy_stages(so_far, evaluator, replace(gates, rungs=gates.rungs[:1]), (), tell)
    return so_far


def before_training(
    candidate: Candidate, evaluator: Evaluator, gates: StageLimits, tell: Callable[[str], None]
) -> Measurement:
    """Structure and latency of a candidate; its outcome is KEPT if every gate before a training lets it pass."""
    so_far = Measurement(candidate=candidate, outcome=KEPT)
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
    if not gates.budget.keeps(latency):
        return replace(so_far, outcome=OVER_BUDGET, reason=over(gates.budget, latency))
    if rival := _no_slower(candidate, latency, evaluator, gates, tell):
        return replace(so_far, outcome=NO_GAIN, reason=_no_faster(latency, *rival))
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


def promising(accuracy: Accuracy, latency: Latency, gates: StageLimits, rivals: Sequence[Measurement]) -> str:
    """Why a candidate need not be trained on, one line; empty if it should.

    It is let go when a rival that is no slower was, after no more epochs, better by more than noise allows. Not
    before its first epoch: what was just cut says nothing of what it will be.
    """
    if accuracy.epochs == 0:
        return ""
    for rival in rivals:
        if rival.candidate.fixed:  # it has no epochs to compare at
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
                f"{100 * accuracy.score:.1f} % after {accuracy.epochs} epochs where trial {rival.trial}, "
                f"no slower, had {100 * best.score:.1f} % after {best.epochs}"
            )
    return ""


def _run_accuracy_stages(
    so_far: Measurement,
    evaluator: Evaluator,
    gates: StageLimits,
    rivals: Sequence[Measurement],
    tell: Callable[[str], None],
) -> Measurement:
    """The measurement with its accuracies, rung by rung."""
    for epochs in gates.rungs_of(so_far.candidate):
        tell(f"accuracy of {so_far.candidate.describe()} after {epochs} epochs")
        try:
            accuracy = evaluator.accuracy(so_far.candidate, epochs)
        except OutOfTimeError as error:
            return replace(so_far, outcome=UNFINISHED, reason=str(error)) if so_far.outcome == KEPT else so_far
        if isinstance(accuracy, Failure):
            return _as_failed(so_far, accuracy)
        path = evaluator.model_path(so_far.candidate, epochs)
        so_far = replace(so_far, accuracies=(*so_far.accuracies, accuracy), model_path=path)
        assert so_far.latency is not None
        why = promising(accuracy, so_far.latency, gates, rivals)
        if why and epochs != gates.epochs_max:
            return replace(so_far, outcome=UNPROMISING, reason=why)
    return _retime_scored_graph(so_far, evaluator, gates, tell)


def _retime_scored_graph(
    so_far: Measurement, evaluator: Evaluator, gates: StageLimits, tell: Callable[[str], None]
) -> Measurement:
    """The measurement with the latency of the graph that was scored, where that is not laid out as the timed one.

    int8 may have put layers back into floating point, which only training could tell.
    """
    if so_far.accuracy is None or not so_far.accuracy.relaid:
        return so_far
    tell(f"timing {so_far.candidate.describe()} again: its trained graph has other operators")
    latency = evaluator.confirm(so_far.candidate, so_far.accuracy.epochs)
    if isinstance(latency, Failure):
        return _as_failed(so_far, latency)
    so_far = replace(so_far, latency=latency)
    if so_far.outcome == KEPT and not gates.budget.keeps(latency):
        return replace(so_far, outcome=OVER_BUDGET, reason=over(gates.budget, latency))
    return so_far


def _no_slower(
    candidate: Candidate,
    latency: Latency,
    evaluator: Evaluator,
    gates: StageLimits,
    tell: Callable[[str], None],
) -> tuple[Candidate, Latency] | None:
    """A less cut network within the budget that the candidate is not surely faster than, and so not worth training for.

    One that itself brought nothing is passed over, as is one that can't be built: what it was cut from stands for it,
    else small cuts, each too small to be seen, would never add up.
    """
    for less in gates.less_cut(candidate):
        tell(f"timing {less.describe()}, which {'less' if less.steps else 'nothing'} was cut from")
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
    """True if what was gained is more than the two measurements may be off, taken together."""
    ours, theirs = latency.rank_ms, before.rank_ms
    return theirs.value - ours.value > math.hypot(ours.high - ours.value, theirs.value - theirs.low)


def _no_faster(latency: Latency, rival: Candidate, before: Latency) -> str:
    ours, theirs = latency.rank_ms, before.rank_ms
    sure = "no" if ours.value >= theirs.value else "not surely"
    cut = "less was cut from" if rival.steps else "it was cut from"
    return (
        f"{ours.value:.3g} ms [{ours.low:.3g}, {ours.high:.3g}], {sure} faster than the {theirs.value:.3g} ms "
        f"[{theirs.low:.3g}, {theirs.high:.3g}] of {rival.describe()}, which {cut}"
    )


def _as_failed(so_far: Measurement, failure: Failure) -> Measurement:
    if failure.kind == NoGainError.kind:
        return replace(so_far, outcome=NO_GAIN, reason=failure.reason)
    return replace(so_far, outcome=FAILED, reason=f"{failure.stage}, {failure.kind}: {failure.reason}")
