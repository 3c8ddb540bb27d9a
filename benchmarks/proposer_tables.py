"""What search/proposing/ reaches on tables of others' measurements, by itself: no engine, no gate at the budget.

OMP_NUM_THREADS=1 python benchmarks/proposer_tables.py --tasks main   # or others, timm; --wrong 40, --seeds 10
OMP_NUM_THREADS=1 python benchmarks/proposer_tables.py --tasks raspi4/in16 --earlier pixel3/cifar10   # warm start
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from search.proposing import gain
from search.proposing.encoding import encode
from search.proposing.known import Earlier, Known, Settings
from search.proposing.proposer import Proposer

BENCH = Path(__file__).parents[2] / "shared" / "bench"
MAIN = (
    "jetson_nano_fp32/cifar100",
    "jetson_nano_fp16/cifar10",
    "raspi4/in16",
    "gold_6226/cifar100",
    "pi5_onnx/in16",
)
OTHERS = ("titan_rtx_b1/cifar10", "silver_4114/in16", "eyeriss_sim/cifar100", "samsung_a50/cifar10", "pixel3/cifar100")
TIMM = ("timm/cpu_i7_12700h_b1_ms", "timm/rtx4090_amp_ms_per_img")
BRIEF_COST = 12 / 200


@dataclass(frozen=True)
class Task:
    """A table to search, and what is best in it."""

    name: str
    codes: np.ndarray
    features: np.ndarray
    accuracy: np.ndarray
    latency_ms: np.ndarray  # nan: fails
    brief: np.ndarray | None
    goal: gain.Goal  # corner of the README; budget
    full_area: float
    oracle: float


def nb201(name: str, quantile: int, brief: bool) -> Task:
    """A device/dataset of the NAS-Bench-201 table."""
    device, dataset = name.split("/")
    table, times = pd.read_csv(BENCH / "nb201_accuracy.csv.gz"), pd.read_csv(BENCH / "nb201_latency.csv.gz")
    oracles = pd.read_csv(BENCH / "nb201_oracle_budgets.csv")
    row = oracles[(oracles.device == device) & (oracles.dataset == dataset)].iloc[0]
    latency = times[device].to_numpy().copy()
    latency[~(latency > 0)] = np.nan
    goal = gain.Goal(float(row.ref_acc), float(row.ref_lat), float(row[f"budget_p{quantile}_ms"]), 0.0)
    return Task(
        name,
        table[["e01", "e02", "e12", "e03", "e13", "e23"]].to_numpy(),
        table[["flops_M", "params_M"]].to_numpy(),
        table[f"{dataset}_test"].to_numpy(),
        latency,
        table[f"{dataset}_val_ep12"].to_numpy() if brief else None,
        goal,
        float(row.hv_true),
        float(row[f"oracle_acc_p{quantile}"]),
    )


def timm(name: str, quantile: int) -> Task:
    """The ImageNet table: axis = the name's leading word, features = what the table offers; corner as in the README."""
    table = pd.read_csv(BENCH / "timm_imagenet.csv.gz")
    family = pd.factorize(table.arch.str.extract(r"^([a-z]+)")[0])[0]
    accuracy, latency = table.top1.to_numpy(), table[name.split("/")[1]].to_numpy()
    low = float(np.median(accuracy))
    ok = np.flatnonzero(np.isfinite(latency))
    best = ok[gain.front(accuracy[ok], latency[ok])]
    useful = best[accuracy[best] >= low]
    budget = float(np.quantile(latency[useful], quantile / 100))
    goal = gain.Goal(low, 1.1 * float(latency[useful].max()), budget, 0.0)
    within = ok[latency[ok] <= budget]
    features = table[["img_size", "param_M", "gmacs", "macts_M"]].to_numpy()
    area = gain.hypervolume(accuracy[best], latency[best], goal)
    return Task(name, family[:, None], features, accuracy, latency, None, goal, area, float(accuracy[within].max()))


@dataclass
class Bench:
    """A table as it answers: one look at a time, counted; wrong at the first look where `wrong` says so."""

    task: Task
    known: Known
    wrong: dict[int, float]
    order: list[int]
    spent: float = 0.0
    looks: int = 0

    def time(self, which: np.ndarray) -> None:
        """Latency look-ups. A second look at a wrong entry gives the right value."""
        for i in which:
            self.looks += 1
            self.known.looks[i] += 1
            value = self.task.latency_ms[i]
            factor = self.wrong.get(int(i), 1.0) if self.known.looks[i] == 1 else 1.0
            self.known.failed[i] = not np.isfinite(value)
            self.known.latency_ms[i] = value * factor

    def brief(self, which: np.ndarray) -> None:
        """Low-fidelity accuracies, at their share of a training."""
        if len(which):
            assert self.task.brief is not None
            self.known.brief[which] = self.task.brief[which]
            self.spent += BRIEF_COST * len(which)

    def train(self, which: np.ndarray) -> None:
        """Full accuracies."""
        for i in which:
            assert np.isnan(self.known.accuracy[i]) and self.known.looks[i] > 0
            self.known.accuracy[i] = self.task.accuracy[i]
            self.order.append(int(i))
            self.spent += 1.0


@dataclass(frozen=True)
class Trouble:
    """What is made hard on purpose."""

    wrong: int = 0  # entries five times too fast at the first look
    batch: int = 1  # trainings that go on at once


