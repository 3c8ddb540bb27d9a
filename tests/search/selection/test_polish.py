"""Longer training of the leaders after the search: who gets it, what is taken over, and what a resumed run repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.measurement import Outcome
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from search.budget import Budget
from search.pipeline.stages import StageLimits, evaluate
from search.selection.polish import PolishLimits, is_worth, polish
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
BUDGET = Budget(latency_ms=5.5)
GATES = StageLimits(budget=BUDGET)
LAST = GATES.epochs_max
POINTS = list(SPACE.params())
CANDIDATES = [SPACE.candidate(point) for point in POINTS[:: len(POINTS) // 12]]


class Longer(Analytic):
    """Training beyond the last rung changes the accuracy by a known amount, and may not fit into the time."""

    def __init__(self, gain, fits=10**6):
        super().__init__()
        self.gain, self.fits, self.tried = gain, fits, []

    def accuracy(self, candidate, epochs):
        if epochs <= LAST:
            return super().accuracy(candidate, epochs)
        self.tried.append((candidate, epochs))
        more = epochs - LAST
        if more > self.fits:
            raise OutOfTimeError("too long", self.fits / more)
        found = super().accuracy(candidate, LAST)
        correct = round(found.count * min(1.0, found.top1 + self.gain))
        return replace(found, epochs=epochs, correct=correct, top1=correct / found.count)

    def model_path(self, candidate, epochs):
        return f"graphs/{candidate.graph_key()}-{epochs}.onnx"


class Paced(Longer):
    """An epoch takes four seconds of what the allowance leaves."""

    allowance = TimeAllowance()

    def accuracy(self, candidate, epochs):
        self.fits = int(self.allowance.left_s() / 4.0) if epochs > LAST else self.fits
        return super().accuracy(candidate, epochs)


def polished(folder, inner, seconds=100.0):
    ledger = Ledger(folder / "ledger.jsonl")
    evaluator = CachedEvaluator(inner, ledger, Stopwatch())
    before = []
    for number, candidate in enumerate(CANDIDATES):
        before.append(replace(evaluate(candidate, evaluator, GATES, (), lambda line: None), trial=number))
    limits = PolishLimits(budget=BUDGET, epochs=LAST, seconds_left=lambda: seconds, allowance=Paced.allowance)
    after = polish(before, evaluator, limits, lambda line: None)
    ledger.close()
    return before, after


def leader(measurements):
    within = [m for m in measurements if m.outcome == Outcome.KEPT]
    return max(within, key=lambda m: (m.accuracy.score, -m.latency.rank_ms.value))


def test_polish_leader_that_gains_is_taken_over_with_its_epochs(tmp_path):
    inner = Longer(0.01)
    before, after = polished(tmp_path, inner)
    best = leader(before)
    found = next(m for m in after if m.trial == best.trial)
    assert inner.tried[0] == (best.candidate, 8 * LAST), "the leader comes first, with the longest training"
    assert found.accuracy.epochs == 8 * LAST and found.accuracies[:-1] == best.accuracies
    assert found.accuracy.score > best.accuracy.score
    assert found.model_path.endswith(f"-{8 * LAST}.onnx")


@pytest.mark.parametrize("gain", [0.0, -0.05])
def test_polish_candidate_that_gains_nothing_stays_as_it_was(tmp_path, gain):
    inner = Longer(gain)
    before, after = polished(tmp_path, inner)
    assert inner.tried and after == before


def test_polish_only_candidates_within_the_budget_are_trained(tmp_path):
    inner = Longer(0.01)
    before, _ = polished(tmp_path, inner)
    kept = {m.candidate for m in before if m.outcome == Outcome.KEPT}
    assert {candidate for candidate, _ in inner.tried} <= kept and len(kept) < len(before)


@pytest.mark.parametrize(("fits", "more"), [(7 * LAST, 7 * LAST), (20, 18), (10, 9), (2, 1), (0, 0)])
def test_polish_short_time_takes_nine_tenths_of_the_epochs_that_fit(tmp_path, fits, more):
    inner = Longer(0.01, fits)
    before, after = polished(tmp_path, inner)
    found = next(m for m in after if m.trial == leader(before).trial)
    assert found.accuracy.epochs == LAST + more


class Impatient(Longer):
    """The first candidate finds no time at first, and finds it when the others are done."""

    def accuracy(self, candidate, epochs):
        if epochs > LAST and {tried for tried, _ in self.tried} <= {candidate}:
            self.tried.append((candidate, epochs))
            raise OutOfTimeError("too long", 0.0)
        return super().accuracy(candidate, epochs)


def test_polish_candidate_that_found_no_time_gets_what_the_others_leave(tmp_path):
    before, after = polished(tmp_path, Impatient(0.01))
    found = {m.trial: m for m in after}
    best = leader(before)
    assert found[best.trial].accuracy.epochs == 8 * LAST
    assert sum(m.accuracy.epochs > LAST for m in after if m.accuracy) > 1


def test_polish_share_too_short_for_the_epochs_of_a_rung_takes_all_the_time(tmp_path):
    inner = Paced(0.01)
    before, after = polished(tmp_path, inner, seconds=20.0)  # ten for each of two contenders: two epochs
    found = next(m for m in after if m.trial == leader(before).trial)
    assert found.accuracy.epochs == LAST + 3


def test_polish_without_time_trains_nothing(tmp_path):
    inner = Longer(0.01)
    before, after = polished(tmp_path, inner, seconds=0.0)
    assert inner.tried == [] and after == before


def test_polish_resumed_takes_over_what_was_trained_without_time(tmp_path):
    _, first = polished(tmp_path, Longer(0.01))
    inner = Longer(0.01)
    _, again = polished(tmp_path, inner, seconds=0.0)
    assert [m.accuracy for m in again] == [m.accuracy for m in first] and inner.tried == []


def test_is_worth_a_perfect_or_fixed_candidate_is_not(tmp_path):
    best = leader(polished(tmp_path, Longer(0.0))[0])
    perfect = replace(best.accuracy, correct=best.accuracy.count, top1=1.0)
    assert is_worth(best) and not is_worth(None)
    assert not is_worth(replace(best, accuracies=(perfect,)))


def test_polish_what_an_earlier_session_had_little_time_for_is_trained_longer(tmp_path):
    _, first = polished(tmp_path, Longer(0.01, fits=4))
    best = leader(first)
    assert best.accuracy.epochs == LAST + 3
    inner = Longer(0.02)
    _, again = polished(tmp_path, inner)
    assert (best.candidate, 8 * LAST) in inner.tried
    assert next(m for m in again if m.trial == best.trial).accuracy.epochs == 8 * LAST


def test_polish_leader_that_time_had_ended_is_trained_to_the_end(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    inner = Longer(0.01)
    evaluator = CachedEvaluator(inner, ledger, Stopwatch())
    short = replace(GATES, rungs=(0, 1))
    within = next(c for c in CANDIDATES if 1.1 * inner.cost(c) < BUDGET.latency_ms)
    ended = replace(evaluate(within, evaluator, short, (), print), trial=0, outcome=Outcome.UNFINISHED, reason="late")
    limits = PolishLimits(budget=BUDGET, epochs=LAST, seconds_left=lambda: 9.0, allowance=Paced.allowance)
    [found] = polish([ended], evaluator, limits, print)
    assert found.outcome == Outcome.KEPT and found.reason == "" and found.accuracy.epochs == 8 * LAST


def test_polish_search_without_fine_tuning_trains_nothing(tmp_path):
    ledger, inner = Ledger(tmp_path / "ledger.jsonl"), Longer(0.01)
    evaluator = CachedEvaluator(inner, ledger, Stopwatch())
    kept = replace(evaluate(CANDIDATES[0], evaluator, replace(GATES, rungs=(0,)), (), print), trial=0)
    limits = PolishLimits(budget=BUDGET, epochs=0, seconds_left=lambda: 9.0, allowance=Paced.allowance)
    assert polish([kept], evaluator, limits, print) == [kept] and inner.tried == []
