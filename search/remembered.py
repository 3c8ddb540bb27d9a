"""An evaluator that never measures the same thing twice: it looks in the ledger first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from evaluators import coverage as coverages
from evaluators.coverage import Coverage
from evaluators.evaluator import Evaluator, Sees
from evaluators.measurement import Accuracy, Agreement, Failure, Latency, Structure, latency_from_dict
from evaluators.stopwatch import Stopwatch
from search.ledger import Ledger
from spaces.candidate import Candidate

DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Structure": lambda data: Structure(**data),
    "Latency": latency_from_dict,
    "Accuracy": lambda data: Accuracy(**data),
    "Coverage": coverages.from_dict,
    "Agreement": lambda data: Agreement(**data),
    "Failure": lambda data: Failure(**data),
}


class Once:
    """What keeps answers in the ledger, each with the seconds it took."""

    def __init__(self, ledger: Ledger, watch: Stopwatch) -> None:
        self._ledger, self._watch = ledger, watch

    def _once(self, stage: str, key: str, measure: Callable[[], Any]) -> Any:
        known = self._ledger.get(stage, key)
        if known is None:
            value = measure()
            tagged = {"type": type(value).__name__} | asdict(value)
            known = self._ledger.put(stage, key, tagged, self._watch.lap(), self._watch.wall_s())
        data = {name: value for name, value in known.value.items() if name != "type"}
        return DECODERS[known.value["type"]](data)


class Remembered(Once):
    """The Evaluator of the same answers, each asked for once."""

    def __init__(self, inner: Evaluator, ledger: Ledger, watch: Stopwatch) -> None:
        super().__init__(ledger, watch)
        self._inner = inner

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


class Seen(Once):
    """The Sees of the same answers, each asked for once."""

    def __init__(self, inner: Sees, ledger: Ledger, watch: Stopwatch) -> None:
        super().__init__(ledger, watch)
        self._inner = inner

    def coverage(self, candidate: Candidate, epochs: int) -> Coverage | Failure:
        key = f"{candidate.key()}@{epochs}"
        return self._once("coverage", key, lambda: self._inner.coverage(candidate, epochs))

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        key = f"{candidate.key()}@{epochs}"
        return self._once("agreement", key, lambda: self._inner.agreement(candidate, epochs))
