"""Savings and levers, against a law whose factors are known."""

import io
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from evaluators.measurement import Interval, Outcome
from reports.comparison import levers, saving, setting
from reports.formatting import (
    accuracy_change,
    headline,
    interval,
    latency_change,
    ms,
    number,
    outcomes,
    points,
    split,
    trust,
)
from reports.html import page
from reports.recommendations import best_prospect, explain_saving, more_time, nearest
from reports.terminal import summary
from search.budget import Budget
from search.result import NearestMiss
from spaces.candidate import Candidate
from tests.reports.conftest import KINDS, NETWORKS, PRECISION, PX, accuracy, candidates, finished, law, measure, usual

ANY = Budget(latency_ms=1e6)


def run(tmp_path, *wanted: Candidate, budget: Budget = ANY):
    return finished([measure(c, i, budget) for i, c in enumerate(wanted)], budget, tmp_path)


def factor(axis, before, after) -> float:
    """What the law says a change of one axis does to time."""
    if axis == "image_px":
        return PX[after][0] / PX[before][0]
    if axis == "precision":
        return PRECISION[after][0] / PRECISION[before][0]
    if axis == "threads":
        return (before / after) ** 0.7
    if axis == "prune":
        return (1 - 0.9 * after) / (1 - 0.9 * before)
    return NETWORKS[after][0] / NETWORKS[before][0]


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 40), seed=st.integers(0, 999))
def test_a_lever_is_the_factor_of_its_axis(tmp_path_factory, count, seed):
    wanted = candidates(count, seed)
    found = levers(run(tmp_path_factory.getbasetemp(), *wanted))
    axes = ("image_px", "precision", "threads", "prune", "variant")
    pairs = [sum(setting(a, x) != setting(b, x) for x in axes) for i, a in enumerate(wanted) for b in wanted[:i]]
    assert sum(lever.pairs for lever in found) == pairs.count(1)
    assert len({(v.axis, frozenset([v.before, v.after])) for v in found}) == len(found), "a pair is told once"
    for lever in found:
        expected = factor(lever.axis, lever.before, lever.after)
        assert lever.time_ratio.value == pytest.approx(expected)
        assert lever.time_ratio.low <= lever.time_ratio.value <= lever.time_ratio.high
        assert lever.time_ratio.value < 1, "told in the direction that saves time"


def test_an_option_is_a_setting_of_its_own():
    """A criterion alone is what two candidates differ in, or a step and nothing else; never one for the other."""
    plain = Candidate(family="mobilenet_v2", variant="mobilenet_v2", image_px=96, steps=(("prune", 0.3),))
    late = replace(plain, options=(("prune_where", "late"),))
    uncut = replace(plain, steps=())
    assert setting(plain, "prune_where") == setting(uncut, "prune_where") == "even"
    assert setting(late, "prune_where") == "late" and setting(late, "prune") == 0.3


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999))
def test_turning_a_lever_back_undoes_it(tmp_path_factory, seed):
    for lever in levers(run(tmp_path_factory.getbasetemp(), *candidates(20, seed))):
        back = lever.reverse()
        assert back.time_ratio.value * lever.time_ratio.value == pytest.approx(1)
        assert back.time_ratio.low <= back.time_ratio.value <= back.time_ratio.high
        assert back.reverse().before == lever.before


def test_accuracy_of_a_lever_is_compared_at_equal_epochs(tmp_path):
    large, small = (
        Candidate(family="resnet", variant="resnet18", image_px=128),
        Candidate(family="resnet", variant="resnet18", image_px=64),
    )
    made = [measure(large, 0, ANY), measure(small, 1, ANY)]
    made[0] = replace(made[0], accuracies=(accuracy(0.80, 0), accuracy(0.90, 1), accuracy(0.99, 3)))
    made[1] = replace(made[1], accuracies=(accuracy(0.70, 0), accuracy(0.85, 1)))
    (lever,) = levers(finished(made, ANY, tmp_path))
    assert lever.accuracy_change == pytest.approx(-0.05) and lever.accuracy_pairs == 1
    made[1] = replace(made[1], accuracies=(accuracy(0.85, 9),))
    (lever,) = levers(finished(made, ANY, tmp_path))
    assert lever.accuracy_change is None and lever.accuracy_pairs == 0


