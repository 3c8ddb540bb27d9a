"""List the candidates that were screened: timed, but never evaluated as trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from evaluators.measurement import Accuracy, Failure, Latency, Measurement, Outcome, Structure
from search.budget import Budget
from search.pipeline.stages import over
from search.storage.cached_evaluator import decode_entry
from search.storage.ledger import Ledger
from spaces.space import CandidateSet

Pooled = Callable[[str], Latency | Failure | None]  # returns the latency over all timings of a candidate's key


def looks(
    space: CandidateSet, ledger: Ledger, pooled: Pooled, trials: Iterable[Measurement], budget: Budget
) -> list[Measurement]:
    """Return the candidates of a space that were only timed, each with its pooled latency.

    Args:
        space: Candidates of the run.
        ledger: Ledger of the run.
        pooled: Function that returns the latency of a timed candidate.
        trials: Measurements of all trials.
        budget: Limits that decide each outcome.
    """
    tried = {m.candidate.key() for m in trials}
    timed = {entry.key for entry in ledger.entries("latency") if entry.key not in tried}
    if not timed:
        return []
    found = []
    for candidate in map(space.candidate, space.params()):
        if (key := candidate.key()) not in timed:
            continue
        latency = pooled(key)
        if isinstance(latency, Latency):
            outcome, reason = (
                (Outcome.KEPT, "") if budget.keeps(latency) else (Outcome.OVER_BUDGET, over(budget, latency))
            )
            found.append(Measurement(candidate=candidate, outcome=outcome, reason=reason, latency=latency))
    return found


def screened_candidates(
    space: CandidateSet, ledger: Ledger, pooled: Pooled, trials: Iterable[Measurement], budget: Budget
) -> list[Measurement]:
    """Return all measurements of candidates that are no trials, in the order of the space.

    They comprise structure, latency (pooled over all timings), low-fidelity accuracies, and failures while timing.

    Args:
        space: Candidates of the run.
        ledger: Ledger of the run.
        pooled: Function that returns the latency of a timed candidate.
        trials: Measurements of all trials.
        budget: Limits that decide each outcome.
    """
    tried = {m.candidate.key() for m in trials}
    known = {stage: {e.key: e for e in ledger.entries(stage)} for stage in ("structure", "latency")}
    brief: dict[str, list[Accuracy]] = {}
    for scored in ledger.entries("accuracy"):
        if scored.value and isinstance(accuracy := decode_entry(scored), Accuracy):
            brief.setdefault(scored.key.partition("@")[0], []).append(accuracy)
    found = []
    for candidate in map(space.candidate, space.params()):
        if candidate.key() not in known["latency"] or candidate.key() in tried:
            continue
        built = known["structure"].get(candidate.graph_key())
        latency = pooled(candidate.key())
        structure = decode_entry(built) if built else None
        accuracies = tuple(sorted(brief.get(candidate.key(), ()), key=lambda a: a.epochs))
        whole = Measurement(candidate=candidate, outcome=Outcome.KEPT, accuracies=accuracies)
        whole = replace(whole, structure=structure if isinstance(structure, Structure) else None)
        if isinstance(latency, Failure):
            whole = replace(whole, outcome=Outcome.FAILED, reason=f"{latency.stage}, {latency.kind}: {latency.reason}")
        elif latency is not None:
            over_it = "" if budget.keeps(latency) else over(budget, latency)
            whole = replace(
                whole, outcome=Outcome.OVER_BUDGET if over_it else Outcome.KEPT, reason=over_it, latency=latency
            )
        found.append(whole)
    return found


def early_stops(measurements: Iterable[Measurement], ledger: Ledger) -> tuple[int, int]:
    """Return how many candidates over the budget were never trained, and how many exceeded the budget in all.

    A scored uncompressed network counts as trained, since its parent's training is its own. A compressed candidate's
    score at 0 epochs rests on existing weights and is no training.

    Args:
        measurements: Measurements of trials and screened candidates.
        ledger: Ledger of the run.
    """
    trained = {key for key, _, epochs in (e.key.partition("@") for e in ledger.entries("accuracy")) if int(epochs) > 0}
    slow = [m for m in measurements if m.outcome == Outcome.OVER_BUDGET]
    return sum(1 for m in slow if not m.accuracies and m.candidate.key() not in trained), len(slow)
