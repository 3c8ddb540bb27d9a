"""What a search may rely on, of every sampler there is: candidates, none twice, gone on with, the same by its seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from evaluators.table_evaluator import TableEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.runs.table_run import costs, gates_of
from search.sampling.optuna_study import open_study, samplers
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from spaces.table_space import TableSpace
from tests.search.analytic import Analytic
from tests.search.made_table import made

PLACES = ("tiny", "table", "names", "holes")
VARIANTS = [variant for names in load("tiny").variants.values() for variant in names]


def each(gp_in, places):
    """Parametrize a test by every sampler in every place.

    Optuna's Gaussian processes take seconds to be asked. What they know of a place is the kind of its parameters: they
    meet it in those of `gp_in`.
    """
    rows = [(sampler, where) for where in places for sampler in samplers() if sampler != "gp" or where in gp_in]
    return pytest.mark.parametrize(
        ("sampler", "place"),
        [pytest.param(*row, id="-".join(row), marks=pytest.mark.slow if row[0] == "gp" else ()) for row in rows],
        indirect=["place"],
    )


@pytest.fixture
def place(request, tmp_path):
    """A space and an evaluator of it: nets with axes of their own, a table, one without axes, one with holes."""
    if request.param == "tiny":
        return load("tiny"), Analytic(), StageLimits(budget=Budget(latency_ms=1.5), rungs=(0, 1, 3))
    space = made(tmp_path, 3, 3, missing=0.3 if request.param == "holes" else 0.0)
    if request.param == "names":
        space = replace(space, axes=())
    return space, TableEvaluator(space, "pi", "pets"), gates_of(space, Budget(latency_ms=5.0))


def go(folder, place, sampler, trials, seed=0):
    """One session: the candidates measured, earlier ones first, and the study."""
    space, evaluator, gates = place
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    study = open_study(folder, sampler, seed, space, gates.budget)
    seconds = {"costs": lambda: costs(space)} if isinstance(space, TableSpace) else {}
    limits = serial.Limits(trials=trials, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0, **seconds)
    view = ProgressView(Console(quiet=True), gates.budget, trials, None)
    found = serial.run(
        study, space, evaluator=CachedEvaluator(evaluator, ledger, Stopwatch()), gates=gates, limits=limits, view=view
    )
    ledger.close()
    return [m.candidate for m in found.measurements], study


@each(gp_in=("tiny", "table"), places=PLACES)
def test_it_asks_for_candidates_none_twice_and_goes_on(sampler, place, tmp_path):
    possible = {place[0].candidate(params).key() for params in place[0].params()}
    first, _ = go(tmp_path / "run", place, sampler, 11)
    both, _ = go(tmp_path / "run", place, sampler, 17)
    keys = [candidate.key() for candidate in both]
    assert len(set(keys)) == len(keys) == 17 and set(keys) <= possible
    assert both[:11] == first


@each(gp_in=("tiny",), places=("tiny", "table"))
def test_its_seed_is_all_that_varies(sampler, place, tmp_path):
    first, same, other = (
        go(tmp_path / name, place, sampler, 15, seed)[0] for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == same != other


@each(gp_in=("table",), places=("tiny", "table"))
def test_a_trial_that_was_killed_while_it_was_asked_for_is_taken_up(sampler, place, tmp_path):
    """Its parameters up to the kill are asked for again, and the sampler fills in what is missing."""
    space, _, gates = place
    go(tmp_path / "run", place, sampler, 14)
    study = open_study(tmp_path / "run", sampler, 0, space, gates.budget)
    name, values = next(iter(space.values.items())) if isinstance(space, TableSpace) else ("variant", VARIANTS)
    begun = study.ask().suggest_categorical(name, list(values))
    candidates, after = go(tmp_path / "run", place, sampler, 17)
    assert len({candidate.key() for candidate in candidates}) == 17
    again = [t for t in after.get_trials() if "retry_of" in t.user_attrs]
    assert [t.params[name] for t in again] == [begun]


@each(gp_in=("names",), places=("table", "names", "holes"))
def test_it_ends_when_every_candidate_was_had(sampler, place, tmp_path):
    candidates, _ = go(tmp_path / "run", place, sampler, 1000)
    assert len(candidates) == len({c.key() for c in candidates}) == place[0].size()