def test_saving_is_the_ratio_with_both_errors(tmp_path):
    result = usual(tmp_path)
    saved = saving(result)
    choice, baseline = law(result.choice.candidate), law(result.baseline.candidate)
    assert saved.latency_ratio.value == pytest.approx(choice[0] / baseline[0])
    # two relative errors of 1 %: together the root of their squares
    assert saved.latency_ratio.high / saved.latency_ratio.value == pytest.approx(1 + 0.01 * 2**0.5, abs=2e-4)
    assert saved.latency_saved.low < saved.latency_saved.value < saved.latency_saved.high < 1
    assert saved.memory_ratio == pytest.approx(choice[2] / baseline[2])
    lost = result.baseline.test.top1 - result.choice.test.top1
    assert saved.test_lost == pytest.approx(lost) and 0 < saved.test_lost_se < 0.05
    assert saved.test_count == 540


def test_a_choice_that_is_the_baseline_saves_nothing(tmp_path):
    saved = saving(KINDS["single"](tmp_path))
    assert saved.is_baseline and saved.latency_saved == Interval(0, 0, 0) and saved.test_lost == 0
    assert "itself the greedy choice" in headline(KINDS["single"](tmp_path))


@pytest.mark.parametrize("kind", ["no fit", "failed", "empty", "no baseline"])
def test_no_saving_without_both(kind, tmp_path):
    assert saving(KINDS[kind](tmp_path)) is None


def test_an_interval_that_reaches_zero_still_gives_a_ratio(tmp_path):
    result = usual(tmp_path)
    wild = replace(result.choice.latency, rank_ms=Interval(2.0, 0.0, 4.0))
    saved = saving(replace(result, choice=replace(result.choice, latency=wild)))
    assert 0 <= saved.latency_ratio.low < saved.latency_ratio.value < saved.latency_ratio.high < float("inf")


def test_what_bought_the_latency_names_every_axis_that_changed(tmp_path):
    result = usual(tmp_path)
    start, end = result.baseline.candidate, result.choice.candidate
    turns = explain_saving(result)
    axes = ("image_px", "precision", "threads", "prune", "variant")
    assert {t.axis for t in turns} == {a for a in axes if setting(start, a) != setting(end, a)}
    for turn in turns:
        assert (turn.before, turn.after) == (setting(start, turn.axis), setting(end, turn.axis))
        if turn.lever:
            assert turn.lever.time_ratio.value == pytest.approx(factor(turn.axis, turn.before, turn.after))


def test_the_nearest_miss_names_the_lever_that_closes_the_gap(tmp_path):
    near = Candidate(family="mobilenet", variant="mobilenet_v2", image_px=96, precision="int8")
    known = [Candidate(family="resnet", variant="resnet18", image_px=px, precision="int8") for px in (96, 64)]
    result = run(tmp_path, near, *known, budget=Budget(latency_ms=1.1))
    assert result.miss.measurement.candidate == near
    prospect = best_prospect(result)
    assert (prospect.lever.axis, prospect.lever.before, prospect.lever.after) == ("image_px", 96, 64)
    assert prospect.closes and prospect.candidate == "mobilenet_v2 64px int8"
    assert prospect.latency_ms == pytest.approx(1.12 * law(replace(near, image_px=64))[0]), "the law is a product"
    line = nearest(result)
    assert "mobilenet_v2 96px int8: p95 1.76 ms, 0.657 ms over" in line
    assert "image 96 -> 64 px took 0.58 of the time on 1 measured pair; the predicted latency is about 1.02 ms" in line


