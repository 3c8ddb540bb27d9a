"""What a run hands to its readers: reports, the bundle, the Python API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evaluators.measurement import Measurement, WallTime
from search.budget import Budget


@dataclass(frozen=True)
class NearestMiss:
    """The measured candidate nearest to a budget that nothing keeps."""

    measurement: Measurement
    over: str  # which limit is missed and by how much, one line


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished (or stopped) search."""

    folder: Path
    command: str
    started: str  # ISO 8601
    budget: Budget
    device: dict[str, str]  # what the device says of itself, for people: name, cpu, runtime ...
    data: dict[str, str]  # set, classes, images per split, how it was split, what was left out
    provenance: dict[str, str]  # versions, seed, code version, fingerprint
    measurements: tuple[Measurement, ...]  # every trial, in order of its number
    front: tuple[Measurement, ...]  # non-dominated KEPT ones, fastest first
    choice: Measurement | None
    baseline: Measurement | None
    miss: NearestMiss | None
    seconds: WallTime
    reference_ms: float  # the reference model on this device, calm
    trials_asked: int | None  # None: as many as the time allowed
    classes: tuple[str, ...] = ()  # names, as accuracies number them; empty for a table
    screened: tuple[Measurement, ...] = ()  # measured before trials were chosen, and no trials themselves
    early_stops: tuple[int, int] = (0, 0)  # over the budget, trials and looks: without a training step, in all
    incidents: tuple[tuple[str, int], ...] = ()  # failures of the device that were survived: kind, how often
    warnings: tuple[str, ...] = field(default=())  # in the order they came up, for people
