"""Define the result of a run, as reports, the bundle and the Python API read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evaluators.measurement import Measurement, WallTime
from search.budget import Budget


@dataclass(frozen=True)
class NearestMiss:
    """Hold the measured candidate that comes nearest to a budget that no candidate keeps.

    Attributes:
        measurement: Measurement of that candidate.
        over: One line that names the violated limit and the excess.
    """

    measurement: Measurement
    over: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hold the result of one search, finished or stopped.

    Attributes:
        folder: Run folder.
        command: Command line that repeats the run.
        started: Start time in ISO 8601.
        budget: Limits of the run.
        device: Properties that the device reports, for people: name, cpu, runtime and others.
        data: Data set, classes, images per split, how it was split, and what was excluded.
        provenance: Versions, seed, code version and device fingerprint.
        measurements: All trials, ordered by trial number.
        front: Non-dominated measurements with outcome KEPT, fastest first.
        choice: Most accurate feasible candidate; None if none keeps the budget.
        baseline: Greedy baseline; None if it was not scored.
        miss: Nearest miss; None if there is a choice.
        seconds: Wall time by kind of work.
        reference_ms: Latency of the reference model on this device in its calm state, in ms.
        trials_asked: Requested number of trials; None means as many as the time allowed.
        rungs: Fine-tuning epochs of the fidelities, ascending.
        time_limit_s: The user's time limit in seconds; None without one.
        classes: Class names in the order of the accuracies' indices; empty for a table.
        screened: Measurements of candidates that were screened and never became trials.
        early_stops: Candidates over the budget, trials and screened ones: number stopped without a training step, and
            number in total.
        incidents: Device failures that the run survived: (kind, count).
        warnings: Warnings for people, in the order in which they arose.
    """

    folder: Path
    command: str
    started: str
    budget: Budget
    device: dict[str, str]
    data: dict[str, str]
    provenance: dict[str, str]
    measurements: tuple[Measurement, ...]
    front: tuple[Measurement, ...]
    choice: Measurement | None
    baseline: Measurement | None
    miss: NearestMiss | None
    seconds: WallTime
    reference_ms: float
    trials_asked: int | None
    rungs: tuple[int, ...] = ()
    time_limit_s: float | None = None
    classes: tuple[str, ...] = ()
    screened: tuple[Measurement, ...] = ()
    early_stops: tuple[int, int] = (0, 0)
    incidents: tuple[tuple[str, int], ...] = ()
    warnings: tuple[str, ...] = field(default=())