def test_a_lever_that_is_not_enough_says_so(tmp_path):
    near = Candidate(family="mobilenet", variant="mobilenet_v2", image_px=96)
    result = run(
        tmp_path,
        near,
        *(Candidate(family="resnet", variant="resnet18", image_px=px) for px in (96, 64)),
        budget=Budget(latency_ms=0.5),
    )
    assert not best_prospect(result).closes and nearest(result).endswith("which alone is not enough")


def test_without_a_measured_pair_nothing_is_promised(tmp_path):
    result = run(tmp_path, Candidate(family="resnet", variant="resnet18", image_px=128), budget=Budget(latency_ms=0.5))
    assert best_prospect(result) is None and "no measured pair" in nearest(result)


def test_what_was_tried_is_not_advised(tmp_path):
    result = run(
        tmp_path,
        *(Candidate(family="resnet", variant="resnet18", image_px=px) for px in (96, 64)),
        budget=Budget(latency_ms=0.5),
    )
    assert best_prospect(result) is None


def test_a_budget_missed_by_its_upper_bound_only(tmp_path):
    result = run(tmp_path, Candidate(family="resnet", variant="resnet18", image_px=128), budget=Budget(latency_ms=12.4))
    assert "p95 12.3 ms, but up to 12.7 ms, 0.290 ms over" in nearest(result)


def test_memory_is_closed_by_what_saves_memory(tmp_path):
    wanted = [
        Candidate(family="resnet", variant="resnet18", image_px=px, steps=steps)
        for px in (96, 128)
        for steps in ((), (("prune", 0.5),))
    ]
    result = run(tmp_path, *wanted[:3], budget=Budget(latency_ms=100.0, percentile=95.0, peak_mb=120.0))
    miss = next(m for m in result.measurements if m.candidate == wanted[2])
    result = replace(result, choice=None, miss=NearestMiss(miss, "peak 140 MB > 120"))
    assert best_prospect(result).lever.axis == "prune"
    assert "took 0.90 of the memory" in nearest(result) and "126 MB, which alone is not enough" in nearest(result)


def test_accuracy_is_closed_by_what_brings_accuracy(tmp_path):
    result = KINDS["drop missed"](tmp_path)
    prospect = best_prospect(result)
    assert prospect.lever.accuracy_change > 0 and "of validation accuracy on" in nearest(result)


def test_numbers_read_well():
    assert [number(v) for v in (0, 0.01234, 0.5, 3.14159, 31.4159, 99.96, 314.159, 12345.6, -2.5)] == [
        "0", "0.0123", "0.500", "3.14", "31.4", "100", "314", "12346", "-2.50",
    ]  # fmt: skip
    assert ms(3.14159) == "3.14 ms" and interval(Interval(3.0, 2.9, 3.1)) == "3.00 [2.90, 3.10]"


def test_the_headline_has_the_numbers_an_engineer_wants(tmp_path):
    result = usual(tmp_path)
    line, latency = headline(result), result.choice.latency
    assert line.startswith(f"{result.choice.candidate.describe()} runs at p95 {interval(latency.percentile_ms)} ms")
    assert "x faster than the greedy choice" in line and "points of test accuracy lost" in line
    assert "p95 <= 5 ms" in line and "kept" in line


def test_outcomes_add_up_and_group_reasons_that_differ_in_numbers_only(result):
    counted = outcomes(result)
    assert sum(count for _, count, _ in counted) == len(result.measurements)
    for outcome, count, reasons in counted:
        assert sum(times for _, times in reasons) in (count, 0), outcome


def test_the_time_split_adds_up(tmp_path):
    shares = split(usual(tmp_path))
    assert sum(share for *_, share in shares) == pytest.approx(1)
    assert [round(seconds) for _, seconds, _ in shares] == [64, 310, 702, 95, 69]


