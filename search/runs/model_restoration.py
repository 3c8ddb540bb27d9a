"""Make the chosen model's file again where it was deleted or changed since it was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from evaluators.measurement import Measurement
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.time_allowance import OutOfTimeError
from search.pipeline.stages import StageLimits, evaluate
from search.selection.finalists import SearchOutcome
from search.settings import SettingsError
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import REMADE, Ledger
from spaces.candidate import Candidate

TRIES = 4  # models that may be chosen in turn, each measured again


class RebuildsModels(Protocol):
    """What keeps the files of trained candidates."""

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Return True if the file had to be made again and came out otherwise than `sha256` says."""


def restore_chosen_model(
    measurements: Sequence[Measurement],
    finish: Callable[[Sequence[Measurement]], SearchOutcome],
    remakes: RebuildsModels,
    again: Callable[[Measurement, Sequence[Measurement]], Measurement],
    void: Callable[[str], None],
) -> SearchOutcome:
    """Return the ending whose chosen model is there, as it was measured.

    Training is not the same to the last bit everywhere. A model that came out otherwise is measured again, and what is
    chosen then may be another.

    Args:
        measurements: Of all trials.
        finish: What makes an ending of them.
        remakes: What keeps the files.
        again: Measures a candidate again; also given the measurements of the other trials.
        void: Is told the key of a candidate, with its epochs, whose file is another now.
    """
    known = list(measurements)
    for _ in range(TRIES):
        ending = finish(known)
        choice = ending.choice
        if choice is None or choice.accuracy is None:
            return ending
        epochs = choice.accuracy.epochs
        try:
            if not remakes.remade(choice.candidate, epochs, choice.accuracy.model_sha256):
                return ending
        except OutOfTimeError:
            raise SettingsError(
                "the chosen model's file is gone, and no time is left to make it again: resume with more --time-limit"
            ) from None
        void(f"{choice.candidate.key()}@{epochs}")
        place = next(i for i, one in enumerate(known) if one.trial == choice.trial)
        known[place] = again(choice, known[:place])
    return finish(known)


def make_remeasure(
    evaluator: CachedEvaluator, gates: StageLimits, tell: Callable[[str], None]
) -> Callable[[Measurement, Sequence[Measurement]], Measurement]:
    """Return what measures a candidate again: only what the ledger holds no longer is work."""
    open_gates = replace(gates, less_cut=lambda cut: ())

    def again(old: Measurement, rivals: Sequence[Measurement]) -> Measurement:
        found = evaluate(old.candidate, evaluator, open_gates, rivals, tell)
        return replace(found, trial=old.trial)

    return again


def make_void(ledger: Ledger, watch: Stopwatch, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what records that the file of a candidate is another now."""

    def void(key: str) -> None:
        tell(f"the chosen model {key} was made again and is not the same to the last bit: measuring it again")
        ledger.put(REMADE, key, {}, {}, watch.wall_s())

    return void