def search(
    task: Task, seed: int, evaluations: int, settings: Settings, trouble: Trouble, earlier: Earlier | None
) -> tuple[pd.DataFrame, Known]:
    """One search: a row for each training, and what it knows in the end."""
    settings = settings if task.brief is not None else replace(settings, tries=0)
    bench = open_bench(task, seed, trouble.wrong)
    encoding = encode(task.codes, task.features)
    proposer = Proposer(encoding, task.goal.budget_ms, seed, settings, earlier)
    rows: list[dict[str, float]] = []
    bench.time(proposer.start_time(bench.known))
    if task.brief is not None:
        bench.brief(proposer.start_try(bench.known))
    for i in proposer.start_train(bench.known):
        bench.train(np.array([i]))
        rows.append(score(bench, 0.0))
    while bench.spent < evaluations and bench.known.waiting().any():
        began = time.process_time()
        timings = min(settings.timings * trouble.batch, int(10 * bench.spent) - bench.looks + 8 * trouble.batch)
        bench.time(proposer.to_time(bench.known, max(timings, 0)))
        bench.time(proposer.to_confirm(bench.known))
        if task.brief is not None:
            bench.brief(proposer.to_try(bench.known))
        chosen = proposer.to_train(bench.known, trouble.batch)
        ask_s = time.process_time() - began
        for i in chosen:
            bench.train(np.array([i]))
            rows.append(score(bench, ask_s / len(chosen)))
    return pd.DataFrame(rows), bench.known


def open_bench(task: Task, seed: int, wrong: int) -> Bench:
    """The table before the first look."""
    random = np.random.default_rng(1000 + seed)
    entries = {int(i): 0.2 for i in random.choice(len(task.accuracy), wrong, replace=False)} if wrong else {}
    return Bench(task, Known.nothing(len(task.accuracy)), entries, [])


def earlier_study(task: Task, seed: int, evaluations: int, shuffled: bool) -> Earlier:
    """What a search of another table, of as many evaluations, has measured; shuffled: to the wrong candidates."""
    known = search(task, 500 + seed, evaluations, Settings(), Trouble(), None)[1]
    accuracy = known.accuracy.copy()
    if shuffled:
        trained = np.flatnonzero(np.isfinite(accuracy))
        accuracy[trained] = np.random.default_rng(seed).permutation(accuracy[trained])
    return Earlier(known.latency_ms, accuracy)


def score(bench: Bench, ask_s: float) -> dict[str, float]:
    """Figures after the last training, by the true latencies; the choice is made by those believed."""
    task, order = bench.task, np.array(bench.order)
    accuracy, truth, believed = task.accuracy[order], task.latency_ms[order], bench.known.latency_ms[order]
    budget = task.goal.budget_ms
    assert budget is not None
    keeps = np.flatnonzero(believed <= budget)
    chosen = keeps[np.argmax(accuracy[keeps])] if len(keeps) else None
    over = chosen is not None and truth[chosen] > budget
    best = accuracy[truth <= budget].max(initial=-np.inf) if chosen is None or over else accuracy[chosen]
    return {
        "spent": bench.spent,
        "area": gain.hypervolume(accuracy, truth, task.goal) / task.full_area,
        "regret": task.oracle - best,
        "over": float(over),
        "looks": bench.looks,
        "ask_s": ask_s,
    }


def table(name: str, runs: list[pd.DataFrame], marks: list[int]) -> str:
    """One line of figures."""
    cells = []
    for mark in marks:
        last = [run[run.spent <= mark + 1e-9].iloc[-1] for run in runs]
        area, regret = np.array([r.area for r in last]), np.array([r.regret for r in last])
        per, over = max(r.looks / mark for r in last), sum(r.over for r in last)
        cells.append(
            f"{mark}: hv {area.mean():.3f} worst {area.min():.3f} regret {regret.mean():.2f} worst {regret.max():.2f}"
            f" looks/eval {per:.1f} over {over:.0f}"
        )
    ask = np.mean([run.ask_s.mean() for run in runs])
    return f"{name:28s} | " + " | ".join(cells) + f" | ask {ask:.3f} s"


def load(name: str, quantile: int, brief: bool) -> Task:
    """By its name."""
    return timm(name, quantile) if name.startswith("timm") else nb201(name, quantile, brief)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=list(MAIN))
    parser.add_argument("--quantile", type=int, default=25, help="budget: this quantile of the useful front")
    parser.add_argument("--settings", default="{}", help="JSON")
    parser.add_argument("--wrong", type=int, default=0, help="entries five times too fast at the first look")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-brief", action="store_true")
    parser.add_argument("--earlier", help="begin with what a search of this table found")
    parser.add_argument("--earlier-evaluations", type=int, default=100)
    parser.add_argument("--shuffled", action="store_true", help="give the earlier study's accuracies to the wrong ones")
    return parser.parse_args()


def main() -> None:
    """Print a line a task."""
    args = parsed()
    named = {"main": MAIN, "others": OTHERS, "timm": TIMM}
    marks = [m for m in (20, 30, 50, 100, 200, 500) if m <= args.evaluations]
    means = []
    for name in [t for key in args.tasks for t in named.get(key, (key,))]:
        task, runs = load(name, args.quantile, not args.no_brief), []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            earlier = args.earlier and earlier_study(
                load(args.earlier, args.quantile, True), seed, args.earlier_evaluations, args.shuffled
            )
            settings, trouble = Settings(**json.loads(args.settings)), Trouble(args.wrong, args.batch)
            runs.append(search(task, seed, args.evaluations, settings, trouble, earlier)[0])
        print(table(name, runs, marks), flush=True)
        means.append([np.mean([r[r.spent <= m + 1e-9].iloc[-1].area for r in runs]) for m in marks])
    print("mean over tasks", {m: round(float(v), 3) for m, v in zip(marks, np.mean(means, axis=0), strict=True)})


if __name__ == "__main__":
    main()
