"""A search whose time ends early: sure candidates come first, and a first score is better than nothing."""

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
from search.sampling.protocol import StageCosts
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
PLAIN = frozenset(SPACE.parents())
EVERY = frozenset(map(SPACE.candidate, SPACE.params()))


class Timed(Analytic):
    """Every call takes seconds of a limit; timings of some candidates are disturbed, so that they only may keep it."""

    def __init__(self, limit_s, looks_s, loaded=()):
        super().__init__()
        self.left_s, self.looks_s, self.loaded, self.latency_s = limit_s, looks_s, loaded, 1.0

    def latency(self, candidate, limit_ms):
        self.left_s -= self.latency_s
        found = super().latency(candidate, limit_ms)
        if candidate not in self.loaded:
            return found
        wide = replace(found.percentile_ms, high=1e3 * found.percentile_ms.high)
        return replace(found, percentile_ms=wide, disturbed="other load")

    def accuracy(self, candidate, epochs):
        self.left_s -= self.looks_s
        return super().accuracy(candidate, epochs)


class Refuting(Timed):
    """The first longer timing shows that a candidate is over the budget, later ones that others keep it."""

    def confirm(self, candidate, epochs):
        first = not any(stage == "confirm" for stage, _ in self.calls)
        found = super().confirm(candidate, epochs)
        wide = replace(found.percentile_ms, low=1e3 * found.percentile_ms.low, high=1e3 * found.percentile_ms.high)
        return replace(found, percentile_ms=wide) if first else found


def search(folder, evaluator, budget, sampler="budget", polish_s=0.0, rungs=(0, 1, 3)):
    ledger = Ledger(folder / "ledger.jsonl")
    limits = serial.Limits(
        trials=None,
        seconds_left=lambda: evaluator.left_s,
        finishing_s=lambda: 1.0,
        costs=lambda: StageCosts(evaluator.latency_s, 5.0, 50.0, evaluator.left_s),
        time_limit_s=evaluator.left_s,
        polish_s=polish_s,
    )
    found = serial.run(
        open_study(folder, sampler, 0, SPACE, budget),
        SPACE,
        evaluator=CachedEvaluator(evaluator, ledger, Stopwatch()),
        gates=StageLimits(budget=budget, brief_epochs=0, rungs=rungs),
        limits=limits,
        view=ProgressView(Console(quiet=True), budget, None, evaluator.left_s),
    )
    ledger.close()
    return found.measurements


def first_trained(evaluator):
    return next(key.partition("@")[0] for stage, key in evaluator.calls if stage == "accuracy")


def test_run_time_ends_after_the_first_scores_makes_the_best_of_them_a_trial(tmp_path):
    budget = Budget(latency_ms=0.9 * min(Analytic().cost(plain) for plain in PLAIN))  # no plain one keeps it
    evaluator = Refuting(limit_s=200.0, looks_s=40.0, loaded=EVERY)
    found = search(tmp_path, evaluator, budget)
    assert found[0].outcome == Outcome.OVER_BUDGET and found[0].accuracies, "its longer timing refuted it"
    scored = {key.partition("@")[0] for stage, key in evaluator.calls if stage == "accuracy"}
    kept = [m for m in found if m.accuracy and budget.keeps(m.latency)]
    assert [m.outcome for m in kept] == [Outcome.UNFINISHED] and kept[0].candidate.key() in scored
    assert "no time" in kept[0].reason


