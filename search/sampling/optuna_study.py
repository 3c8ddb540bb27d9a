"""The Optuna study in the run folder: opened, mended after a kill, asked and told."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from evaluators.measurement import FAILED, KEPT, Measurement
from search.bayesopt.observations import PriorRun
from search.budget import Budget
from search.sampling.protocol import MultiFidelitySampler
from search.selection.pareto import objectives
from search.storage.journal import Journal, replay_journal
from spaces.candidate import Candidate
from spaces.space import CandidateSet, SpaceError

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
SAMPLERS = Path(__file__).parents[1] / "samplers"
ASKS_MAX = 50  # repeats in a row after which a sampler is held to have run dry


@dataclass(frozen=True)
class ProposedTrial:
    """A trial and the candidate it stands for."""

    trial: Trial
    candidate: Candidate


def samplers() -> tuple[str, ...]:
    """Names of the samplers there are: the files of `search/samplers/`."""
    return tuple(sorted(path.stem for path in SAMPLERS.glob("*.py") if path.stem != "__init__"))


def open_study(
    folder: Path, sampler: str, seed: int, space: CandidateSet, budget: Budget, earlier: PriorRun | None = None
) -> optuna.Study:
    """The study of a run folder, new or gone on with; trials that a kill left open are closed and queued again.

    One controller holds the run folder at a time. Raises SettingsError where the journal is damaged.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    journal = folder / "study.journal"
    storage = replay_journal(journal, lambda: JournalStorage(Journal(journal)))
    known = [s for s in storage.get_all_studies() if s.study_name == "edgefront"]
    trials = storage.get_n_trials(known[0]._study_id) if known else 0
    module = importlib.import_module(f"search.samplers.{sampler}")
    study = optuna.create_study(
        study_name="edgefront",
        storage=storage,
        directions=list(DIRECTIONS),
        # a sampler's random state is not in the journal: a resumed one must not draw its first draws again
        sampler=module.make((seed + 1000003 * trials) % 2**32, space, budget),
        load_if_exists=True,
    )
    if not known:
        study.set_metric_names([f"validation_{budget.metric}", "rank_ms", "peak_mb"])
    if earlier is not None and isinstance(study.sampler, MultiFidelitySampler):
        study.sampler.start_from(earlier)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        known = trial.system_attrs.get("fixed_params", {}) | trial.params  # a kill may have come between two of them
        study.enqueue_trial(known, user_attrs={"retry_of": trial.number})
    return study


def has_queued(study: optuna.Study) -> bool:
    """True while trials wait that nobody proposed: the plain networks, and what a kill left open."""
    return bool(study.get_trials(deepcopy=False, states=[TrialState.WAITING]))


def ask(study: optuna.Study, space: CandidateSet, seen: set[str]) -> ProposedTrial | None:
    """The next candidate not seen before; None when the space, or the sampler, has no more.

    A repeat is closed as failed with the attribute `repeat`, and so, with `nowhere`, is a combination that the space
    has not: a table may lack a row.
    """
    for _ in range(ASKS_MAX):
        trial = study.ask()
        try:
            candidate = space.suggest(trial)
        except SpaceError:
            trial.set_user_attr("nowhere", True)
        else:
            if candidate.key() not in seen:
                return ProposedTrial(trial, candidate)
            trial.set_user_attr("repeat", True)
        study.tell(trial, state=TrialState.FAIL)
    left = next((p for p in space.params() if space.candidate(p).key() not in seen), None)
    if left is None:
        return None
    study.enqueue_trial(left)
    trial = study.ask()
    return ProposedTrial(trial, space.suggest(trial))


def tell(study: optuna.Study, trial: Trial, measurement: Measurement, budget: Budget) -> None:
    """Close a trial with its measurement as attributes, constraints (<= 0 keeps them) and values.

    Only what was measured in full has values; what a gate stopped is pruned, and infeasible by the constraint
    it broke. A failure that is not the candidate's own fault teaches nothing.
    """
    latency = measurement.latency
    trial.set_constraint("built", 1.0 if measurement.outcome == FAILED else 0.0)
    trial.set_constraint("latency_ms", budget.excess_ms(latency) if latency else 0.0)
    trial.set_constraint("peak_mb", budget.excess_mb(latency) if latency else 0.0)
    for name, value in _finite(measurement.to_dict()).items():
        trial.set_user_attr(name, value)
    if measurement.outcome == KEPT:
        study.tell(trial, list(objectives(measurement)))
    else:
        study.tell(trial, state=TrialState.PRUNED)


def waiting(study: optuna.Study, space: CandidateSet) -> list[Candidate]:
    """Return the candidates of queued trials; one that a kill left half asked is none yet."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        with contextlib.suppress(KeyError, SpaceError):
            found.append(space.candidate(trial.system_attrs["fixed_params"]))
    return found


def record_corrections(study: optuna.Study, measurements: Iterable[Measurement]) -> None:
    """Write down which outcomes the end of a search changed.

    A trial that has ended can't be changed in a study, so what is different stands in the study's own attributes, under
    `corrections`: by the trial's number its outcome, reason and latency.

    Args:
        study: The study.
        measurements: What the report says of its trials.
    """
    told = {trial.number: trial.user_attrs.get("outcome") for trial in study.get_trials(deepcopy=False)}
    changed = {
        str(m.trial): _finite({"outcome": m.outcome, "reason": m.reason, "latency": m.to_dict()["latency"]})
        for m in measurements
        if m.trial in told and told[m.trial] != m.outcome
    }
    if changed != study.user_attrs.get("corrections", {}):
        study.set_user_attr("corrections", changed)


def iter_evaluated(study: optuna.Study, space: CandidateSet) -> Iterator[tuple[FrozenTrial, Candidate]]:
    """Closed trials that stand for a candidate evaluated, in order."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]):
        yield trial, space.candidate(trial.params)


def _finite(value: Any) -> Any:
    """The same JSON value with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
