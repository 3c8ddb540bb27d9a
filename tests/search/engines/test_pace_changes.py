"""A device that becomes faster or slower during a search: latencies follow, and nothing is timed for it again."""

from __future__ import annotations

from collections import Counter
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
from search.selection.finalists import finish
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
CALM_MS = 2.0
BUDGET = Budget(latency_ms=1.5)
FAST, SLOW, SLOWER = 1.0, 1.4, 3.0  # pace of the device, relative to the calm one


class Drifting(Analytic):
    """Runs at a pace of its own, which the reference shows: `pace` is called before every timing."""

    def __init__(self, pace=lambda timings: FAST):
        super().__init__()
        self.of_timing, self.reference_ms = pace, CALM_MS * pace(0)

    def timings(self):
        return Counter(stage for stage, _ in self.calls)["latency"]

    def latency(self, candidate, limit_ms):
        self.reference_ms = CALM_MS * self.of_timing(self.timings())
        return super().latency(candidate, limit_ms)

    def _latency(self, candidate, factor):
        found = super()._latency(candidate, factor * self.reference_ms / CALM_MS)
        return replace(found, reference_ms=self.reference_ms, runtime=candidate.runtime)


def cached(inner, ledger):
    return CachedEvaluator(inner, ledger, Stopwatch(), lambda runtime: inner.reference_ms)


def search(folder, inner, trials=25):
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    evaluator = cached(inner, ledger)
    costs = StageCosts(1.0, 40.0, 120.0)
    found = serial.run(
        open_study(folder, "budget", 0, SPACE, BUDGET),
        SPACE,
        evaluator=evaluator,
        gates=StageLimits(budget=BUDGET, brief_epochs=1),
        limits=serial.Limits(
            trials=trials, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0, costs=lambda: costs
        ),
        view=ProgressView(Console(quiet=True), BUDGET, trials, None),
    )
    ended = finish(found.measurements, evaluator, BUDGET, frozenset(SPACE.parents()), lambda line: None)
    ledger.close()
    return ended


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.jsonl")
    yield opened
    opened.close()


def test_latency_device_slower_and_back_is_the_same_without_another_timing(ledger):
    inner = Drifting()
    evaluator, candidate = cached(inner, ledger), SPACE.parents()[1]
    before = evaluator.latency(candidate, None)
    inner.reference_ms = CALM_MS * SLOW
    during = evaluator.latency(candidate, None)
    for name in ("percentile_ms", "median_ms", "rank_ms"):
        assert getattr(during, name).high == pytest.approx(SLOW * getattr(before, name).high)
    inner.reference_ms = CALM_MS
    assert evaluator.latency(candidate, None) == before and inner.timings() == 1


def test_report_new_pace_reports_each_latency_once_for_each_change(ledger):
    inner = Drifting()
    evaluator, heard = cached(inner, ledger), []
    evaluator.listen(lambda stage, key, value: heard.append((stage, value.reference_ms)))
    evaluator.latency(SPACE.parents()[0], None)
    evaluator.latency(SPACE.parents()[1], None)
    assert not evaluator.report_new_pace() and len(heard) == 2
    inner.reference_ms = CALM_MS * SLOW
    assert evaluator.report_new_pace() and not evaluator.report_new_pace()
    assert heard[2:] == [("latency", CALM_MS * SLOW)] * 2


def test_run_pace_flips_the_whole_time_chooses_as_on_a_calm_device(tmp_path):
    """A pace that flips costs no timing of what is known, and the choice is the calm run's."""
    calm, flipping = Drifting(), Drifting(lambda timings: SLOW if timings // 20 % 2 else FAST)
    expected = search(tmp_path / "calm", calm).choice
    flipping_run = search(tmp_path / "flips", flipping)
    flipping.reference_ms = CALM_MS
    assert expected is not None and flipping_run.choice is not None
    assert flipping_run.choice.accuracy.top1 >= expected.accuracy.top1 - 0.02
    assert flipping.timings() <= 1.3 * calm.timings()


def test_run_device_faster_after_the_start_tries_what_was_too_slow(tmp_path):
    """A start in a slow minute: a candidate that was over the budget then has its trial later."""
    ended = search(tmp_path, Drifting(lambda timings: SLOWER if timings < 50 else FAST))
    calm = search(tmp_path / "calm", Drifting())
    assert ended.choice.accuracy.top1 >= calm.choice.accuracy.top1 - 0.02
    assert {m.latency.reference_ms for m in ended.measurements if m.latency} == {CALM_MS}, "one pace for all"


def test_run_device_slower_for_good_keeps_the_budget_at_the_slower_pace(tmp_path):
    inner = Drifting(lambda timings: FAST if timings < 60 else SLOW)
    ended = search(tmp_path, inner)
    assert inner.reference_ms == CALM_MS * SLOW
    assert SLOW * inner.cost(ended.choice.candidate) <= BUDGET.latency_ms
    for m in ended.measurements:
        assert m.outcome not in (Outcome.KEPT, Outcome.OVER_BUDGET) or (m.outcome == Outcome.KEPT) == BUDGET.keeps(
            m.latency
        )


def test_run_resumed_after_a_change_of_pace_ends_as_the_uninterrupted_one(tmp_path):
    def change(timings):
        return SLOWER if timings < 30 else FAST

    whole = search(tmp_path / "whole", Drifting(change), 20)
    search(tmp_path / "parts", Drifting(change), 8)
    again = Drifting()
    resumed = search(tmp_path / "parts", again, 20)
    assert {m.latency.reference_ms for m in resumed.measurements if m.latency} == {CALM_MS}
    assert resumed.choice.accuracy.top1 >= whole.choice.accuracy.top1 - 0.02
