"""Measure rows with the product: its device evaluator trains, converts and scores, its agent times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.compression.plan import LADDER, Row, Task
from benchmarks.compression.sets import opened
from evaluators.data.dataset import Dataset
from evaluators.device_evaluator import DeviceEvaluator, EvaluatorConfig
from evaluators.measurement import Accuracy, Block, Failure, Latency, Structure
from evaluators.stages.graph_cache import GraphConfig
from evaluators.timing.latency import TimingRules, TimingTarget, calibrate, reduce_blocks, time_block
from evaluators.timing.reference_model import reference_model
from evaluators.timing.reference_pace import ReferencePace
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.jobs import recipe_for
from evaluators.training.parent_networks import ParentConfig
from evaluators.training.worker_process import Worker
from remote.connect import connect
from remote.device import Capabilities, capabilities
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job

RUNTIME, PERCENTILE = "onnxruntime", 95.0
RULES = TimingRules()
Figures = dict[str, object]


@dataclass(kw_only=True)
class Bench:
    """Hold the open resources of one run of the command."""

    work: Path
    data: Path
    weights: Path
    session: RetryingSession
    able: Capabilities
    version: str
    worker: Worker
    datasets: dict[str, Dataset] = field(default_factory=dict)
    boards: dict[tuple[str, str, int], DeviceEvaluator] = field(default_factory=dict)


@contextmanager
def bench(work: Path, data: Path, weights: Path) -> Iterator[Bench]:
    """Context manager that opens a bench on this machine. Raises DeviceError."""
    with ExitStack() as stack:
        session, _, _ = connect("local")
        stack.enter_context(session)
        able = capabilities(session.facts, [RUNTIME])
        worker = stack.enter_context(Worker(work / "worker.log"))
        yield Bench(
            work=work,
            data=data,
            weights=weights,
            session=RetryingSession(session),
            able=able,
            version=session.facts.runtimes[RUNTIME],
            worker=worker,
        )


def score(bench: Bench, task: Task, row: Row) -> Figures:
    """Score a row: accuracy on validation and test, size and escalation levels; else `failed` holds the reason."""
    board = _board(bench, task, row)
    # other precisions have the same layers and MACs
    structure = board.structure(row.candidate) if row.candidate.precision == "fp32" else None
    validation = board.accuracy(row.candidate, row.epochs)
    test = validation if isinstance(validation, Failure) else board.test(row.candidate, row.epochs)
    for stage in (structure, validation, test):
        if isinstance(stage, Failure):
            return {"failed": f"{stage.kind}: {stage.reason}"}
    assert isinstance(validation, Accuracy) and isinstance(test, Accuracy)
    return {
        "macs_m": round(structure.macs / 1e6, 3) if isinstance(structure, Structure) else None,
        "size_mb": round(model(bench, task, row).stat().st_size / 1e6, 4),
        "validation": round(validation.top1, 5),
        "correct": test.correct,
        "count": test.count,
        "rungs": "; ".join(f"{rung.name} {rung.top1:.4f}{' kept' * rung.kept}" for rung in validation.rungs),
    }


def model(bench: Bench, task: Task, row: Row) -> Path:
    """Return the path of the scored file."""
    return _folder(bench, row) / _board(bench, task, row).model_path(row.candidate, row.epochs)


def reference_ms(bench: Bench) -> tuple[float, str]:
    """Time the reference model on the device; return its milliseconds, and why the device may not be calm."""
    return calibrate(bench.session, bench.session.put(reference_model()), Job(runtime=RUNTIME), RULES)


def timed(bench: Bench, models: Sequence[tuple[Path, str]], yardstick_ms: float, rounds: int) -> list[Latency]:
    """Time each model (file, precision): one block of each per round; disturbed blocks are repeated once."""
    reference = bench.session.put(reference_model())
    targets = [
        TimingTarget(
            model_sha256=bench.session.put(file),
            reference_sha256=reference,
            job=Job(runtime=RUNTIME, precision=precision),
            runtime_version=bench.version,
            percentile=PERCENTILE,
            reference_ms=yardstick_ms,
        )
        for file, precision in models
    ]
    blocks: list[list[Block]] = [[] for _ in targets]
    repeated = [0] * len(targets)
    for _ in range(rounds):
        for place, target in enumerate(targets):
            block = time_block(bench.session, target, RULES)
            if block.disturbed and repeated[place] < RULES.repeats_max:
                repeated[place] += 1
                block = time_block(bench.session, target, RULES)
            blocks[place].append(block)
    return [
        reduce_blocks(taken, target, RULES, again)
        for taken, target, again in zip(blocks, targets, repeated, strict=True)
    ]


def _board(bench: Bench, task: Task, row: Row) -> DeviceEvaluator:
    """Return the evaluator for a data set, a method of quantization and a number of epochs."""
    way = row.treatment.way
    name = (row.data, way.folder, row.epochs)
    if name not in bench.boards:
        folder = _folder(bench, row)
        folder.mkdir(parents=True, exist_ok=True)
        if way is not LADDER and not (folder / "nets").exists():  # all methods share the trained networks
            (folder.parent / LADDER.folder / "nets").mkdir(parents=True, exist_ok=True)
            (folder / "nets").symlink_to(Path("..") / LADDER.folder / "nets")
        bench.boards[name] = DeviceEvaluator(
            _setup(bench, task, row, folder),
            bench.session,
            worker=bench.worker,
            watch=Stopwatch(),
            doing=lambda what, share: None,
        )
    return bench.boards[name]


def _setup(bench: Bench, task: Task, row: Row, folder: Path) -> EvaluatorConfig:
    way, dataset = row.treatment.way, _dataset(bench, row.data)
    able = bench.able if way.int8 is None else replace(bench.able, int8=way.int8)
    return EvaluatorConfig(
        folder=folder,
        parents=ParentConfig(
            dataset=dataset,
            images=bench.work / "cache" / "images",
            folder=bench.work / "cache" / "parents",
            recipe=recipe_for(dataset, seed=0, parent_epochs=task.parent_epochs),
            weights=bench.weights if bench.weights.is_dir() else None,
            download=False,
            variants={},
            parent_px={net.family: net.image_px for net in task.nets},
            teacher="parent",
            progress=folder / "progress.json",
            record=folder / "teacher.json",
            shortened=folder / "short_parents.json",
        ),
        graphs=GraphConfig(able=able, ladder=way.ladder),
        versions={RUNTIME: bench.version},
        workspace_mb=256,
        references={},  # the evaluator times nothing; `timed` times the variants in turn
        yardstick=ReferencePace({}, 0.15, lambda runtime, old_ms, new_ms: None),
        percentile=PERCENTILE,
        rules=RULES,
        rungs=tuple(sorted({0, row.epochs})),
    )


def _folder(bench: Bench, row: Row) -> Path:
    return bench.work / row.data / row.treatment.way.folder


def _dataset(bench: Bench, name: str) -> Dataset:
    if name not in bench.datasets:
        bench.datasets[name] = opened(name, bench.data, bench.work)
    return bench.datasets[name]
