"""Read an earlier run, of this device or another, for a sampler's warm start."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluators.measurement import TOP1, accuracy_from_dict
from search.bayesopt.observations import PriorRun
from search.settings import SettingsError
from spaces.candidate import Candidate
from spaces.space import CandidateSet


def read_earlier(
    folder: Path, space: CandidateSet, metric: str = TOP1, tell: Callable[[str], None] = lambda line: None
) -> PriorRun:
    """Return a run folder's measurements of this space's candidates: latencies, and accuracies after the most epochs.

    A candidate counts as the same in every runtime.

    Args:
        folder: Folder of the earlier run, which may still be running.
        space: Candidates of this run.
        metric: Accuracy metric; top-1 if the earlier run stored no per-class results.
        tell: Callback that receives one line if lines of the ledger are damaged; the others are used.

    Raises:
        SettingsError: The folder is no run folder, or has no measurements of this space.
    """
    ledger, journal = folder / "ledger.jsonl", folder / "study.journal"
    if not (ledger.is_file() and journal.is_file()):
        raise SettingsError(f"--warm-start {folder} is no run folder: it has no ledger.jsonl and study.journal")
    try:
        latency_ms, accuracy, damaged = _read_measurements(ledger, metric)
        runtimes = _runtimes(journal)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError, OSError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SettingsError(f"--warm-start {folder} can't be read as a run folder ({words}): name another") from None
    if damaged:
        tell(f"--warm-start {folder}: {damaged} damaged line{'s' * (damaged > 1)} of ledger.jsonl left out")
    candidates = [space.candidate(point) for point in space.params()]
    keys = [[replace(candidate, runtime=runtime).key() for runtime in runtimes] for candidate in candidates]
    found = PriorRun(_column(keys, latency_ms), _column(keys, accuracy))
    if not numpy.isfinite(found.latency_ms).any() and not numpy.isfinite(found.accuracy).any():
        raise SettingsError(f"--warm-start {folder} measured no candidate of {space.name}: name a run of this space")
    return found


def _read_measurements(ledger: Path, metric: str) -> tuple[dict[str, float], dict[str, float], int]:
    """Return the last latency and the accuracy at full fidelity by candidate key, and the number of damaged lines."""
    latency_ms: dict[str, float] = {}
    by_epochs: defaultdict[int, dict[str, float]] = defaultdict(dict)
    damaged = 0
    for line in ledger.read_bytes().split(b"\n")[:-1]:  # the text after the last newline is still being written
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry["stage"] == "latency" and entry["value"]["type"] == "Latency":
                latency_ms[entry["key"]] = float(entry["value"]["rank_ms"]["value"])
            elif entry["stage"] == "accuracy" and entry["value"]["type"] == "Accuracy":
                key, _, epochs = entry["key"].partition("@")
                by_epochs[int(epochs)][key] = float(_score(entry["value"], metric))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            damaged += 1
    return latency_ms, by_epochs[max(by_epochs)] if by_epochs else {}, damaged


def _score(value: dict[str, Any], metric: str) -> float:
    accuracy = accuracy_from_dict({name: part for name, part in value.items() if name != "type"})
    return accuracy.value_of(metric if accuracy.confusion else TOP1)


def _runtimes(journal: Path) -> list[str]:
    study = optuna.load_study(study_name="edgefront", storage=JournalStorage(JournalFileBackend(str(journal))))
    measured = (trial.user_attrs.get("candidate") for trial in study.get_trials(deepcopy=False))
    return sorted({Candidate.from_dict(one).runtime for one in measured if one})


def _column(keys: list[list[str]], known: Mapping[str, float]) -> numpy.ndarray:
    """Return (N,) the value of the first known key of each candidate, nan without one."""
    return numpy.array([next((known[key] for key in of if key in known), math.nan) for of in keys])
