"""Assemble a run's Result, for a device and for a table alike."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from evaluators.data.dataset import Dataset
from evaluators.data.resizing import RESIZES
from evaluators.measurement import Measurement, WallTime
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.augmentation import describe, switches
from remote.device import Capabilities, Facts
from remote.link.reply_parsing import printable
from search.result import Result
from search.runs.run_directory import code_version, command
from search.selection.finalists import SearchOutcome
from search.selection.screened import Pooled, early_stops, screened_candidates
from search.settings import Settings
from search.storage.ledger import Ledger
from spaces.space import CandidateSet

KINDS = ("structure", "timing", "training", "scoring")  # kinds of work by which the report splits the time
VERSIONS = ("edgefront", "optuna", "torch", "torchvision", "torch-pruning", "onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Describe for people where the numbers of a run come from.

    Attributes:
        device: Properties that the device reports, or the table that replaces it.
        data: Data set, its splits and the preparation of its images.
        provenance: Versions, seeds and digests.
        classes: Class names in the order of the accuracies' indices.
        reference_ms: Latency of the reference model on the calm device in ms; 0 for a table.
        warnings: Warnings in the order in which they arose.
    """

    device: dict[str, str]
    data: dict[str, str]
    provenance: dict[str, str]
    classes: tuple[str, ...] = ()
    reference_ms: float = 0.0
    warnings: tuple[str, ...] = ()


def assemble_result(
    *,
    settings: Settings,
    started: str,
    space: CandidateSet,
    ledger: Ledger,
    watch: Stopwatch,
    outcome: SearchOutcome,
    looked: Sequence[Measurement],
    pooled: Pooled,
    origin: Origin,
) -> Result:
    """Return the result of a run.

    Args:
        settings: Settings of the run.
        started: ISO 8601 time at which this session began.
        space: Candidates of the run.
        ledger: Everything measured, in this session and earlier ones.
        watch: Stopwatch of this session.
        outcome: Outcome of the search.
        looked: Screened candidates, which were timed and never became trials.
        pooled: Function that returns the latency of a timed candidate.
        origin: Origin of the numbers.
    """
    kinds = {kind: ledger.sum_spent_s(kind) + watch.spent_s.get(kind, 0.0) for kind in (*KINDS, "parents")}
    kinds["training"] += kinds.pop("parents")
    return Result(
        folder=Path(settings.out),
        command=command(settings),
        started=started,
        budget=settings.budget(),
        device={"name": settings.device, **origin.device},
        data=origin.data,
        provenance=origin.provenance,
        measurements=outcome.measurements,
        front=outcome.front,
        choice=outcome.choice,
        baseline=outcome.baseline,
        miss=outcome.miss,
        seconds=WallTime(wall=ledger.earlier_wall_s() + watch.wall_s(), **kinds),
        reference_ms=origin.reference_ms,
        trials_asked=settings.trials_max(),
        rungs=settings.rungs,
        time_limit_s=settings.time_limit_s,
        classes=origin.classes,
        screened=tuple(screened_candidates(space, ledger, pooled, outcome.measurements, settings.budget())),
        early_stops=early_stops([*outcome.measurements, *looked], ledger),
        warnings=origin.warnings,
        incidents=tuple(Counter(entry.value["kind"] for entry in ledger.entries("incident")).most_common()),
    )


def describe_origin(
    *, settings: Settings, facts: Facts, able: Capabilities, runtimes: Mapping[str, str], dataset: Dataset
) -> tuple[dict[str, str], dict[str, str]]:
    """Return descriptions of the device and of the data set for people.

    Args:
        settings: Settings of the run.
        facts: Facts that the device reported.
        able: Capabilities of its runtimes.
        runtimes: Version by name of each runtime that the space uses.
        dataset: Data set of the run.
    """
    device = {
        **({"simulated": "yes: every latency comes from a model of a device"} if facts.simulated else {}),
        **({"board": facts.board} if facts.board else {}),
        "cpu": facts.cpu,
        **({"gpu": f"{facts.gpu.name} (sm {facts.gpu.sm})"} if facts.gpu else {}),
        **({"system": facts.release} if facts.release else {}),
        "cores": str(facts.cores),
        "memory": f"{facts.memory_mb} MB",
        "runtime": ", ".join(f"{name} {number}" for name, number in runtimes.items()),
        "precisions": ", ".join(able.precisions),
        **{f"no {precision}": why for precision, why in able.why_not.items()},
        **{f"evidence for {name}": how for name, how in able.basis.items() if name in able.precisions},
    }
    data = {
        "set": printable(settings.data),
        "classes": ", ".join(dataset.classes),
        **{f"{name} images": str(len(split.labels)) for name, split in dataset.splits.items()},
        "split": dataset.note,
        "resize": RESIZES[dataset.resize],
        "augmentation": describe(switches(settings.augment)),
    }
    return device, data


def describe_versions(settings: Settings, space: CandidateSet, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions, seed, sampler and space of a run.

    Args:
        settings: Settings of the run.
        space: Candidates of the run.
        packages: Names of the packages to list with their versions.
    """
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "code": code_version(),
        "seed": str(settings.seed),
        "sampler": settings.sampler,
        "space": f"{space.name}, {space.size():,} candidates",
    }
