"""Wrap a table and a sampler during a search: inject faults, record look-ups, and measure the sampler's CPU time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy
import optuna
from optuna.trial import TrialState

from benchmarks.search_quality.task import Task
from evaluators.measurement import Accuracy, Failure, Interval, Latency, Structure
from evaluators.table_evaluator import TableEvaluator
from remote.errors import FailureKind
from spaces.candidate import Candidate


@dataclass(frozen=True)
class Faults:
    """Describe wrong and failing entries of a table, by key.

    Attributes:
        factors: Factor on the first latency measurement of a wrong entry.
        untimed: Keys of networks that cannot run.
        untrained: Keys of networks that fail in training; the failed training still counts as an evaluation.
    """

    factors: Mapping[str, float]
    untimed: frozenset[str] = frozenset()
    untrained: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Row:
    """Record the look-ups up to one full training."""

    key: str
    evaluations: float
    latency_lookups: int
    low_lookups: int
    trials: int
    ask_s: float


class Clock:
    """Measure the CPU time in all methods of a sampler, in seconds, and count its trials that end in a measurement."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        self.cpu_s, self.trials, self._inside = 0.0, 0, False
        for name in dir(sampler):
            if not name.startswith("_") and callable(method := getattr(sampler, name)):
                setattr(sampler, name, self._timed(method, name))

    def _timed(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **named: Any) -> Any:
            # a repeat, which a search closes as failed, is not a trial; its cost belongs to the next trial
            self.trials += name == "after_trial" and args[2] != TrialState.FAIL
            if self._inside:  # a nested call: the time of the outer method includes it
                return method(*args, **named)
            self._inside, began = True, time.process_time()
            try:
                return method(*args, **named)
            finally:
                self._inside = False
                self.cpu_s += time.process_time() - began

        return timed


class Watched:
    """Evaluate candidates by a table with faults; `rows` records the look-ups at each full training."""

    def __init__(self, table: TableEvaluator, task: Task, faults: Faults, clock: Clock) -> None:
        self._table, self._full, self._faults, self._clock = table, task.space.epochs, faults, clock
        self._looks: Counter[str] = Counter()
        self.rows: list[Row] = []

    def evaluations(self) -> float:
        """Count the trainings, each by its share of a full training's epochs."""
        counts = self._table.looked_up
        return sum(count * _epochs(stage) / self._full for stage, count in counts.items())

    def latency_lookups(self) -> int:
        """Count the latency look-ups, remeasurements included."""
        return self._table.looked_up["latency"] + self._table.looked_up["confirm"]

    def structure(self, candidate: Candidate) -> Structure | Failure:
        return self._table.structure(candidate)

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        return self._told(candidate, self._table.latency(candidate, limit_ms))

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        return self._told(candidate, self._table.confirm(candidate, epochs))

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        found = self._table.accuracy(candidate, epochs)
        if candidate.variant in self._faults.untrained:
            found = Failure("accuracy", FailureKind.CRASHED, "said to fail")
        elif epochs == self._full:
            self.rows.append(self._row(candidate))
        return found

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        return self._table.test(candidate, epochs)

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        return self._table.model_path(candidate, epochs)

    def _row(self, candidate: Candidate) -> Row:
        low = [n for stage, n in self._table.looked_up.items() if 0 < _epochs(stage) < self._full]
        return Row(
            key=candidate.variant,
            evaluations=self.evaluations(),
            latency_lookups=self.latency_lookups(),
            low_lookups=sum(low),
            trials=self._clock.trials + 1,
            ask_s=self._clock.cpu_s,
        )

    def _told(self, candidate: Candidate, found: Latency | Failure) -> Latency | Failure:
        self._looks[candidate.variant] += 1
        if candidate.variant in self._faults.untimed:
            return Failure("latency", FailureKind.CRASHED, "said to fail")
        factor = self._faults.factors.get(candidate.variant, 1.0)
        if isinstance(found, Failure) or factor == 1.0 or self._looks[candidate.variant] > 1:
            return found
        ms = found.rank_ms.value * factor
        wrong = Interval(ms, ms, ms)
        return replace(found, percentile_ms=wrong, median_ms=wrong, rank_ms=wrong)


def faults_of(task: Task, wrong: int, failed: float, seed: int) -> Faults:
    """Draw the faults of one seed.

    Wrong entries are those that mislead most: in the best tenth by accuracy, and over the budget. Their first latency
    is 3 to 8 times too fast. Of the failing entries half cannot run and half cannot be trained.

    Args:
        task: The table task.
        wrong: Number of wrong latencies.
        failed: Share of failing entries, 0..1.
        seed: Seed of the draw.
    """
    random = numpy.random.default_rng(seed)
    there = task.points.notna() & task.latency_ms.notna()
    tempting = task.points.index[
        there & (task.points >= task.points.quantile(0.9)) & (task.latency_ms > task.best.budget_ms)
    ]
    lying: Iterable[str] = random.choice(tempting, min(wrong, len(tempting)), replace=False) if wrong else []
    dead = random.permutation(task.points.index[there])[: round(failed * int(there.sum()))]
    return Faults(
        {str(key): 1 / random.uniform(3, 8) for key in lying},
        frozenset(map(str, dead[::2])),
        frozenset(map(str, dead[1::2])),
    )


def _epochs(stage: str) -> int:
    """Return the epochs of a stage such as `accuracy@200`; 0 for a stage without training."""
    return int(stage.split("@")[1]) if "@" in stage else 0
