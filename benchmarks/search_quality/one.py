"""Run one search over a table by the product's study, stages, engine and finish, as `search/runs/table_run.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import optuna
from rich.console import Console

from benchmarks.search_quality.task import Task
from benchmarks.search_quality.watched import Clock, Faults, Row, Watched
from evaluators.table_evaluator import TableEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.bayesopt.observations import PriorRun
from search.budget import Budget
from search.engines import serial
from search.progress import ProgressView
from search.runs.table_run import costs, gates_of
from search.sampling.optuna_study import open_study, samplers
from search.sampling.protocol import MultiFidelitySampler
from search.selection.finalists import SearchOutcome, finish
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger

# Optuna's default sampler; in the product `tpe` is the multivariate one.
OPTUNAS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe_default": lambda seed: optuna.samplers.TPESampler(seed=seed)
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """Describe the state of a search after a number of evaluations.

    Attributes:
        evaluations: Number of evaluations, in units of one full training.
        hv: Normalised hypervolume, 0..1.
        regret: Accuracy below the best within the budget, in points.
        trained: Number of trainings at full fidelity.
        low_lookups: Number of trainings at low fidelity.
        latency_lookups: Number of latency look-ups.
        trials: Number of trials.
        ask_s: CPU time of the sampler over all trials so far, in seconds.
    """

    evaluations: int
    hv: float
    regret: float
    trained: int
    low_lookups: int
    latency_lookups: int
    trials: int
    ask_s: float


@dataclass(frozen=True, kw_only=True)
class End:
    """Describe the choice of a search, judged by the true latency.

    Attributes:
        choice: Key of the choice in the table; empty without a choice.
        over: Whether the choice is slower than the budget.
        lied: Whether the first latency of the choice was wrong.
        front_lied: Number of front members whose wrong latency was never corrected.
        cpu_s: CPU time of the whole run, this project's and Optuna's, in seconds.
    """

    choice: str
    over: bool
    lied: bool
    front_lied: int
    cpu_s: float


def names() -> tuple[str, ...]:
    """Return the names of the samplers that can be compared."""
    return (*samplers(), *OPTUNAS)


def search(
    task: Task,
    sampler: str,
    seed: int,
    limit_ms: float,
    marks: Sequence[int],
    faults: Faults,
    earlier: PriorRun | None = None,
) -> tuple[list[Score], End]:
    """Run one search.

    Args:
        task: Table, device and data set.
        sampler: Name of the sampler.
        seed: Seed of the sampler.
        limit_ms: Latency budget of the search, in ms.
        marks: Numbers of evaluations at which the state is scored; the last one ends the search.
        faults: Wrong and failing entries of the table.
        earlier: Measurements of the same candidates from an earlier run, for samplers that support a warm start.

    Returns:
        The score at each mark, and the choice at the end.
    """
    budget, began = Budget(latency_ms=limit_ms), time.process_time()
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        study = open_study(Path(folder), "random" if sampler in OPTUNAS else sampler, seed, task.space, budget)
        if sampler in OPTUNAS:
            study.sampler = OPTUNAS[sampler](seed)
        if earlier is not None:
            assert isinstance(study.sampler, MultiFidelitySampler)
            study.sampler.start_from(earlier)
        table = TableEvaluator(task.space, task.device, task.data)
        watched = Watched(table, task, faults, Clock(study.sampler))
        evaluator = CachedEvaluator(watched, ledger, Stopwatch())
        left = lambda: math.inf if watched.evaluations() < max(marks) - 1e-9 else -1.0  # noqa: E731
        limits = serial.Limits(
            trials=task.space.size(), seconds_left=left, finishing_s=lambda: 0.0, costs=lambda: costs(task.space)
        )
        view = ProgressView(Console(quiet=True), budget, limits.trials, None)
        searched = serial.run(
            study, task.space, evaluator=evaluator, gates=gates_of(task.space, budget), limits=limits, view=view
        )
        rows = tuple(watched.rows)
        ending = finish(searched.measurements, evaluator, budget, frozenset(task.space.parents()), view.doing)
        ledger.close()
    return [score(task, rows, mark) for mark in marks], _end(
        task, ending, limit_ms, faults, time.process_time() - began
    )


def score(task: Task, rows: Sequence[Row], mark: int) -> Score:
    """Score the candidates that were fully trained within the first `mark` evaluations, by their true latencies."""
    within = [row for row in rows if row.evaluations <= mark + 1e-9]
    keys = [row.key for row in within]
    points, latency = task.points[keys].to_numpy(), task.latency_ms[keys].to_numpy()
    last = within[-1] if within else Row(key="", evaluations=0.0, latency_lookups=0, low_lookups=0, trials=0, ask_s=0.0)
    return Score(
        evaluations=mark,
        hv=task.best.share(points, latency),
        regret=task.best.regret(points, latency),
        trained=len(within),
        low_lookups=last.low_lookups,
        latency_lookups=last.latency_lookups,
        trials=last.trials,
        ask_s=last.ask_s,
    )


def _end(task: Task, ending: SearchOutcome, limit_ms: float, faults: Faults, cpu_s: float) -> End:
    choice = ending.choice.candidate.variant if ending.choice else ""
    lied = [m for m in ending.front if m.candidate.variant in faults.factors and not m.confirmed]
    over = bool(choice) and float(task.latency_ms[choice]) > limit_ms
    return End(choice=choice, over=over, lied=choice in faults.factors, front_lied=len(lied), cpu_s=cpu_s)


def columns(scores: Sequence[Score], end: End) -> list[dict[str, object]]:
    """Return the rows of the results; only the last one has the columns of the end."""
    rows = [{name: _short(value) for name, value in asdict(one).items()} for one in scores]
    rows[-1] |= {name: _short(value) for name, value in asdict(end).items()}
    return rows


def _short(value: object) -> object:
    return float(numpy.format_float_positional(value, 4, fractional=False)) if isinstance(value, float) else value
