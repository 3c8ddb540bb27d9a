"""What was only timed counts where nothing keeps the budget, and among what cost no training."""

from __future__ import annotations

from evaluators.measurement import Outcome
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.selection.finalists import finish
from search.selection.screened import early_stops, looks, screened_candidates
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic
from tests.search.samplers.test_budget import go

SPACE = load("tiny")
PLAIN = frozenset(SPACE.parents())


def pooled(ledger):
    return CachedEvaluator(Analytic(), ledger, Stopwatch()).pooled


def looked(folder, budget, trials):
    """A search's measurements and looks, and its ledger."""
    found = go(folder, Analytic(), SPACE, budget, trials)
    ledger = Ledger(folder / "ledger.jsonl")
    return found, looks(SPACE, ledger, pooled(ledger), found, budget), ledger


def test_what_is_a_trial_is_no_look_and_all_else_that_was_timed_is(tmp_path):
    budget = Budget(latency_ms=1.5)
    found, looks_, ledger = looked(tmp_path, budget, 12)
    timed = {entry.key for entry in ledger.entries("latency")}
    assert {m.candidate.key() for m in [*found, *looks_]} == timed and len(looks_) > 12
    assert {m.outcome for m in looks_} == {Outcome.KEPT, Outcome.OVER_BUDGET}
    assert all((m.outcome == Outcome.KEPT) == budget.keeps(m.latency) == (not m.reason) for m in looks_)


def test_all_that_was_measured_of_what_is_no_trial_is_told(tmp_path):
    budget = Budget(latency_ms=1.5)
    found, looks_, ledger = looked(tmp_path, budget, 12)
    told = screened_candidates(SPACE, ledger, pooled(ledger), found, budget)
    assert [m.candidate for m in told] == [m.candidate for m in looks_]
    assert all(m.latency == look.latency and m.outcome == look.outcome for m, look in zip(told, looks_, strict=True))
    tried = {e.key.partition("@")[0] for e in ledger.entries("accuracy")} - {m.candidate.key() for m in found}
    assert {m.candidate.key() for m in told if m.accuracies} == tried and tried, "the short trainings, too"
    assert all(m.structure for m in told if m.accuracies)
    key = looks_[0].candidate.key()
    crashed = {"type": "Failure", "stage": "latency", "kind": "crashed", "reason": "signal 4"}
    ledger.put("latency", key, crashed, {}, 0.0)
    failed = next(
        m for m in screened_candidates(SPACE, ledger, pooled(ledger), found, budget) if m.candidate.key() == key
    )
    assert failed.outcome == Outcome.FAILED and failed.latency is None and failed.reason == "latency, crashed: signal 4"


def test_the_nearest_to_a_budget_nobody_keeps_may_be_a_look(tmp_path):
    budget = Budget(latency_ms=0.01)
    found, looks_, ledger = looked(tmp_path, budget, 8)
    remembered = CachedEvaluator(Analytic(), ledger, Stopwatch())
    without = finish(found, remembered, budget, PLAIN, lambda line: None)
    ending = finish(found, remembered, budget, PLAIN, lambda line: None, looks=looks_)
    fastest = min([*found, *looks_], key=lambda m: m.latency.percentile_ms.value)
    assert ending.miss.measurement.candidate == fastest.candidate and "> 0.01" in ending.miss.over
    assert fastest in looks_ and without.miss.measurement.candidate != fastest.candidate
    assert ending.measurements == without.measurements, "a look is no trial"


def test_looks_over_the_budget_cost_no_training_and_plain_networks_do(tmp_path):
    found, looks_, ledger = looked(tmp_path, Budget(latency_ms=1.5), 12)
    before, over = early_stops([*found, *looks_], ledger)
    slow = [m for m in [*found, *looks_] if m.outcome == Outcome.OVER_BUDGET]
    trained = [m for m in slow if m.accuracies]
    assert over == len(slow) > len([m for m in found if m.outcome == Outcome.OVER_BUDGET])
    assert trained and all(m.candidate in PLAIN for m in trained) and before < over
    tried = {entry.key.partition("@")[0] for entry in ledger.entries("accuracy")}
    key = next(k for m in looks_ if m.outcome == Outcome.OVER_BUDGET and (k := m.candidate.key()) not in tried)
    ledger.put("accuracy", f"{key}@0", None, {}, 0.0)
    assert early_stops([*found, *looks_], ledger) == (before, over), "a score of the parent's weights is no training"
    ledger.put("accuracy", f"{key}@1", None, {}, 0.0)
    assert early_stops([*found, *looks_], ledger)[0] == before - 1


def test_nothing_timed_no_looks(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert looks(SPACE, ledger, pooled(ledger), [], Budget(latency_ms=1.0)) == []
