"""The way of one candidate: each gate stops what it should, with a reason, and nothing dear comes after it."""

from dataclasses import replace

import pytest

from evaluators.measurement import Failure, Interval, Outcome
from search.budget import Budget
from search.pipeline.stages import StageLimits, evaluate
from spaces.candidate import Candidate
from spaces.space import load
from tests.search.analytic import Analytic

CANDIDATE = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=32)
PRUNED = replace(CANDIDATE, steps=(("prune", 0.25),))


def go(candidate, evaluator, budget_ms=10.0, rivals=(), plain=False, **budget):
    gates = StageLimits(budget=Budget(latency_ms=budget_ms, **budget), is_baseline=lambda candidate: plain)
    return evaluate(candidate, evaluator, gates, rivals, lambda line: None)


def stages(evaluator):
    return [stage for stage, _ in evaluator.calls]


def test_all_the_way():
    evaluator = Analytic()
    measurement = go(PRUNED, evaluator)
    assert measurement.outcome == Outcome.KEPT and [a.epochs for a in measurement.accuracies] == [0, 1, 3]
    assert stages(evaluator) == ["structure", "latency", "structure", "latency"] + ["accuracy"] * 3


def test_over_the_budget_ends_before_training():
    evaluator = Analytic()
    measurement = go(CANDIDATE, evaluator, budget_ms=2.0)
    assert measurement.outcome == Outcome.OVER_BUDGET and measurement.accuracy is None
    assert "p95 may reach 2.04 ms > 2" in measurement.reason
    assert "at least 1.96) > 1" in go(CANDIDATE, evaluator, budget_ms=1.0).reason
    assert "accuracy" not in stages(evaluator)


def test_memory_is_a_limit_too():
    measurement = go(CANDIDATE, Analytic(), peak_mb=60.0)
    assert measurement.outcome == Outcome.OVER_BUDGET and measurement.reason == "peak 70 MB > 60"


def test_the_baseline_is_scored_even_over_the_budget():
    measurement = go(CANDIDATE, Analytic(), budget_ms=1.0, plain=True)
    assert measurement.outcome == Outcome.OVER_BUDGET and [a.epochs for a in measurement.accuracies] == [0]


def test_a_cut_that_brings_nothing_is_not_trained():
    class Stubborn(Analytic):
        def cost(self, c):
            return super().cost(replace(c, steps=()))

    evaluator = Stubborn()
    measurement = go(PRUNED, evaluator)
    assert measurement.outcome == Outcome.NO_GAIN and "no faster than" in measurement.reason
    assert "accuracy" not in stages(evaluator)


class Law(Analytic):
    """A latency for each pruned amount, with an interval of `half` of it on either side."""

    def __init__(self, ms, half=0.02, broken=None):
        super().__init__(broken)
        self.ms, self.half = ms, half

    def cost(self, c):
        return self.ms[c.amount("prune")]

    def latency(self, candidate, limit_ms):
        found = super().latency(candidate, limit_ms)
        ms = found.rank_ms.value
        return replace(found, rank_ms=Interval(ms, ms * (1 - self.half), ms * (1 + self.half)))


SPACE = load("tiny")


def cut(amount, evaluator, budget_ms=10.0, **rest):
    candidate = replace(CANDIDATE, steps=(("prune", amount),))
    return evaluate(
        candidate,
        evaluator,
        StageLimits(budget=Budget(latency_ms=budget_ms), less_cut=SPACE.less_cut),
        (),
        lambda line: None,
    )


def test_a_cut_must_be_faster_by_more_than_the_measurements_may_be_off():
    assert cut(0.125, Law({0.0: 2.0, 0.125: 1.9}, half=0.02)).outcome == Outcome.KEPT
    unsure = cut(0.125, Law({0.0: 2.0, 0.125: 1.9}, half=0.05))
    assert unsure.outcome == Outcome.NO_GAIN and unsure.accuracies == ()
    assert unsure.reason == (
        "1.9 ms [1.8, 1.99], not surely faster than the 2 ms [1.9, 2.1] of res8_w8_s2 32px fp32, which is uncompressed"
    )


