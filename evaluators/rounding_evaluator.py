"""Wrap an evaluator so that pruned candidates get channel counts at which the device is fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from evaluators.evaluator import DeviceInspector, Evaluator
from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import Accuracy, Agreement, Failure, Latency, Structure
from spaces.candidate import Candidate
from spaces.operation_specs import DECLARED

PRUNE, AXIS = "prune", "prune_to"


class InspectingEvaluator(Evaluator, DeviceInspector, Protocol):
    """Evaluate candidates, inspect finalists on the device and rebuild their files."""

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Rebuild a finalist's file if it is missing or does not have the expected SHA-256.

        Args:
            candidate: A trained candidate.
            epochs: Fidelity, in fine-tuning epochs.
            sha256: SHA-256 of the file that was measured.

        Returns:
            True if the file had to be rebuilt and differs from the measured one.
        """


class RoundingEvaluator:
    """Forward every call to another evaluator, with the channel counts of pruned candidates rounded for this device.

    The methods are those of `InspectingEvaluator`. Callers keep using the proposed candidate as the key: rounding is a
    property of the run, the amount of pruning one of the candidate. A candidate that specifies its own rounding is not
    changed.
    """

    def __init__(self, inner: InspectingEvaluator, rounding: Callable[[Candidate], str]) -> None:
        """Wrap an evaluator.

        Args:
            inner: Evaluator that measures.
            rounding: Returns the rounding for a candidate, as in `spaces/channel_rounding.py`.
        """
        self._inner, self._rounding = inner, rounding

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the structure of the rounded candidate."""
        return self._inner.structure(self._as_built(candidate))

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Return the latency of the rounded candidate."""
        return self._inner.latency(self._as_built(candidate), limit_ms)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the validation accuracy of the rounded candidate."""
        return self._inner.accuracy(self._as_built(candidate), epochs)

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Time the trained file of the rounded candidate again."""
        return self._inner.confirm(self._as_built(candidate), epochs)

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the test accuracy of the rounded candidate."""
        return self._inner.test(self._as_built(candidate), epochs)

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Return the path of the rounded candidate's file."""
        return self._inner.model_path(self._as_built(candidate), epochs)

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        """Return the precision by layer of the rounded candidate's file."""
        return self._inner.coverage(self._as_built(candidate), epochs)

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """Compare device and host on the rounded candidate's file."""
        return self._inner.agreement(self._as_built(candidate), epochs)

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Rebuild the rounded candidate's file if it is missing or has another SHA-256."""
        return self._inner.remade(self._as_built(candidate), epochs, sha256)

    def _as_built(self, candidate: Candidate) -> Candidate:
        if not candidate.amount(PRUNE) or AXIS in dict(candidate.options):
            return candidate
        to = self._rounding(candidate)
        return candidate if to == DECLARED else round_candidate(candidate, to)


def round_candidate(candidate: Candidate, to: str) -> Candidate:
    """Return the candidate with another rounding of its pruned channel counts.

    Args:
        candidate: A pruned candidate.
        to: Rounding, as in `spaces/channel_rounding.py`.
    """
    return replace(candidate, options=tuple(sorted({**dict(candidate.options), AXIS: to}.items())))