@pytest.mark.parametrize("is_loaded", [False, True])
def test_run_with_a_time_limit_begins_with_the_largest_candidate_that_surely_keeps_the_budget(tmp_path, is_loaded):
    budget = Budget(latency_ms=3.0)
    law = Analytic()
    uncut = [c for c in EVERY if not c.steps]
    within = [c for c in uncut if 1.02 * law.cost(c) <= budget.latency_ms]

    def size(candidate):
        return law.cost(replace(candidate, precision="fp32"))

    largest = max(size(c) for c in within)
    loaded = {c for c in within if size(c) > 0.9 * largest} if is_loaded else set()
    evaluator = Timed(limit_s=600.0, looks_s=20.0, loaded=loaded)
    search(tmp_path, evaluator, budget)
    first = next(c for c in uncut if c.key() == first_trained(evaluator))
    assert first in within and first not in loaded
    assert size(first) >= 0.7 * largest, "one step of the input size smaller at most"
    timed = [key for stage, key in evaluator.calls if stage == "latency"]
    scored = next(place for place, (stage, _) in enumerate(evaluator.calls) if stage == "accuracy")
    before = sum(stage == "latency" for stage, _ in evaluator.calls[:scored])
    assert before < len(uncut) / 2 and len(timed) > before


def test_run_of_a_sampler_without_timings_begins_with_what_may_keep_the_budget(tmp_path):
    budget = Budget(latency_ms=5.5)
    within = [c for c in PLAIN if Analytic().cost(c) <= 0.9 * budget.latency_ms]
    evaluator = Timed(limit_s=300.0, looks_s=20.0, loaded=within)
    search(tmp_path, evaluator, budget, "random")
    assert first_trained(evaluator) in {c.key() for c in within}


def test_run_with_short_time_trains_the_largest_of_each_network_before_scoring_any_briefly(tmp_path):
    budget, law = Budget(latency_ms=3.0), Analytic()
    evaluator = Timed(limit_s=400.0, looks_s=20.0)
    found = search(tmp_path, evaluator, budget)
    trained = [m.candidate for m in found if m.accuracies and budget.keeps(m.latency)]
    assert len(trained) >= 3 and len({c.variant for c in trained[:3]}) == 3, "another network each time"
    scored = [key.partition("@")[0] for stage, key in evaluator.calls if stage == "accuracy"]
    within = [key for key in dict.fromkeys(scored) if key not in {c.key() for c in PLAIN}]
    assert within[:3] == [c.key() for c in trained[:3]], "no first score between them, but for the greedy baseline's"
    sizes = [law.cost(replace(c, precision="fp32")) for c in trained[:3]]
    assert sizes == sorted(sizes, reverse=True)


def last_trial_s(evaluator):
    """Return the seconds left when the last candidate was trained to the last rung."""
    return min(left_s for left_s, epochs in evaluator.trained if epochs <= 3)


class Watched(Timed):
    """Remembers the seconds left before each training, and the epochs."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.trained = []

    def accuracy(self, candidate, epochs):
        self.trained.append((self.left_s, epochs))
        return super().accuracy(candidate, epochs)


def test_run_with_a_polish_share_starts_no_trial_in_it_and_trains_the_leader_longer(tmp_path):
    budget, evaluator = Budget(latency_ms=3.0), Watched(limit_s=400.0, looks_s=10.0)
    found = search(tmp_path, evaluator, budget, polish_s=100.0)
    assert max(m.accuracy.epochs for m in found if m.accuracy) == 24
    assert last_trial_s(evaluator) > 100.0 - 3 * 10.0, "a trial that began before may end in it"


def test_run_without_fine_tuning_keeps_no_time_for_it(tmp_path):
    budget, evaluator = Budget(latency_ms=3.0), Watched(limit_s=400.0, looks_s=10.0)
    search(tmp_path, evaluator, budget, polish_s=100.0, rungs=(0,))
    assert min(left_s for left_s, _ in evaluator.trained) < 40.0, "all the time is for trials"


@pytest.mark.parametrize("timing_s", [1.0, 10.0])
def test_run_spends_a_fifth_of_the_time_on_the_largest_inputs_at_most(tmp_path, timing_s):
    budget, evaluator = Budget(latency_ms=3.0), Watched(limit_s=500.0, looks_s=10.0)
    evaluator.latency_s = timing_s
    search(tmp_path, evaluator, budget)
    plain_s = len(PLAIN) * timing_s
    assert 500.0 - plain_s - evaluator.trained[0][0] <= 0.2 * (500.0 - plain_s)
