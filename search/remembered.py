"""An evaluator that never measures the same thing twice: it looks in the ledger first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from evaluators import coverage as coverages
from evaluators.coverage import Coverage
from evaluators.evaluator import Evaluator, Sees
from evaluators.measurement import (
    Accuracy,
    Agreement,
    Failure,
    Latency,
    Structure,
    accuracy_from_dict,
    latency_from_dict,
)
from evaluators.stopwatch import Stopwatch
from search.ledger import Entry, Ledger
from spaces.candidate import Candidate

DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Structure": lambda data: Structure(**data),
    "Latency": latency_from_dict,
    "Accuracy": accuracy_from_dict,
    "Coverage": coverages.from_dict,
    "Agreement": lambda data: Agreement(**data),
    "Failure": lambda data: Failure(**data),
}

STAGES = ("structure", "latency", "accuracy", "confirm", "test")
AGREE = 1.2  # two looks at a latency that differ by less are one; the factor is what a busy device may add


class Once:
    """What keeps answers in the ledger, each with the seconds it took."""

    def __init__(self, ledger: Ledger, watch: Stopwatch) -> None:
        self._ledger, self._watch = ledger, watch

    def _once(self, stage: str, key: str, measure: Callable[[], Any]) -> Any:
        known = self._ledger.get(stage, key)
        return self._measure(stage, key, measure) if known is None else decoded(known)

    def _measure(self, stage: str, key: str, measure: Callable[[], Any]) -> Any:
        value = measure()
        tagged = {"type": type(value).__name__} | asdict(value)
        return decoded(self._ledger.put(stage, key, tagged, self._watch.lap(), self._watch.wall_s()))


class Remembered(Once):
    """The Evaluator of the same answers, each asked for once."""

    def __init__(self, inner: Evaluator, ledger: Ledger, watch: Stopwatch) -> None:
        super().__init__(ledger, watch)
        self._inner = inner
        self._heard: Callable[[str, str, Any], None] = lambda stage, key, value: None

    def structure(self, candidate: Candidate) -> Structure | Failure:
        return self._once("structure", candidate.graph_key(), lambda: self._inner.structure(candidate))

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        return self._once("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))

    def latency_again(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Timed anew, and from now on what `latency` answers: the new one, or if they differ the middle of three."""
        looks = [self.latency(candidate, limit_ms)]
        for _ in range(2):
            looks.append(self._measure("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms)))
            slower, faster = max(map(_ms, looks[-2:])), min(map(_ms, looks[-2:]))
            if slower <= AGREE * faster:
                return looks[-1]
        believed = sorted(looks, key=_ms)[1]
        return self._measure("latency", candidate.key(), lambda: believed)

    def listen(self, heard: Callable[[str, str, Any], None]) -> None:
        """Calls `heard(stage, key, value)` for all that was measured, oldest first, and for all that will be."""
        for entry in self._ledger.entries():
            if entry.stage in STAGES:
                heard(entry.stage, entry.key, decoded(entry))
        self._heard = heard

    def training_s(self, candidate: Candidate) -> float | None:
        """Seconds the accuracies of a candidate took, all rungs; None if there are none."""
        entries = [e for e in self._ledger.entries("accuracy") if e.key.partition("@")[0] == candidate.key()]
        return sum(sum(entry.spent_s.values()) for entry in entries) if entries else None

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

    def _measure(self, stage: str, key: str, measure: Callable[[], Any]) -> Any:
        found = super()._measure(stage, key, measure)
        self._heard(stage, key, found)
        return found


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


def decoded(entry: Entry) -> Any:
    """What was measured, as it was put."""
    data = {name: value for name, value in entry.value.items() if name != "type"}
    return DECODERS[entry.value["type"]](data)


def _ms(look: Latency | Failure) -> float:
    return look.rank_ms.value if isinstance(look, Latency) else math.inf
