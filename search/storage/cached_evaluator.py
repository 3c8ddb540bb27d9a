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
    Measurement,
    Structure,
    accuracy_from_dict,
    failure_from_dict,
    latency_from_dict,
)
from evaluators.timing.pooled_latency import agree, pool, scale_latency
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
    "Failure": failure_from_dict,
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
        written: Measured = decode_entry(self._ledger.put(stage, key, tagged, self._watch.lap(), self._watch.wall_s()))
        return written


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
            reference_ms: Current latency of the reference model in ms by runtime, to which every latency is scaled; 0
                leaves latencies unchanged.
        """
        super().__init__(ledger, watch)
        self._inner, self._reference_ms = inner, reference_ms
        self._reported: dict[str, tuple[str, float]] = {}  # runtime and pace in ms of each reported latency, by key
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
        if not self.is_timed(candidate):
            self._measure("latency", candidate.key(), lambda: self._inner.latency(candidate, limit_ms))
        return self._pooled(candidate)

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
        return self._pooled(candidate)

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
        self._heard = heard
        for entry in self._ledger.entries():
            if entry.stage not in STAGES:
                continue
            value = self._at_present_pace(decode_entry(entry))
            if entry.stage == "latency":
                looks[entry.key].append(value)
                value = pool(looks[entry.key])
            self._report(entry.stage, entry.key, value)

    def training_s(self, candidate: Candidate) -> float | None:
        """Return the seconds that a candidate's accuracies took, all rungs; None if it has none."""
        entries = [e for e in self._ledger.entries("accuracy") if e.key.partition("@")[0] == candidate.key()]
        return sum(sum(entry.spent_s.values()) for entry in entries) if entries else None

    def scoring_s(self, candidate: Candidate) -> float:
        """Return the most seconds that exporting, quantizing and scoring a candidate took in one of its rungs."""
        entries = [e for e in self._ledger.entries("accuracy") if e.key.partition("@")[0] == candidate.key()]
        return max((entry.spent_s.get("scoring", 0.0) for entry in entries), default=0.0)

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

    def pooled(self, key: str) -> Latency | Failure | None:
        """Return the latency pooled over all timings of a candidate, at the device's present pace.

        Args:
            key: Key of the candidate.

        Returns:
            The latency, the failure of the timing, or None if the candidate was never timed.
        """
        looks = [self._at_present_pace(decode_entry(entry)) for entry in self._ledger.get_all("latency", key)]
        return pool(looks) if looks else None

    def report_new_pace(self) -> bool:
        """Report again every latency that was reported before the device changed its pace.

        Returns:
            True if there was such a latency.
        """
        outdated = [key for key, (runtime, ms) in self._reported.items() if self._reference_ms(runtime) != ms]
        for key in outdated:
            if (found := self.pooled(key)) is not None:
                self._report("latency", key, found)
        return bool(outdated)

    def at_present_pace(self, measurement: Measurement) -> Measurement:
        """Return a measurement with its latency at the device's present pace.

        Args:
            measurement: Measurement of this run.
        """
        return replace(measurement, latency=self._at_present_pace(measurement.latency))

    def _pooled(self, candidate: Candidate) -> Latency | Failure:
        found = self.pooled(candidate.key())
        assert found is not None, "a candidate has a timing before it has a pooled one"
        return found

    def _report(self, stage: str, key: str, value: Stored) -> None:
        if stage == "latency" and isinstance(value, Latency) and value.reference_ms:
            self._reported[key] = value.runtime, value.reference_ms
        self._heard(stage, key, value)

    def _at_present_pace(self, found: Any) -> Any:
        """Return the measured value; a latency is scaled to the reference model's present time.

        The candidate is timed in turn with the reference, and their ratio holds when the device becomes faster or
        slower.
        """
        is_scaled = isinstance(found, Latency) and found.reference_ms
        now_ms = self._reference_ms(found.runtime) if is_scaled else 0.0
        return scale_latency(found, now_ms) if now_ms else found

    def _once(self, stage: str, key: str, measure: Callable[[], Measured]) -> Measured:
        scaled: Measured = self._at_present_pace(super()._once(stage, key, measure))
        return scaled

    def _measure(self, stage: str, key: str, measure: Callable[[], Measured]) -> Measured:
        found: Measured = self._at_present_pace(super()._measure(stage, key, measure))
        self._report(stage, key, (self.pooled(key) or found) if stage == "latency" else found)
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
