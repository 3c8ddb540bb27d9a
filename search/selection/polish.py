"""Train the leading candidates for longer once the search has ended, and keep what is more accurate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators.measurement import Accuracy, Latency, Measurement, Outcome
from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from search.budget import Budget
from search.selection.pareto import front
from search.selection.ranking import rank_feasible
from search.storage.cached_evaluator import CachedEvaluator
from spaces.candidate import Candidate

FACTOR = 8  # largest total of epochs, as a multiple of the last rung's
FITTING = 0.9  # share of the epochs that fit by the pace of the first steps: later ones may be slower
TRIES = 3  # attempts to fit a training into the time
CONTENDERS = 2  # most candidates that share the time of those that may become the choice
TRAINED = (Outcome.KEPT, Outcome.UNFINISHED)  # outcomes of candidates that may be trained further
NOISE_SE = 2.0  # standard errors below the leader within which a candidate may become the choice
SCORED = 1.5  # scorings of a polished candidate, for which time is reserved: export, int8, validation


@dataclass(frozen=True, kw_only=True)
class PolishLimits:
    """Hold what limits the polishing of a run.

    Attributes:
        budget: Limits of latency, memory and accuracy.
        epochs: Epochs of the last rung, after which polishing begins.
        seconds_left: Function that returns the seconds until the end of the search begins.
        allowance: Time allowance within which trainings must end.
    """

    budget: Budget
    epochs: int
    seconds_left: Callable[[], float]
    allowance: TimeAllowance

    @property
    def epochs_max(self) -> int:
        """Return the most epochs that a candidate is trained for in all."""
        return FACTOR * self.epochs


def polish(
    measurements: Sequence[Measurement], evaluator: CachedEvaluator, limits: PolishLimits, tell: Callable[[str], None]
) -> list[Measurement]:
    """Return the measurements, in which longer trained candidates replace the less accurate ones.

    The candidates that may become the choice share the time; what they leave is for the other members of the front, the
    most accurate first. Validation alone decides. What an earlier session trained is taken over without training.

    Args:
        measurements: Measurements of all trials.
        evaluator: Evaluator of the run.
        limits: Budget, fidelity and time.
        tell: Callback that receives one progress line before each training.
    """
    polished = {m.trial: _adopt_earlier(m, evaluator, limits) for m in measurements}
    contenders, others = _to_polish(list(polished.values()), evaluator, limits)
    waiting, is_trained = [*contenders, *others], set[int]()
    for place, m in enumerate(
        [*waiting, *waiting]
    ):  # twice: what others leave may be enough for one that had too little
        share_s = limits.seconds_left() / max(len(contenders) - place, 1)
        if share_s <= 0:
            break
        before = longest(m.candidate, evaluator, limits)
        if m.trial not in is_trained:
            polished[m.trial] = _train_on(m, evaluator, limits, share_s, tell)
        if longest(m.candidate, evaluator, limits) > before:
            is_trained.add(m.trial)
    return list(polished.values())


def is_worth(measurement: Measurement | None) -> bool:
    """Return True if a longer training may improve the choice.

    Args:
        measurement: Present choice; None without one.
    """
    return (
        measurement is not None
        and measurement.accuracy is not None
        and measurement.accuracy.score < 1.0
        and not measurement.candidate.fixed
    )


def _to_polish(
    measurements: Sequence[Measurement], evaluator: CachedEvaluator, limits: PolishLimits
) -> tuple[list[Measurement], list[Measurement]]:
    """Return the candidates that may become the choice, best first, and the other members of the front."""
    ranked = [m for m in rank_feasible(measurements, limits.budget, None) if m.outcome in TRAINED]
    if not ranked or not is_worth(ranked[0]):
        return [], []
    assert ranked[0].accuracy is not None
    top = ranked[0].accuracy.score

    def may_lead(m: Measurement) -> bool:
        return m.accuracy is not None and m.accuracy.score + NOISE_SE * m.accuracy.score_error() >= top

    def is_due(m: Measurement) -> bool:
        return m.outcome in TRAINED and is_worth(m) and longest(m.candidate, evaluator, limits) < limits.epochs_max

    contenders = [m for m in ranked if may_lead(m)][:CONTENDERS]
    shown = sorted(front(measurements), key=lambda m: -m.accuracy.score if m.accuracy else 0.0)
    others = [m for m in shown if m.trial not in {one.trial for one in contenders}]
    return [m for m in contenders if is_due(m)], [m for m in others if is_due(m)]


def longest(candidate: Candidate, evaluator: CachedEvaluator, limits: PolishLimits) -> int:
    """Return the most epochs that a candidate was trained for, whether that was better or not; 0 without any.

    Args:
        candidate: Candidate.
        evaluator: Evaluator of the run.
        limits: Limits of the polishing.
    """
    return max((e for e in range(limits.epochs_max + 1) if evaluator.knows(candidate, e)), default=0)


def _adopt_earlier(measurement: Measurement, evaluator: CachedEvaluator, limits: PolishLimits) -> Measurement:
    had = measurement.accuracy.epochs if measurement.accuracy else limits.epochs_max
    for epochs in range(max(had + 1, limits.epochs), limits.epochs_max + 1):
        if measurement.outcome in TRAINED and evaluator.knows(measurement.candidate, epochs):
            measurement = _take_over(measurement, epochs, evaluator, limits.budget)
    return measurement


def _train_on(
    measurement: Measurement,
    evaluator: CachedEvaluator,
    limits: PolishLimits,
    share_s: float,
    tell: Callable[[str], None],
) -> Measurement:
    """Return the measurement after as many epochs as fit into a share of the time.

    A training shorter than that of the last rung gains little: where no longer one fits, it takes all the time.
    """
    candidate, more = measurement.candidate, limits.epochs_max - limits.epochs
    scoring_s = SCORED * evaluator.scoring_s(candidate)
    end_s = time.monotonic() + share_s - scoring_s
    for _ in range(TRIES):
        # a training that time had ended before the last rung is at least brought to it
        epochs = limits.epochs + more
        if epochs <= longest(candidate, evaluator, limits):
            break
        tell(f"polishing {candidate.describe()}: {epochs} epochs in all")
        try:
            with limits.allowance.at_most(end_s - time.monotonic(), time.monotonic):
                return _take_over(measurement, epochs, evaluator, limits.budget)
        except OutOfTimeError as error:
            if not more:
                break
            fitting = FITTING * error.share * more
            whole_s = limits.seconds_left() - scoring_s
            if fitting < limits.epochs and time.monotonic() + whole_s > end_s + 1.0:
                fitting *= whole_s / max(end_s - time.monotonic(), 1.0)
                end_s = time.monotonic() + whole_s
            more = min(int(fitting), more)
    return measurement


def _take_over(old: Measurement, epochs: int, evaluator: CachedEvaluator, budget: Budget) -> Measurement:
    """Return the measurement after more epochs if it is more accurate then and still keeps the budget."""
    found = evaluator.accuracy(old.candidate, epochs)
    if not isinstance(found, Accuracy) or old.accuracy is None or found.score <= old.accuracy.score:
        return old
    path = evaluator.model_path(old.candidate, epochs)
    new = replace(old, accuracies=(*old.accuracies, found), model_path=path, outcome=Outcome.KEPT, reason="")
    if not found.relaid:
        return new
    latency = evaluator.confirm(old.candidate, epochs)  # layers are in another precision than those that were timed
    if isinstance(latency, Latency) and budget.may_keep(latency):
        return replace(new, latency=latency)
    return old
