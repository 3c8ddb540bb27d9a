"""Measure the share of a table's front that each sampler finds by its number of trainings.

Runs that are already in OUT/results.csv are skipped; tables and pictures cover all runs in that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas

from benchmarks.search_quality import one, plots, summary
from benchmarks.search_quality.task import Task, read
from benchmarks.search_quality.watched import faults_of
from spaces.space import SpaceError
from spaces.table_space import load_table

BENCH = Path(__file__).parents[3] / "shared" / "bench"
TASKS = ("jetson_nano_fp32/cifar100", "jetson_nano_fp16/cifar10", "raspi4/in16", "gold_6226/cifar100", "pi5_onnx/in16")
SAMPLERS = ("budget", "tpe", "nsga2", "random")
MODES = ("front", "budget")


class Run(NamedTuple):
    """Identify one search, apart from the table and the marks that all searches share."""

    mode: str
    faults: str
    sampler: str
    task: str
    seed: int


def main(words: Sequence[str] | None = None) -> int:
    """Run all searches that are missing from the results; return exit code 0 if all have run."""
    args = _parser().parse_args(words)
    try:
        for name in args.tasks:
            _task(args.space, args.table, name, args.quantile)
    except SpaceError as error:
        print(error, file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.csv"
    done = set(_results(file)[list(Run._fields)].itertuples(index=False, name=None))
    faults = ", ".join([f"{args.wrong} wrong"] * (args.wrong > 0) + [f"{args.failed:g} failed"] * (args.failed > 0))
    runs = [Run(*run) for run in product(args.modes, [faults], args.samplers, args.tasks, range(args.seeds))]
    wanted = [run for run in runs if run not in done]
    for number, (run, rows) in enumerate(_searches(wanted, args), start=1):
        frame = pandas.DataFrame([run._asdict() | row for row in rows])
        frame.to_csv(file, mode="a", header=not file.exists(), index=False)
        last = rows[-1]
        print(f"{number} of {len(wanted)}: {' '.join(map(str, run))}: {last}", flush=True)
    report(args.out, args.evaluations)
    return 0


def report(out: Path, marks: Sequence[int]) -> None:
    """Write the tables into OUT/README.md, and the pictures beside it."""
    results = _results(out / "results.csv")
    summary.renew(out / "README.md", summary.markdown(results, marks))
    plain = results[results.faults == ""]
    for mode, measure in summary.MEASURES.items():
        if not (rows := plain[plain["mode"] == mode]).empty:
            plots.draw(rows, measure, out / f"{measure}.png")
            plots.draw(rows.assign(ask_ms=1000 * rows.ask_s / rows.trials), "ask_ms", out / f"ask_{mode}.png")


def _searches(runs: Sequence[Run], args: argparse.Namespace) -> Iterator[tuple[Run, list[dict[str, object]]]]:
    """Iterate over the runs with their result rows, in order."""
    if args.jobs == 1:
        yield from ((run, _search(run, args)) for run in runs)
        return
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        yield from zip(runs, pool.map(_search, runs, [args] * len(runs)), strict=True)


def _search(run: Run, args: argparse.Namespace) -> list[dict[str, object]]:
    task = _task(args.space, args.table, run.task, args.quantile)
    limit_ms = task.best.corner_ms if run.mode == "front" else task.best.budget_ms
    marks = sorted({*args.evaluations, *range(10, max(args.evaluations), 10)})
    faults = faults_of(task, args.wrong, args.failed, run.seed)
    return one.columns(*one.search(task, run.sampler, seed=run.seed, limit_ms=limit_ms, marks=marks, faults=faults))


@cache
def _task(space: str, table: Path, name: str, quantile: float) -> Task:
    return read(name, load_table(space, table), quantile / 100)


def _results(file: Path) -> pandas.DataFrame:
    if not file.exists():
        return pandas.DataFrame(columns=list(Run._fields))
    return pandas.read_csv(file, dtype={"choice": str, "faults": str}).fillna({"faults": ""})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_quality", description=__doc__)
    parser.add_argument("--table", type=Path, default=BENCH, help="folder of the table's files")
    parser.add_argument("--space", default="nb201", help="a table of spaces/tables/, or a TOML file like them")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="DEVICE/DATA")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=one.names(), metavar="NAME")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--seeds", type=int, default=10, help="from 0")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 200], help="shown; the last ends a run")
    parser.add_argument("--quantile", type=float, default=25.0, help="budget: of the useful front's latencies, percent")
    parser.add_argument("--wrong", type=int, default=0, help="entries 3 to 8 times too fast at the first look")
    parser.add_argument("--failed", type=float, default=0.0, help="share of candidates that can't be run or trained")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path("runs/search_quality"), help="folder of results and README")
    return parser


if __name__ == "__main__":
    sys.exit(main())
