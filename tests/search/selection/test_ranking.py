"""Choice, baseline, nearest miss; finalists timed again; the test set looked at last."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from evaluators.measurement import Outcome
from evaluators.timing.confidence import scale_interval
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.pipeline.stages import StageLimits, evaluate
from search.selection.finalists import finish
from search.selection.ranking import baseline, nearest_miss, rank_feasible
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from tests.search.analytic import Analytic

PLAIN = Candidate(family="tiny_resnet", variant="res8_w16_s2", image_px=32)
OTHERS = [
    PLAIN,
    replace(PLAIN, image_px=24),
    replace(PLAIN, precision="int8"),
    Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=32),
    Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16, steps=(("prune", 0.5),), precision="int8"),
]


def run(budget, evaluator=None, has_time=lambda: True):
    evaluator = evaluator or Analytic()
    measured = []
    gates = StageLimits(budget=budget, is_baseline=lambda candidate: candidate == PLAIN)
    with TemporaryDirectory() as folder:
        remembered = CachedEvaluator(evaluator, Ledger(Path(folder) / "ledger.jsonl"), Stopwatch())
        for i, candidate in enumerate(OTHERS):
            m = evaluate(candidate, remembered, gates, measured, lambda line: None)
            measured.append(replace(m, trial=i))
        ending = finish(measured, remembered, budget, frozenset([PLAIN]), tell=lambda line: None, has_time=has_time)
        return ending, evaluator


def test_the_choice_is_the_most_accurate_that_keeps_the_budget():
    ending, evaluator = run(Budget(latency_ms=2.6))
    assert ending.choice.candidate == replace(PLAIN, precision="int8") or ending.choice.confirmed
    best = max((m for m in ending.measurements if m.outcome == Outcome.KEPT), key=lambda m: m.accuracy.top1)
    assert ending.choice == best and ending.choice.confirmed and ending.choice.test is not None
    assert ending.baseline.candidate == PLAIN and ending.baseline.outcome == Outcome.OVER_BUDGET
    assert ending.baseline.confirmed and ending.baseline.test is not None and ending.miss is None
    tested = [stage for stage, _ in evaluator.calls]
    assert tested.index("test") > max(i for i, stage in enumerate(tested) if stage != "test")


def test_what_timing_again_takes_over_the_budget_is_not_chosen():
    calm, _ = run(Budget(latency_ms=2.6))

    class Once(Analytic):
        def confirm(self, candidate, epochs):
            slow = candidate == calm.choice.candidate
            return self._latency(candidate, 1.5 if slow else 1.0)

    ending, _ = run(Budget(latency_ms=2.6), Once())
    assert ending.choice.candidate != calm.choice.candidate
    demoted = ending.measurements[calm.choice.trial]
    assert demoted.outcome == Outcome.OVER_BUDGET and demoted.confirmed


def test_nothing_fits_names_the_nearest():
    ending, _ = run(Budget(latency_ms=0.05))
    assert ending.choice is None and ending.front == ()
    assert ending.miss.measurement.candidate == OTHERS[-1] and "> 0.05" in ending.miss.over


def test_too_much_accuracy_lost_is_no_choice():
    ending, _ = run(Budget(latency_ms=2.6, max_drop=0.0))
    assert ending.choice is None and "points against the baseline, 0 allowed" in ending.miss.over


def test_ties_go_to_the_faster():
    ending, _ = run(Budget(latency_ms=100.0))
    slow = ending.choice
    fast = replace(slow, latency=Analytic().latency(OTHERS[-1], None))
    assert rank_feasible([slow, fast], Budget(latency_ms=100.0), None) == [fast, slow]


def test_no_measurement_no_miss():
    assert nearest_miss([], Budget(latency_ms=1.0), None) is None


def test_greed_takes_the_larger_of_equals():
    ending, _ = run(Budget(latency_ms=100.0))
    small = replace(ending.baseline, candidate=OTHERS[3], structure=replace(ending.baseline.structure, macs=1))
    for order in ([small, ending.baseline], [ending.baseline, small]):
        assert baseline(order, frozenset([PLAIN, OTHERS[3]])) == ending.baseline


class Busy(Analytic):
    """Finalists are timed beside other load: their ranks grow by a factor, their samples by ten."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def confirm(self, candidate, epochs):
        found = super().confirm(candidate, epochs)
        samples = scale_interval(found.percentile_ms, 10.0)
        return replace(
            found, percentile_ms=samples, rank_ms=scale_interval(found.rank_ms, self.rank), disturbed="other load"
        )


