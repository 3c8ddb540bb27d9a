"""Run one search over a table instead of a device: same study, stages, budget and report, but no measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from evaluators.measurement import TOP1
from evaluators.table_evaluator import TableEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.result import Result
from search.runs.assemble_result import Origin, assemble_result, describe_versions
from search.runs.run_directory import lock_run_directory
from search.runs.warm_start import read_earlier
from search.sampling.optuna_study import open_study, record_corrections, samplers
from search.sampling.protocol import StageCosts
from search.selection.finalists import finish
from search.selection.screened import looks
from search.settings import Settings, SettingsError
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import SpaceError
from spaces.table_space import TableSpace, load_table, tables

PREFIX = "table:"


def run(settings: Settings, console: Console, publish: Callable[[Result], None]) -> Result:
    """Search over a table, publish the result and return it; raise SettingsError or SpaceError for invalid input."""
    if settings.sampler not in samplers():
        raise SettingsError(f"unknown sampler {settings.sampler!r}; accepted: {', '.join(samplers())}")
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
        limits = _limits_of(settings, space, ledger, watch)
        evaluator = CachedEvaluator(table, ledger, watch)
        gates = gates_of(space, settings.budget())
        searched = serial.run(study, space, evaluator=evaluator, gates=gates, limits=limits, view=view)
        plain = frozenset(space.parents())
        looked = looks(space, ledger, evaluator.pooled, searched.measurements, settings.budget())
        ending = finish(searched.measurements, evaluator, settings.budget(), plain, view.doing, looks=looked)
        record_corrections(study, ending.measurements)
        origin = Origin(
            device={"table": f"{settings.table}: every number was measured by others; it gives no memory"},
            data={"set": settings.data, "accuracy": ", ".join(table.columns.values())},
            provenance={
                **describe_versions(settings, space, ("optuna",)),
                "looked up": ", ".join(f"{stage} {count}" for stage, count in sorted(table.looked_up.items())),
            },
        )
        result = assemble_result(
            settings=settings,
            started=started,
            space=space,
            ledger=ledger,
            watch=watch,
            outcome=ending,
            looked=looked,
            pooled=evaluator.pooled,
            origin=origin,
        )
        publish(result)
        return result


def _limits_of(settings: Settings, space: TableSpace, ledger: Ledger, watch: Stopwatch) -> serial.Limits:
    """Return when to stop asking; nothing has to be kept for the end, since nothing is measured."""
    limit_s = settings.time_limit_s

    def left_s() -> float:
        return math.inf if limit_s is None else limit_s - ledger.earlier_wall_s() - watch.wall_s()

    return serial.Limits(
        trials=settings.trials_max(), seconds_left=left_s, finishing_s=lambda: 0.0, costs=lambda: costs(space)
    )


def gates_of(space: TableSpace, budget: Budget) -> StageLimits:
    """Return the stage limits of a table.

    Only full fidelity is a rung: the lower fidelity has a training schedule of its own, and serves as information
    alone.

    Args:
        space: Candidates of the table.
        budget: Limits of the run.
    """
    return StageLimits(
        budget=budget, rungs=(space.epochs,), brief_epochs=min((epochs for _, epochs in space.low), default=None)
    )


def costs(space: TableSpace) -> StageCosts:
    """Return nominal costs of a table's stages.

    Look-ups take no time; these proportions let a sampler request ten latencies per training, as on a real device.
    """
    brief_epochs = min((epochs for _, epochs in space.low), default=None)
    return StageCosts(1.0, 100.0 * brief_epochs / space.epochs if brief_epochs else None, 100.0)


def _open_table(settings: Settings) -> tuple[TableSpace, TableEvaluator]:
    if settings.space is None:
        raise SettingsError(f"--table needs --space: one of {', '.join(tables())}, or a TOML file like them")
    if not settings.device.startswith(PREFIX):
        raise SettingsError(f"--table needs --device {PREFIX}COLUMN, not {settings.device!r}")
    if settings.metric != TOP1:
        raise SettingsError(f"--metric {settings.metric} needs the answer to each image: a table has top1 only")
    if settings.family or settings.model:
        raise SettingsError("a table run has no networks beside those of the table: leave out --family and --model")
    if settings.budget_mb is not None:
        raise SettingsError("a table has no memory values: leave out --budget-mb")
    space = load_table(settings.space, Path(settings.table or ""))
    try:
        return space, TableEvaluator(space, settings.device.removeprefix(PREFIX), settings.data, settings.percentile)
    except SpaceError as error:
        raise SettingsError(str(error)) from None