def test_and_faster_than_what_less_was_cut_from():
    dropped = cut(0.25, Law({0.0: 2.0, 0.125: 1.5, 0.25: 1.5}))
    assert dropped.outcome == Outcome.NO_GAIN and "prune 0.125 fp32, which is less compressed" in dropped.reason
    assert cut(0.25, Law({0.0: 2.0, 0.125: 1.5, 0.25: 1.2})).outcome == Outcome.KEPT


def test_small_gains_add_up():
    """An eighth brings nothing that can be seen, and so does not stand in the way of two."""
    law = Law({0.0: 2.0, 0.125: 1.97, 0.25: 1.93})
    assert cut(0.125, law).outcome == Outcome.NO_GAIN and cut(0.25, law).outcome == Outcome.KEPT


def test_what_is_less_cut_and_over_the_budget_is_no_rival():
    assert cut(0.25, Law({0.0: 4.0, 0.125: 2.0, 0.25: 1.95}), budget_ms=2.0).outcome == Outcome.KEPT


def test_what_is_less_cut_and_can_not_be_built_is_passed_over():
    less = replace(CANDIDATE, steps=(("prune", 0.125),))
    broken = {less.key(): Failure("structure", "no_gain", "none saved")}
    assert cut(0.25, Law({0.0: 2.0, 0.25: 1.5}, broken=broken)).outcome == Outcome.KEPT
    assert cut(0.25, Law({0.0: 2.0, 0.25: 2.0}, broken=broken)).outcome == Outcome.NO_GAIN
    nothing = cut(0.125, Law({}, broken=broken))
    assert nothing.outcome == Outcome.NO_GAIN and nothing.reason == "none saved"


def test_a_failure_is_told_with_its_stage_and_kind():
    failure = Failure("structure", "unbuildable", "no channels left")
    measurement = go(CANDIDATE, Analytic({CANDIDATE.key(): failure}))
    assert measurement.outcome == Outcome.FAILED and measurement.reason == "structure, unbuildable: no channels left"


def test_the_unpromising_are_let_go_early():
    rival = replace(go(CANDIDATE, Analytic()), trial=7)
    worse = replace(CANDIDATE, variant="res8_w4_s2", image_px=48)

    class Slow(Analytic):
        def cost(self, c):
            return 5.0

        def top1(self, c, epochs):
            return 0.3

    measurement = go(worse, Slow(), rivals=[rival])
    assert measurement.outcome == Outcome.UNPROMISING and [a.epochs for a in measurement.accuracies] == [0, 1]
    assert "trial 7" in measurement.reason and "30.0 %" in measurement.reason


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_rival_counts_only_if_it_is_no_slower(factor):
    slower = replace(go(replace(CANDIDATE, image_px=48), Analytic()), trial=1)
    assert go(CANDIDATE, Analytic(), rivals=[slower]).outcome == Outcome.KEPT


class Relaid(Analytic):
    """Training puts layers back into floating point: other operators than were timed."""

    def accuracy(self, candidate, epochs):
        return replace(super().accuracy(candidate, epochs), relaid=epochs == 3)


def test_a_graph_with_other_operators_is_timed_again():
    evaluator = Relaid(confirm_factor=1.5)
    measurement = go(CANDIDATE, evaluator)
    assert measurement.outcome == Outcome.KEPT and not measurement.confirmed
    assert stages(evaluator)[-2:] == ["accuracy", "confirm"]
    assert measurement.latency.median_ms.value == pytest.approx(1.5 * evaluator.cost(CANDIDATE))


def test_and_may_be_over_the_budget_then():
    measurement = go(CANDIDATE, Relaid(confirm_factor=1.5), budget_ms=2.5)
    assert measurement.outcome == Outcome.OVER_BUDGET and measurement.reason == "p95 3 ms (at least 2.94) > 2.5"
    assert [a.epochs for a in measurement.accuracies] == [0, 1, 3]


def test_the_graph_that_was_timed_is_not_timed_again():
    evaluator = Analytic(confirm_factor=9.0)
    assert go(CANDIDATE, evaluator).outcome == Outcome.KEPT and "confirm" not in stages(evaluator)