@pytest.mark.parametrize(("rank", "chosen"), [(1.25, True), (1.5, False)])
def test_finish_leader_is_not_dropped_on_disturbed_samples_alone(rank, chosen):
    """Its rank says whether it may still keep the budget, which is 1.4 times what it was timed at."""
    budget = Budget(latency_ms=1.4 * Analytic().cost(OTHERS[2]))
    calm, _ = run(budget)
    ending, evaluator = run(budget, Busy(rank))
    assert (ending.choice is not None and ending.choice.candidate == calm.choice.candidate) == chosen
    assert not chosen or not ending.choice.confirmed
    assert [stage for stage, _ in evaluator.calls].count("confirm") >= 2, "it is timed once more first"


class Loaded(Analytic):
    """The first timing of one candidate is disturbed, and its bound several times too high."""

    def __init__(self, confirm_factor=1.0, bound=5.0):
        super().__init__()
        self.factor, self.bound = confirm_factor, bound

    def latency(self, candidate, limit_ms):
        found = super().latency(candidate, limit_ms)
        wide = replace(found.percentile_ms, high=self.bound * found.percentile_ms.high)
        return replace(found, percentile_ms=wide, disturbed="other load") if candidate == OTHERS[2] else found

    def confirm(self, candidate, epochs):
        return self._latency(candidate, self.factor if candidate == OTHERS[2] else 1.0)


def test_finish_bound_of_a_disturbed_timing_is_decided_by_the_finalists_timing():
    budget = Budget(latency_ms=1.1 * Analytic().cost(OTHERS[2]))
    calm, _ = run(budget)
    assert calm.choice.candidate == OTHERS[2]
    loaded, _ = run(budget, Loaded())
    assert loaded.choice.candidate == OTHERS[2] and budget.keeps(loaded.choice.latency) and loaded.choice.confirmed


def test_finish_what_no_timing_proves_to_keep_the_budget_is_over_it():
    budget = Budget(latency_ms=1.1 * Analytic().cost(OTHERS[2]))
    ending, _ = run(budget, Loaded(confirm_factor=1.3))
    assert ending.choice is not None and ending.choice.candidate != OTHERS[2]
    assert ending.measurements[2].outcome == Outcome.OVER_BUDGET and ending.measurements[2] not in ending.front
    for m in ending.measurements:
        assert m.outcome != Outcome.KEPT or budget.keeps(m.latency)


def test_finish_disturbed_timing_that_is_surely_over_the_budget_is_never_trained():
    budget = Budget(latency_ms=0.9 * Analytic().cost(OTHERS[2]))
    ending, _ = run(budget, Loaded())
    assert ending.measurements[2].outcome == Outcome.OVER_BUDGET and not ending.measurements[2].accuracies


def test_finish_time_is_up_the_surest_of_what_may_keep_the_budget_is_timed():
    """Not one timing proves its candidate: there is a choice all the same, without a timing of each."""

    class AllLoaded(Analytic):
        def latency(self, candidate, limit_ms):
            found = super().latency(candidate, limit_ms)
            wide = replace(found.percentile_ms, high=found.percentile_ms.value + 3.0)
            return replace(found, percentile_ms=wide, disturbed="other load")

    budget = Budget(latency_ms=2.6)
    ending, evaluator = run(budget, AllLoaded(), has_time=lambda: False)
    fastest = min(ending.measurements, key=lambda m: m.latency.rank_ms.value)
    assert ending.choice.candidate == fastest.candidate and budget.keeps(ending.choice.latency)
    assert [key for stage, key in evaluator.calls if stage == "confirm"] == [fastest.candidate.key()]
