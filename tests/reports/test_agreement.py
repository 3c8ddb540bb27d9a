"""The report never disagrees with the journal, and what compares the two can see it when it does."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pandas
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluators.measurement import Outcome
from evaluators.timing.stopwatch import Stopwatch
from remote.exit_codes import OK
from reports.run_report import write
from search.budget import Budget
from search.run import main
from search.sampling.optuna_study import record_corrections
from search.selection.finalists import finish
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.agreement import disagreements
from tests.reports.conftest import usual
from tests.search.analytic import Analytic
from tests.search.runs.test_table_run import command
from tests.search.samplers.test_budget import go
from tests.spaces.test_table_space import small

__all__ = ["small"]  # a fixture


@pytest.fixture
def folder(small):
    """A whole run, over a table."""
    assert main(command(small, "--budget-ms", "2", "--trials", "4")) == OK
    return small / "run"


def changed(folder, change) -> None:
    table = pandas.read_csv(folder / "trials.csv")
    change(table)
    table.to_csv(folder / "trials.csv", index=False)


def correct(folder, corrections) -> None:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    optuna.load_study(study_name="edgefront", storage=storage).set_user_attr("corrections", corrections)


def test_a_run_agrees_with_its_journal(folder):
    assert disagreements(folder) == []


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("outcome", "over budget", "outcome is over budget in the table and kept in the journal"),
        ("validation_score", 0.123, "validation score is 0.123 in the table"),
        ("rank_ms", 9.9, "rank, ms is 9.9 in the table"),
        ("trial", 77, "in the table only"),
    ],
)
def test_a_difference_is_one_line(folder, column, value, says):
    def change(table):
        kept = table[(table.outcome == "kept") & ~table.confirmed].index[0]
        table.loc[kept, column] = value

    changed(folder, change)
    assert any(says in line for line in disagreements(folder))


def test_what_the_journal_says_was_corrected_counts(folder):
    number = int(pandas.read_csv(folder / "trials.csv").query("outcome == 'kept'").trial.iloc[0])

    def change(table):
        table.loc[table.trial == number, "outcome"] = "over budget"

    changed(folder, change)
    assert disagreements(folder)
    correct(folder, {str(number): {"outcome": "over budget", "reason": "p95 may reach 3 ms > 2", "latency": None}})
    assert disagreements(folder) == []


def test_a_finalist_that_is_too_slow_after_all_is_corrected_in_the_journal(tmp_path):
    """Timed again it misses the budget: report and journal must both say so."""
    budget, space = Budget(latency_ms=2.0), load("tiny")
    evaluator = Analytic(confirm_factor=1.5)
    found = go(tmp_path, evaluator, space, budget, 10)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    remembered = CachedEvaluator(evaluator, ledger, Stopwatch())
    ending = finish(found, remembered, budget, frozenset(space.parents()), lambda line: None)
    ledger.close()
    changed = [
        m for m in ending.measurements if m.outcome == Outcome.OVER_BUDGET and found[m.trial].outcome == Outcome.KEPT
    ]
    assert changed, "a finalist was dropped"
    ends = {name: getattr(ending, name) for name in ("measurements", "front", "choice", "baseline", "miss")}
    result = replace(usual(tmp_path), budget=budget, screened=(), **ends)
    write(result, tmp_path)
    assert any(
        "outcome is over budget in the table and kept in the journal" in line for line in disagreements(tmp_path)
    )
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    record_corrections(optuna.load_study(study_name="edgefront", storage=storage), ending.measurements)
    assert disagreements(tmp_path) == []