def test_a_quiet_run_needs_no_warning_and_a_noisy_one_gets_it(tmp_path):
    assert trust(usual(tmp_path)) == []
    simulated, noisy = trust(KINDS["disturbed"](tmp_path))
    assert simulated.startswith("Simulated") and noisy.startswith("Disturbed: 36 of 36")


@settings(deadline=None, max_examples=60)
@given(st.floats(-0.02, 0.2), st.floats(-0.9, 0.9))
def test_all_readers_are_told_the_same_way_round(tmp_path_factory, lost, saved):
    """Headline, table and terminal: the same number, the same sign, the same word."""
    result = usual(tmp_path_factory.getbasetemp())
    base = result.baseline.test
    test = replace(base, top1=base.top1 - lost, correct=round(base.count * (base.top1 - lost)))
    rank = result.baseline.latency.rank_ms
    slower = Interval(*((1 - saved) * value for value in (rank.value, rank.low, rank.high)))
    choice = replace(result.choice, test=test, latency=replace(result.choice.latency, rank_ms=slower))
    result = replace(result, choice=choice)
    found = saving(result)
    words = accuracy_change(found.test_lost, found.test_lost_se)
    assert words.endswith("gained" if lost < 0 and "0.0 ±" not in words else "lost") and not words.startswith("-")
    console = Console(file=io.StringIO(), width=400)
    console.print(summary(result))
    told = latency_change(found.latency_saved)
    assert told.endswith("less" if found.latency_saved.value >= 0 else "more") and not told.startswith("-")
    assert words in headline(result) and words in console.file.getvalue() and told in console.file.getvalue()
    row = re.search(r'<tr id="test-change">(.*?)</tr>', page(result), re.S)[1]
    assert words in row


def test_what_rounds_to_nothing_has_no_sign():
    assert points(-0.0001) == "+0.0 points" and accuracy_change(-0.0001, 0.01).startswith("0.0 ± 1.0 points of test")
    assert accuracy_change(-0.008, 0.022) == "0.8 ± 2.2 points of test accuracy gained"
    assert accuracy_change(0.008, None, "balanced") == "0.8 points of test balanced accuracy lost"


def test_headline_with_accuracy_limit_names_both_splits(tmp_path):
    """The limit is of validation accuracy, the change of test accuracy: 9 points lost may keep a limit of 2."""
    result = usual(tmp_path)
    test = replace(result.choice.test, top1=result.baseline.test.top1 - 0.09)
    limited = replace(result.budget, max_drop=0.02)
    told = headline(replace(result, choice=replace(result.choice, test=test), budget=limited))
    assert "9.0 ±" in told and "points of test accuracy lost;" in told
    assert "validation accuracy lost <= 2 points) is kept" in told


def test_more_time_tells_what_is_left_to_train(tmp_path):
    result = replace(usual(tmp_path), time_limit_s=300.0, rungs=(0, 1, 3))
    chosen = result.choice
    assert more_time(replace(result, time_limit_s=None)) == "", "nothing ended early"
    assert more_time(result) == "would train the choice for more than its 3 epochs, up to 24"
    left = replace(chosen, trial=-1, accuracies=())
    beyond = replace(left, outcome=Outcome.OVER_BUDGET)
    unproven = replace(left, latency=replace(left.latency, disturbed="x", percentile_ms=Interval(1.0, 1.0, math.inf)))
    line = more_time(replace(result, screened=(left, left, beyond, unproven), baseline=None))
    assert "train 2 timed candidates within the budget, about" in line and "greedy baseline" in line
    perfect = replace(chosen, accuracies=(replace(chosen.accuracy, correct=360, top1=1.0),))
    assert more_time(replace(result, choice=perfect)) == ""
    assert more_time(replace(result, choice=None, baseline=None)) == "", "a budget that nothing can keep"
    assert more_time(replace(result, classes=())) == "", "a table trains nothing"
