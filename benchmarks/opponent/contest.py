"""Run a search and a script on the same task, one after the other, and time both choices side by side."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas

from benchmarks.peers.contest import in_onnxruntime, time_in_turn
from spaces.space import load

ROUNDS = 2000


@dataclass(frozen=True, kw_only=True)
class Task:
    """Describe a task of both contestants.

    Attributes:
        data: Folder of the data set.
        weights: Folder of pretrained weights.
        budget_ms: Latency limit in ms.
        minutes: Time limit.
        seed: Seed of splits, sampler and training.
    """

    data: Path
    weights: Path
    budget_ms: float
    minutes: float
    seed: int

    def name(self) -> str:
        """Return a name for folders."""
        return f"{self.data.name}-{self.budget_ms:g}ms-{self.minutes:g}m-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Describe the choice of a contestant.

    Attributes:
        model: ONNX file; None if nothing was chosen.
        name: Network, input size and precision.
        validation: Validation accuracy, 0..1.
        test: Test accuracy, 0..1.
        first_s: Seconds until the first trained candidate within the budget.
        wall_s: Seconds in all.
        course: (seconds, best validation accuracy within the budget so far), ascending.
    """

    model: Path | None
    name: str
    validation: float
    test: float
    first_s: float
    wall_s: float
    course: tuple[tuple[float, float], ...]


def search(task: Task, space: str, out: Path) -> Choice:
    """Run our search with caches of its own.

    Args:
        task: Task.
        space: Preset of the search space.
        out: New folder for the run and its caches.
    """
    limit_s = round(60 * task.minutes)
    words = f"--device local --space {space} --budget-ms {task.budget_ms} --time-limit {limit_s}s --seed {task.seed}"
    folders = ["--data", str(task.data), "--weights", str(task.weights), "--cache", str(out / "cache")]
    command = [sys.executable, "-m", "search.run", *words.split(), *folders, "--out", str(out / "run")]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall_s = time.monotonic() - began
    (out / "log.txt").write_text(done.stdout + done.stderr)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    trials = pandas.read_csv(out / "run" / "trials.csv")
    searched = load(space)
    keys = {candidate.describe(): candidate.key() for candidate in map(searched.candidate, searched.params())}
    within = {keys[name] for name in trials.candidate[trials.keeps_budget.eq(True)] if name in keys}
    course = _course(_scores(out / "run" / "ledger.jsonl", within))
    row = trials[trials.chosen]
    if row.empty:
        return Choice(
            model=None,
            name="",
            validation=float("nan"),
            test=float("nan"),
            first_s=course[0][0] if course else float("nan"),
            wall_s=wall_s,
            course=course,
        )
    chosen = row.iloc[0]
    return Choice(
        model=out / "run" / "chosen" / "model.onnx",
        name=json.loads((out / "run" / "chosen" / "config.json").read_text())["candidate"]["description"],
        validation=float(chosen.validation_score),
        test=float(chosen.test_score),
        first_s=course[0][0] if course else float("nan"),
        wall_s=wall_s,
        course=course,
    )


def _scores(ledger: Path, keys: set[str]) -> list[tuple[float, float]]:
    """Return (seconds, accuracy) of each score of the candidates within the budget."""
    found = []
    for line in ledger.read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] == "accuracy" and entry["key"].partition("@")[0] in keys and "top1" in entry["value"]:
            found.append((float(entry["at_s"]), float(entry["value"]["top1"])))
    return found


def script(task: Task, file: Path, out: Path) -> Choice:
    """Run the script `FILE DATA WEIGHTS BUDGET_MS SECONDS OUT SEED`, which prints a JSON line per trained network.

    Args:
        task: Task.
        file: The script.
        out: New folder for its models.
    """
    words = [task.data, task.weights, task.budget_ms, round(60 * task.minutes), out, task.seed]
    command = [sys.executable, str(file), *map(str, words)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    wall_s = time.monotonic() - began
    (out / "log.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    course = _course([(row["at"], row["val"]) for row in rows])
    best = max(rows, key=lambda row: row["val"], default=None)
    if best is None:
        nan = float("nan")
        return Choice(model=None, name="", validation=nan, test=nan, first_s=nan, wall_s=wall_s, course=())
    suffix = "-int8" if best["kind"] == "int8" else ""
    return Choice(
        model=out / f"{best['net']}-{best['px']}{suffix}.onnx",
        name=f"{best['net']} {best['px']}px {best['kind']}",
        validation=best["val"],
        test=best["test"],
        first_s=course[0][0],
        wall_s=wall_s,
        course=course,
    )


def _course(scores: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    best, course = -1.0, []
    for at_s, score in sorted(scores):
        if score > best:
            best = score
            course.append((at_s, score))
    return tuple(course)


def p95_ms(models: Mapping[str, Path], rounds: int = ROUNDS, seed: int = 0) -> dict[str, float]:
    """Time models side by side in ONNX Runtime with one thread, as the comparison with peers does.

    Args:
        models: ONNX file by name; each has one input of a fixed shape.
        rounds: Number of rounds.
        seed: Seed of images and order.

    Returns:
        The 95th percentile of each in ms.
    """
    random_images, runs, images = np.random.default_rng(seed), {}, {}
    for name, model in models.items():
        [entry] = onnx.load(model, load_external_data=False).graph.input
        shape = [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        runs[name], images[name] = in_onnxruntime(str(model)), random_images.random(shape, dtype=np.float32)
    took = time_in_turn(runs, images, rounds, random.Random(seed))
    return {name: float(np.percentile(times, 95)) for name, times in took.items()}


def contest(task: Task, *, space: str, file: Path, out: Path) -> list[dict[str, object]]:
    """Return a row per contestant: its choice, both timed side by side.

    Args:
        task: Task.
        space: Preset of our search space.
        file: The script.
        out: Folder for both runs.
    """
    folders = {who: out / task.name() / who for who in ("edgefront", "script")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    found = {"edgefront": search(task, space, folders["edgefront"]), "script": script(task, file, folders["script"])}
    timed = p95_ms({who: choice.model for who, choice in found.items() if choice.model}, seed=task.seed)
    rows = []
    for who, choice in found.items():
        row = {key: value for key, value in asdict(choice).items() if key not in ("model", "course")}
        side_ms = timed.get(who, float("nan"))
        course = " ".join(f"{at_s:.0f}:{score:.4f}" for at_s, score in choice.course)
        about = {"set": task.data.name, "budget_ms": task.budget_ms, "minutes": task.minutes, "seed": task.seed}
        rows.append(about | {"who": who} | row | {"side_by_side_p95_ms": side_ms, "course": course})
    return rows
