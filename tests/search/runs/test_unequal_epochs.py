"""A polished choice beside a baseline that was not: the comparison says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.measurement import Outcome
from search.runs.device_run import _warn_of_unequal_epochs
from search.selection.finalists import SearchOutcome
from tests.reports.conftest import accuracy, usual


@pytest.mark.parametrize(
    ("chosen", "greedy", "is_told"), [(24, 0, True), (24, 12, True), (24, 24, False), (3, 0, False)]
)
def test_warn_of_unequal_epochs_only_where_the_choice_was_polished_for_longer(tmp_path, chosen, greedy, is_told):
    run = usual(tmp_path)
    choice = replace(run.choice, accuracies=(accuracy(0.9, chosen),))
    base = replace(run.baseline, accuracies=(accuracy(0.9, greedy),))
    outcome = SearchOutcome(measurements=(choice, base), front=run.front, choice=choice, baseline=base, miss=None)
    line = _warn_of_unequal_epochs(outcome, 3)
    assert bool(line) is is_told and (not line or f"{chosen} epochs" in line)


def test_warn_of_unequal_epochs_choice_that_became_the_baseline_is_compared_with_what_is_over_the_budget(tmp_path):
    run = usual(tmp_path)
    choice = replace(run.choice, accuracies=(accuracy(0.95, 24),))
    over = replace(run.baseline, outcome=Outcome.OVER_BUDGET, accuracies=(accuracy(0.9, 0),))
    outcome = SearchOutcome(measurements=(choice, over), front=(choice,), choice=choice, baseline=choice, miss=None)
    assert over.candidate.describe() in _warn_of_unequal_epochs(outcome, 3)
    alone = replace(outcome, measurements=(choice,))
    assert _warn_of_unequal_epochs(alone, 3) == ""
