"""An evaluator that never measures the same thing twice: it looks in the ledger first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from evaluators.evaluator import Evaluator
from evaluators.measurement import Accuracy, Failure, Latency, Structure, accuracy_from_dict, latency_from_dict
from evaluators.stopwatch import Stopwatch
from search.ledger import Ledger
from spaces.candidate import Candidate

DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Structure": lambda data: Structure(**data),
    "Latency": latency_from_dict,
    "Accuracy": accuracy_from_dict,
    "Failure": lambda data: Failure(**data),
}


class Remembered:
    """The Evaluator of the same answers, each kept in the ledger with the seconds it took."""

    def __init__(self, inner: Evaluator, ledger: Ledger, watch: Stopwatch) -> None:
        self._inner, self._ledger, self._watch = inner, ledger, watch

    def structure(self, candidate: Candidate) -> Structure | Failure:
        return self._once("structure", candidate.graph_key(), lambda: self._inner.structure(candidate))

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        return self._once("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        key = f"{candidate.key()}@{epochs}"
        return self._once("accuracy", key, lambda: self._inner.accuracy(candidate, epochs))

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        key = f"{candidate.key()}@{epochs}"
        return self._once("confirm", key, lambda: self._inner.confirm(candidate, epochs))

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        key = f"{candidate.key()}@{epochs}"
        return self._once("test", key, lambda: self._inner.test(candidate, epochs))

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        return self._inner.model_path(candidate, epochs)

    def _once(self, stage: str, key: str, measure: Callable[[], Any]) -> Any:
        known = self._ledger.get(stage, key)
        if known is None:
            value = measure()
            tagged = {"type": type(value).__name__} | asdict(value)
            known = self._ledger.put(stage, key, tagged, self._watch.lap(), self._watch.wall_s())
        data = {name: value for name, value in known.value.items() if name != "type"}
        return DECODERS[known.value["type"]](data)
