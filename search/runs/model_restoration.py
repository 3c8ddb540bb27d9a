"""Rebuild the chosen model's file if it was deleted or changed after it was measured."""

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

TRIES = 4  # number of chosen models to restore in turn, each measured again


class RebuildsModels(Protocol):
    """Describe an evaluator that stores the files of trained candidates."""

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Return True if the file had to be rebuilt and the new file has another digest.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
            sha256: Digest of the measured file.
        """


def restore_chosen_model(
    measurements: Sequence[Measurement],
    finish: Callable[[Sequence[Measurement]], SearchOutcome],
    remakes: RebuildsModels,
    again: Callable[[Measurement, Sequence[Measurement]], Measurement],
    void: Callable[[str], None],
) -> SearchOutcome:
    """Return the outcome that has its chosen model's file in place, as it was measured.

    Training is not bit-identical everywhere. A rebuilt model that differs is measured again, after which the choice may
    be another.

    Args:
        measurements: Measurements of all trials.
        finish: Function that selects the outcome from measurements.
        remakes: Evaluator that stores the model files.
        again: Function that measures a candidate again; it also receives the measurements of the other trials.
        void: Function that receives the key of a candidate, with its epochs, if its file now differs.

    Raises:
        SettingsError: The file is missing, and no time is left to rebuild it.
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
    """Return a function that measures a candidate again, reusing every value that the ledger still holds.

    Args:
        evaluator: Evaluator of the run.
        gates: Stage limits.
        tell: Callback that receives one progress line before each stage.
    """
    open_gates = replace(gates, less_cut=lambda cut: ())

    def again(old: Measurement, rivals: Sequence[Measurement]) -> Measurement:
        found = evaluate(old.candidate, evaluator, open_gates, rivals, tell)
        return replace(found, trial=old.trial)

    return again


def make_void(ledger: Ledger, watch: Stopwatch, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that records that a candidate's file now differs.

    Args:
        ledger: Ledger of the run.
        watch: Stopwatch of the session.
        tell: Callback that receives a line about it.
    """

    def void(key: str) -> None:
        tell(f"the chosen model {key} was made again and is not the same to the last bit: measuring it again")
        ledger.put(REMADE, key, {}, {}, watch.wall_s())

    return void
