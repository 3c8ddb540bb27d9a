"""Cache an evaluator's results in the ledger, so that nothing is measured twice by accident."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

from evaluators import layer_precision as coverages
from evaluators.evaluator import DeviceInspector, Evaluator
from evaluators.fault_attribution import is_host_kill
from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import (
    Accuracy,
    Agreement,
    Failure,
    Latency,
    Structure,
    accuracy_from_dict,
    latency_from_dict,
)
from evaluators.timing.confidence import scale_interval
from evaluators.timing.pooled_latency import agree, agree_ms, pool
from evaluators.timing.stopwatch import Stopwatch
from search.settings import SettingsError
from search.storage.ledger import Ledger, LedgerEntry
from spaces.candidate import Candidate

Stored = Structure | Latency | Accuracy | LayerPrecision | Agreement | Failure
Measured = TypeVar("Measured", bound=Stored)

DECODERS: dict[str, Callable[[dict[str, Any]], Stored]] = {
    "Structure": lambda data: Structure(**data),
    "Latency": latency_from_dict,
    "Accuracy": accuracy_from_dict,
    "LayerPrecision": coverages.from_dict,
    "Coverage": coverages.from_dict,  # name of LayerPrecision in run folders of earlier versions
    "Agreement": lambda data: Agreement(**data),
    "Failure": lambda data: Failure(**data),
}

STAGES = ("structure", "latency", "accuracy", "confirm", "test")


class LedgerCache:
    """Cache results in the ledger together with the wall time that they took.

    Args:
        ledger: Ledger of the run.
        watch: Stopwatch that measures the time of each result.
    """

    def __init__(self, ledger: Ledger, watch: Stopwatch) -> None:
        self._ledger, self._watch = ledger, watch

    def _once(self, stage: str, key: str, measure: Callable[[], Measured]) -> Measured:
        known = self._ledger.get(stage, key)
        return self._measure(stage, key, measure) if known is None or _was_the_hosts(known) else decode_entry(known)

    def _measure(self, stage: str, key: str, measure: Callable[[], Measured]) -> Measured:
        value = measure()
        tagged = {"type": type(value).__name__} | asdict(value)
        return decode_entry(self._ledger.put(stage, key, tagged, self._watch.lap(), self._watch.wall_s()))


class CachedEvaluator(LedgerCache):
    """Evaluate candidates as the wrapped Evaluator does, but measure each value only once."""

    def __init__(
        self,
        inner: Evaluator,
        ledger: Ledger,
        watch: Stopwatch,
        reference_ms: Callable[[str], float] = lambda runtime: 0.0,
    ) -> None:
        """Wrap an evaluator.

        Args:
            inner: Evaluator that measures.
            ledger: Ledger that stores the results.
            watch: Stopwatch that measures the time of each result.
            reference_ms: Current latency of the reference model in ms by runtime, to which every rank is scaled; 0
                leaves ranks unchanged.
        """
        super().__init__(ledger, watch)
        self._inner, self._reference_ms = inner, reference_ms
        self._timed: dict[str, Candidate] = {}  # candidates requested in this session, by key
        self._heard: Callable[[str, str, Stored], None] = lambda stage, key, value: None

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the candidate's structure, measured once per graph."""
        return self._once("structure", candidate.graph_key(), lambda: self._inner.structure(candidate))

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Return the latency pooled over all timings of the candidate; time it first if that never happened.

        Args:
            candidate: Candidate to time.
            limit_ms: Latency limit in ms, near which a timing takes more samples; None for no limit.
        """
        self._timed[candidate.key()] = candidate
        if not self.is_timed(candidate):
            self._measure("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))
        return pool(self._looks(candidate))

    def latency_again(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Time a candidate again, twice if the result differs, and return the latency pooled over all timings.

        Args:
            candidate: Candidate to time.
            limit_ms: Latency limit in ms; None for no limit.
        """
        before = self.latency(candidate, limit_ms)
        for _ in range(2):
            new = self._measure("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))
            if isinstance(new, Latency) and isinstance(before, Latency) and agree(new, before):
                break
            before = new
        return pool(self._looks(candidate))

    def confirm_again(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Time the trained model file a second time and return that timing; a third timing never happens.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
        """
        key = f"{candidate.key()}@{epochs}"
        if len(self._ledger.get_all("confirm", key)) > 1:
            return self.confirm(candidate, epochs)
        return self._measure("confirm", key, lambda: self._inner.confirm(candidate, epochs))

    def is_timed(self, candidate: Candidate) -> bool:
        """Return True if the candidate was timed, or if timing it failed."""
        return self.times_looked(candidate) > 0

    def times_looked(self, candidate: Candidate) -> int:
        """Return how many timings of the candidate there are."""
        return len(self._ledger.get_all("latency", candidate.key()))

    def knows(self, candidate: Candidate, epochs: int) -> bool:
        """Return True if the candidate's accuracy after that many epochs was measured."""
        return self._ledger.get("accuracy", f"{candidate.key()}@{epochs}") is not None

    def keys_with_accuracy(self) -> set[str]:
        """Return the keys of all candidates that have an accuracy."""
        entries = self._ledger.entries("accuracy")
        return {entry.key.partition("@")[0] for entry in entries if entry.value and entry.value["type"] == "Accuracy"}

    def macs_of(self, candidate: Candidate) -> int | None:
        """Return a candidate's multiply-accumulates, or None if it was never built."""
        entry = self._ledger.get("structure", candidate.graph_key())
        found = decode_entry(entry) if entry else None
        return found.macs if isinstance(found, Structure) else None

    def listen(self, heard: Callable[[str, str, Stored], None]) -> None:
        """Call a function for every past result, oldest first, and for every future one.

        Args:
            heard: Function of (stage, key, value). A latency is pooled over all timings up to then.
        """
        looks: defaultdict[str, list[Latency | Failure]] = defaultdict(list)
        for entry in self._ledger.entries():
            if entry.stage not in STAGES:
                continue
            value = self._with_current_rank(entry)
            if entry.stage == "latency":
                looks[entry.key].append(value)
                value = pool(self._of_now(looks[entry.key]))
            heard(entry.stage, entry.key, value)
        self._heard = heard

    def training_s(self, candidate: Candidate) -> float | None:
        """Return the seconds that a candidate's accuracies took, all rungs; None if it has none."""
        entries = [e for e in self._ledger.entries("accuracy") if e.key.partition("@")[0] == candidate.key()]
        return sum(sum(entry.spent_s.values()) for entry in entries) if entries else None

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the validation accuracy of a candidate.

        Args:
            candidate: Candidate to train.
            epochs: Fine-tuning epochs.
        """
        key = f"{candidate.key()}@{epochs}"
        return self._once("accuracy", key, lambda: self._inner.accuracy(candidate, epochs))

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Return the latency of the trained model file.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
        """
        key = f"{candidate.key()}@{epochs}"
        return self._once("confirm", key, lambda: self._inner.confirm(candidate, epochs))

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the test accuracy of a trained candidate.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
        """
        key = f"{candidate.key()}@{epochs}"
        return self._once("test", key, lambda: self._inner.test(candidate, epochs))

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Return the path of the trained model file."""
        return self._inner.model_path(candidate, epochs)

    def find_outdated(self, limit_ms: float, changed: float) -> list[Candidate]:
        """Return candidates that exceeded a limit while the device was slower than now, and that may keep it now.

        Args:
            limit_ms: Latency limit in ms.
            changed: Share by which the reference model must have become faster since, 0..1.
        """
        found = []
        for candidate in self._timed.values():
            look = pool(self._looks(candidate))
            now_ms = self._reference_ms(look.runtime) if isinstance(look, Latency) else 0.0
            if not isinstance(look, Latency) or not look.reference_ms or now_ms > (1 - changed) * look.reference_ms:
                continue
            if look.percentile_ms.high > limit_ms >= look.percentile_ms.low * now_ms / look.reference_ms:
                found.append(candidate)
        return found

    def time_anew(self, candidate: Candidate, limit_ms: float) -> None:
        """Time a candidate on the device in its present state; timings from before the change no longer count.

        Args:
            candidate: Candidate to time.
            limit_ms: Latency limit in ms.
        """
        self._measure("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))

    def _looks(self, candidate: Candidate) -> list[Latency | Failure]:
        return self._of_now(
            [self._with_current_rank(entry) for entry in self._ledger.get_all("latency", candidate.key())]
        )

    def _of_now(self, looks: list[Latency | Failure]) -> list[Latency | Failure]:
        """Return the timings that were taken while the device was in the same state as for the newest one."""
        newest = looks[-1]
        if not isinstance(newest, Latency) or not newest.reference_ms:
            return looks
        return [
            look
            for look in looks
            if not isinstance(look, Latency) or agree_ms(look.reference_ms or newest.reference_ms, newest.reference_ms)
        ]

    def _with_current_rank(self, entry: LedgerEntry) -> Any:
        """Return the measured value, with a latency's rank scaled to the reference model's current latency."""
        found = decode_entry(entry)
        if not isinstance(found, Latency) or not found.reference_ms or not (now := self._reference_ms(found.runtime)):
            return found
        return replace(found, rank_ms=scale_interval(found.rank_ms, now / found.reference_ms))

    def _measure(self, stage: str, key: str, measure: Callable[[], Measured]) -> Measured:
        found = super()._measure(stage, key, measure)
        if stage == "latency":
            looks = [self._with_current_rank(entry) for entry in self._ledger.get_all(stage, key)]
            self._heard(stage, key, pool(self._of_now(looks)))
        else:
            self._heard(stage, key, found)
        return found


class CachedInspector(LedgerCache):
    """Inspect the device as the wrapped DeviceInspector does, but measure each value only once."""

    def __init__(self, inner: DeviceInspector, ledger: Ledger, watch: Stopwatch) -> None:
        super().__init__(ledger, watch)
        self._inner = inner

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        """Return the precision in which the device runs each layer of a trained candidate.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
        """
        key = f"{candidate.key()}@{epochs}"
        return self._once("coverage", key, lambda: self._inner.coverage(candidate, epochs))

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """Return how far the device's outputs agree with the host's for a trained candidate.

        Args:
            candidate: Trained candidate.
            epochs: Fine-tuning epochs of the model file.
        """
        key = f"{candidate.key()}@{epochs}"
        return self._once("agreement", key, lambda: self._inner.agreement(candidate, epochs))


def decode_entry(entry: LedgerEntry) -> Any:
    """Return the value of a ledger entry as the type that was stored.

    Raises:
        SettingsError: The entry is damaged, or another version wrote it.
    """
    try:
        data = {name: value for name, value in entry.value.items() if name != "type"}
        return DECODERS[entry.value["type"]](data)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SettingsError(
            f"ledger.jsonl: the {entry.stage} of {entry.key} can't be read: remove its line, and it is measured again; "
            "or name another --out"
        ) from None


def _was_the_hosts(entry: LedgerEntry) -> bool:
    """Return True for a failure of the host that earlier versions recorded as the candidate's."""
    is_failure = isinstance(entry.value, dict) and entry.value.get("type") == "Failure"
    return is_failure and is_host_kill(str(entry.value.get("reason")))
