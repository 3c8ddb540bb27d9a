"""A leader whose latency only may keep the budget: it is timed as a finalist before the search goes on with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from evaluators.measurement import Outcome
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.sampling.optuna_study import open_study
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
BUDGET = Budget(latency_ms=5.5)


class Loaded(Analytic):
    """Every timing of some candidates is disturbed, its bound above the budget; a finalist's is so by a factor."""

    def __init__(self, loaded, confirmed):
        super().__init__()
        self.loaded, self.confirmed = loaded, confirmed

    def latency(self, candidate, limit_ms):
        return (
            self.disturb(super().latency(candidate, limit_ms), 9.0)
            if candidate in self.loaded
            else self._calm(candidate)
        )

    def confirm(self, candidate, epochs):
        found = super().confirm(candidate, epochs)
        return self.disturb(found, self.confirmed) if candidate in self.loaded else found

    def disturb(self, found, factor):
        wide = replace(found.percentile_ms, high=factor * found.percentile_ms.high)
        return replace(found, percentile_ms=wide, disturbed="other load")

    def _calm(self, candidate):
        return super().latency(candidate, None)


def search(folder, evaluator, trials):
    ledger = Ledger(folder / "ledger.jsonl")
    found = serial.run(
        open_study(folder, "budget", 0, SPACE, BUDGET),
        SPACE,
        evaluator=CachedEvaluator(evaluator, ledger, Stopwatch()),
        gates=StageLimits(budget=BUDGET),
        limits=serial.Limits(trials=trials, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0),
        view=ProgressView(Console(quiet=True), BUDGET, trials, None),
    )
    ledger.close()
    return found.measurements


@pytest.mark.parametrize(("confirmed", "outcome"), [(1.0, Outcome.KEPT), (9.0, Outcome.OVER_BUDGET)])
def test_run_unproven_leader_is_kept_only_if_a_finalists_timing_proves_it(tmp_path, confirmed, outcome):
    within = [c for c in SPACE.parents() if Analytic().cost(c) <= 0.9 * BUDGET.latency_ms]
    loaded = max(within, key=lambda c: Analytic().top1(c, 3))
    evaluator = Loaded([loaded], confirmed)
    found = {m.candidate: m for m in search(tmp_path, evaluator, len(SPACE.parents()) + 2)}
    assert found[loaded].outcome == outcome and found[loaded].accuracies
    assert ("confirm", loaded.key()) in evaluator.calls
    kept = [m for m in found.values() if m.outcome == Outcome.KEPT]
    assert kept and all(BUDGET.keeps(m.latency) for m in kept), "the search never leans on what is not proved"


def test_run_resumed_unproven_leader_stays_over_the_budget_without_another_timing(tmp_path):
    within = [c for c in SPACE.parents() if Analytic().cost(c) <= 0.9 * BUDGET.latency_ms]
    loaded = max(within, key=lambda c: Analytic().top1(c, 3))
    evaluator, trials = Loaded([loaded], 9.0), len(SPACE.parents())
    search(tmp_path, evaluator, trials)
    timed = evaluator.calls.count(("confirm", loaded.key()))
    found = {m.candidate: m for m in search(tmp_path, evaluator, trials)}
    assert found[loaded].outcome == Outcome.OVER_BUDGET and found[loaded].accuracies
    assert evaluator.calls.count(("confirm", loaded.key())) == timed == 1
