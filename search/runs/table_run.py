"""One run over a table instead of a device: the same study, funnel, budget and report, nothing measured."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from evaluators.measurement import TOP1, WallTime
from evaluators.table_evaluator import TableEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.result import Result
from search.runs.run_directory import code_version, command, lock_run_directory
from search.runs.warm_start import read_earlier
from search.sampling.optuna_study import open_study, record_corrections, samplers
from search.sampling.protocol import StageCosts
from search.selection.finalists import finish
from search.selection.screened import early_stops, looks, screened_candidates
from search.settings import Settings, SettingsError
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import SpaceError
from spaces.table_space import TableSpace, load_table, tables

PREFIX = "table:"


def run(settings: Settings, console: Console, publish: Callable[[Result], None]) -> Result:
    """What a search over a table found, after it was published. Raises SettingsError, SpaceError."""
    if settings.sampler not in samplers():
        raise SettingsError(f"no sampler {settings.sampler!r}; there are {', '.join(samplers())}")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    space, table = _open_table(settings)
    earlier = None
    if settings.warm_start:
        tell = partial(console.print, highlight=False, markup=False)
        earlier = read_earlier(Path(settings.warm_start), space, tell=tell)
    folder = Path(settings.out)
    with ExitStack() as stack:
        settings = stack.enter_context(lock_run_directory(folder, settings))
        watch, ledger = Stopwatch(), Ledger(folder / "ledger.jsonl")
        stack.callback(ledger.close)
        view = stack.enter_context(
            ProgressView(console, settings.budget(), settings.trials_max(), settings.time_limit_s)
        )
        view.device(settings.device, f"a table of {space.size():,} networks measured by others")
        study = open_study(
            folder,
            settings.sampler,
            seed=settings.seed_of_sampler(),
            space=space,
            budget=settings.budget(),
            earlier=earlier,
        )
        limit = settings.time_limit_s
        left = lambda: math.inf if limit is None else limit - ledger.earlier_wall_s() - watch.wall_s()  # noqa: E731
        limits = serial.Limits(
            trials=settings.trials_max(), seconds_left=left, finishing_s=lambda: 0.0, costs=lambda: costs(space)
        )
        evaluator = CachedEvaluator(table, ledger, watch)
        gates = gates_of(space, settings.budget())
        searched = serial.run(study, space, evaluator=evaluator, gates=gates, limits=limits, view=view)
        plain = frozenset(space.parents())
        looked = looks(space, ledger, searched.measurements, settings.budget())
        ending = finish(searched.measurements, evaluator, settings.budget(), plain, view.doing, looks=looked)
        record_corrections(study, ending.measurements)
        result = Result(
            folder=folder,
            command=command(settings),
            started=started,
            budget=settings.budget(),
            device={
                "name": settings.device,
                "table": f"{settings.table}: every number was measured by others; it gives no memory",
            },
            data={"set": settings.data, "accuracy": ", ".join(table.columns.values())},
            provenance={
                "python": platform.python_version(),
                "optuna": version("optuna"),
                "code": code_version(),
                "seed": str(settings.seed),
                "sampler": settings.sampler,
                "space": f"{space.name}, {space.size():,} candidates",
                "looked up": ", ".join(f"{stage} {count}" for stage, count in sorted(table.looked_up.items())),
            },
            measurements=ending.measurements,
            front=ending.front,
            choice=ending.choice,
            baseline=ending.baseline,
            miss=ending.miss,
            seconds=WallTime(wall=ledger.earlier_wall_s() + watch.wall_s()),
            reference_ms=0.0,
            trials_asked=settings.trials_max(),
            screened_candidates=tuple(screened_candidates(space, ledger, ending.measurements, settings.budget())),
            early_stops=early_stops([*ending.measurements, *looked], ledger),
        )
        publish(result)
        return result


def gates_of(space: TableSpace, budget: Budget) -> StageLimits:
    """The gates of a table: full fidelity only; its lower one has a schedule of its own, and is information."""
    return StageLimits(
        budget=budget, rungs=(space.epochs,), brief_epochs=min((epochs for _, epochs in space.low), default=None)
    )


def costs(space: TableSpace) -> StageCosts:
    """Look-ups take no time; these proportions let a sampler ask for ten latencies a training, as a board would."""
    brief_epochs = min((epochs for _, epochs in space.low), default=None)
    return StageCosts(1.0, 100.0 * brief_epochs / space.epochs if brief_epochs else None, 100.0)


def _open_table(settings: Settings) -> tuple[TableSpace, TableEvaluator]:
    if settings.space is None:
        raise SettingsError(f"--table needs --space: one of {', '.join(tables())}, or a TOML file like them")
    if not settings.device.startswith(PREFIX):
        raise SettingsError(f"--table needs --device {PREFIX}COLUMN, not {settings.device!r}")
    if settings.metric != TOP1:
        raise SettingsError(
            f"--metric {settings.metric} needs to know which images were wrong: a table gives top1 only"
        )
    if settings.family or settings.model:
        raise SettingsError("a table knows no networks but its own: leave out --family and --model")
    if settings.budget_mb is not None:
        raise SettingsError("a table gives no memory: leave out --budget-mb")
    space = load_table(settings.space, Path(settings.table or ""))
    try:
        return space, TableEvaluator(space, settings.device.removeprefix(PREFIX), settings.data, settings.percentile)
    except SpaceError as error:
        raise SettingsError(str(error)) from None
