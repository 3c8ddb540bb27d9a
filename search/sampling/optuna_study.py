"""Open the Optuna study of a run folder, repair it after a kill, and exchange trials with it."""

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

from evaluators.measurement import Measurement, Outcome
from search.bayesopt.observations import PriorRun
from search.budget import Budget
from search.sampling.protocol import MultiFidelitySampler
from search.selection.pareto import objectives
from search.storage.journal import Journal, replay_journal
from spaces.candidate import Candidate
from spaces.space import CandidateSet, SpaceError

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
SAMPLERS = Path(__file__).parents[1] / "samplers"
ASKS_MAX = 50  # consecutive repeats after which a sampler counts as exhausted


@dataclass(frozen=True)
class ProposedTrial:
    """Hold a trial and its candidate.

    Attributes:
        trial: Open trial of the study.
        candidate: Candidate of the trial's parameters.
    """

    trial: Trial
    candidate: Candidate


def samplers() -> tuple[str, ...]:
    """Return the names of all samplers: the files of `search/samplers/`."""
    return tuple(sorted(path.stem for path in SAMPLERS.glob("*.py") if path.stem != "__init__"))


def open_study(
    folder: Path, sampler: str, seed: int, space: CandidateSet, budget: Budget, earlier: PriorRun | None = None
) -> optuna.Study:
    """Open the study of a run folder, new or resumed; trials that a kill left open are closed and queued again.

    Only one process at a time uses the run folder.

    Args:
        folder: Run folder.
        sampler: Name of a file in `search/samplers/`.
        seed: Seed of the sampler.
        space: Candidates of the run.
        budget: Limits of the run.
        earlier: Earlier run for a warm start; None without one.

    Raises:
        SettingsError: The journal is damaged.
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
        # the journal has no random state of the sampler: a resumed sampler must not repeat its first draws
        sampler=module.make((seed + 1000003 * trials) % 2**32, space, budget),
        load_if_exists=True,
    )
    if not known:
        study.set_metric_names([f"validation_{budget.metric}", "rank_ms", "peak_mb"])
    if earlier is not None and isinstance(study.sampler, MultiFidelitySampler):
        study.sampler.start_from(earlier)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        known = trial.system_attrs.get("fixed_params", {}) | trial.params  # a kill may have come between two parameters
        study.enqueue_trial(known, user_attrs={"retry_of": trial.number})
    return study


def has_queued(study: optuna.Study) -> bool:
    """Return True while queued trials wait: uncompressed networks, and trials that a kill left open."""
    return bool(study.get_trials(deepcopy=False, states=[TrialState.WAITING]))


def ask(study: optuna.Study, space: CandidateSet, seen: set[str]) -> ProposedTrial | None:
    """Return the next candidate that was not evaluated before.

    A repeated candidate is closed as failed with the attribute `repeat`. A combination of parameters that the space
    lacks, such as a missing row of a table, is closed with `nowhere`.

    Args:
        study: Study to ask.
        space: Candidates of the run.
        seen: Keys of evaluated candidates.

    Returns:
        The trial and its candidate, or None if every candidate of the space was evaluated.
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
    """Close a trial with its measurement as attributes, constraints (<= 0 is feasible) and values.

    Only a full measurement has values. A candidate that a stage limit stopped is pruned, and infeasible by the
    constraint that it violates. A failure that the candidate did not cause teaches the sampler nothing.

    Args:
        study: Study of the trial.
        trial: Open trial.
        measurement: Measurement of its candidate.
        budget: Limits of the run.
    """
    latency = measurement.latency
    trial.set_constraint("built", 1.0 if measurement.outcome == Outcome.FAILED else 0.0)
    is_over = measurement.outcome == Outcome.OVER_BUDGET
    excess_ms = budget.excess_ms if is_over else budget.possible_excess_ms
    trial.set_constraint("latency_ms", excess_ms(latency) if latency else 0.0)
    trial.set_constraint("peak_mb", budget.excess_mb(latency) if latency else 0.0)
    for name, value in _finite(measurement.to_dict()).items():
        trial.set_user_attr(name, value)
    if measurement.outcome == Outcome.KEPT:
        study.tell(trial, list(objectives(measurement)))
    else:
        study.tell(trial, state=TrialState.PRUNED)


def waiting(study: optuna.Study, space: CandidateSet) -> list[Candidate]:
    """Return the candidates of queued trials; a trial that a kill left incomplete has none yet."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        with contextlib.suppress(KeyError, SpaceError):
            found.append(space.candidate(trial.system_attrs["fixed_params"]))
    return found


def record_corrections(study: optuna.Study, measurements: Iterable[Measurement]) -> None:
    """Record the outcomes that the end of a search changed.

    A finished trial of a study can't be changed. The study's own attribute `corrections` therefore holds the new
    outcome, reason and latency by trial number.

    Args:
        study: Study of the trials.
        measurements: Final measurements of the trials, as reported.
    """
    told = {trial.number: trial.user_attrs.get("outcome") for trial in study.get_trials(deepcopy=False)}
    changed = {
        str(m.trial): _finite({"outcome": str(m.outcome), "reason": m.reason, "latency": m.to_dict()["latency"]})
        for m in measurements
        if m.trial in told and told[m.trial] != m.outcome
    }
    if changed != study.user_attrs.get("corrections", {}):
        study.set_user_attr("corrections", changed)


def iter_evaluated(study: optuna.Study, space: CandidateSet) -> Iterator[tuple[FrozenTrial, Candidate]]:
    """Iterate over the closed trials that evaluated a candidate, in order."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]):
        yield trial, space.candidate(trial.params)


def _finite(value: Any) -> Any:
    """Replace non-finite numbers of a JSON value with None, since JSON cannot represent them."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
