"""An evaluator whose pruned candidates have the channel counts that the device is fast at."""

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
    """An evaluator that can also show what a finalist really runs, and make its file again."""

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Return True if a file had to be made again and is not the one of that SHA-256."""


class RoundingEvaluator:
    """The same of every candidate, pruned ones as they are built for this device.

    Who asks goes on knowing a candidate by what was proposed: rounding belongs to the run, as a network's amount to the
    candidate. A candidate that says itself what its counts are rounded to is left as it is.
    """

    def __init__(self, inner: InspectingEvaluator, rounding: Callable[[Candidate], str]) -> None:
        self._inner, self._rounding = inner, rounding

    def structure(self, candidate: Candidate) -> Structure | Failure:
        return self._inner.structure(self._as_built(candidate))

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        return self._inner.latency(self._as_built(candidate), limit_ms)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        return self._inner.accuracy(self._as_built(candidate), epochs)

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        return self._inner.confirm(self._as_built(candidate), epochs)

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        return self._inner.test(self._as_built(candidate), epochs)

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        return self._inner.model_path(self._as_built(candidate), epochs)

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        return self._inner.coverage(self._as_built(candidate), epochs)

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        return self._inner.agreement(self._as_built(candidate), epochs)

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        return self._inner.remade(self._as_built(candidate), epochs, sha256)

    def _as_built(self, candidate: Candidate) -> Candidate:
        if not candidate.amount(PRUNE) or AXIS in dict(candidate.options):
            return candidate
        to = self._rounding(candidate)
        return candidate if to == DECLARED else round_candidate(candidate, to)


def round_candidate(candidate: Candidate, to: str) -> Candidate:
    """The candidate with its pruned channel counts rounded `to`."""
    return replace(candidate, options=tuple(sorted({**dict(candidate.options), AXIS: to}.items())))
