"""Rounds: what must hold whatever the table is like (the steps of `tables.Run` assert the rest)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers, sampled_from

from search.bayesopt.observations import Observations, ProposerSettings, settings_for
from search.bayesopt.proposer import Proposer
from tests.search.bayesopt.tables import SMALL, Made, make, start

TABLE = make()


def only(table, which):
    """The table of some of the candidates."""
    return replace(table, **{name: value[which] for name, value in vars(table).items()})


@pytest.mark.slow
def test_it_finds_the_front_sooner_than_chance():
    found = [TABLE.share(np.array(start(TABLE, seed).until(35).order)) for seed in range(2)]
    random = np.random.default_rng(0)
    chance = [TABLE.share(random.choice(len(TABLE.codes), 35, replace=False)) for _ in range(20)]
    assert min(found) > 0.9 and np.mean(found) > np.mean(chance) + 0.1, (found, np.mean(chance))


def test_the_same_seed_proposes_the_same():
    assert start(TABLE, 4).until(14).order == start(TABLE, 4).until(14).order
    assert start(TABLE, 4).until(14).order != start(TABLE, 5).until(14).order


def test_a_batch_is_of_different_candidates_that_do_not_crowd():
    run = start(TABLE)
    before = len(run.order)
    assert run.round(batch=5) == 5
    latency = np.log(TABLE.latency_ms[run.order[before:]])
    assert np.ptp(latency) > 0.1


@pytest.mark.parametrize("budget_ms", [None, 1e-3, 3.0, 1e6])
@pytest.mark.parametrize("within", [False, True])
def test_any_budget(budget_ms, within):
    run = start(TABLE, settings=replace(SMALL, within=within), budget_ms=budget_ms)
    assert [run.round() for _ in range(3)] == [1, 1, 1]


def test_wrong_latencies_are_looked_at_again_and_do_not_lead_away():
    random = np.random.default_rng(7)
    wrong = {int(i): 0.2 for i in random.choice(len(TABLE.codes), 40, replace=False)}
    run = start(TABLE)
    run.first_look = wrong
    run.until(35)
    asked = [i for i in wrong if run.known.looks[i]]
    led = [i for i in run.order if i in wrong and run.known.looks[i] == 1]
    assert asked and len(led) <= 1, "trained on the strength of a latency that is wrong"
    assert TABLE.share(np.array(run.order)) > 0.9


def test_failures_are_avoided_once_they_are_seen():
    bad = TABLE.codes[:, 0] == 2
    run = start(replace(TABLE, latency_ms=np.where(bad, np.nan, TABLE.latency_ms)))
    before = run.known.failed.sum()
    timed = run.known.looks.sum()
    run.until(25)
    later = (run.known.failed.sum() - before) / (run.known.looks.sum() - timed)
    assert before > 2 and later < 0.1, "a quarter of the space fails"


@pytest.mark.parametrize("latency_ms", [np.round(TABLE.latency_ms), np.full(len(TABLE.codes), 4.0)])
def test_ties(latency_ms):
    run = start(replace(TABLE, latency_ms=latency_ms)).until(15)
    assert len(run.order) >= 8


@pytest.mark.parametrize("what", ["accuracy", "brief", "features"])
def test_what_is_the_same_for_all(what):
    run = start(replace(TABLE, **{what: np.full_like(getattr(TABLE, what), 0.5)})).until(12)
    assert len(run.order) >= 6


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("tries", [0, 3])
def test_tiny_spaces_are_trained_through_and_then_it_ends(n, tries):
    run = start(only(TABLE, np.arange(0, 1024, 1024 // n)[:n]), settings=replace(SMALL, tries=tries))
    rounds = 0
    while run.round():
        rounds += 1
        assert rounds <= n
    assert sorted(run.order) == list(range(n))


def test_one_axis_only():
    one = make(axes=1, values=30)
    assert sorted(start(one).until(1e9).order) == list(range(30))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_everything_fails_or_all_but_a_few(left):
    latency = np.full(40, np.nan)
    latency[:left] = 3.0
    run = start(replace(only(TABLE, np.arange(40)), latency_ms=latency))
    for _ in range(12):
        run.round()
    assert run.known.looks.min() == 1, "all were tried"
    assert sorted(run.order) == list(range(left))


def test_impossible_latencies_are_not_worked_with():
    run = start(replace(TABLE, latency_ms=np.where(TABLE.codes[:, 1] == 1, 0.0, TABLE.latency_ms))).until(12)
    assert (TABLE.codes[run.order, 1] != 1).all()


def test_closed_candidates_are_never_proposed():
    run = start(TABLE)
    run.known.closed[::3] = True
    run.until(15)
    assert not [i for i in run.order[SMALL.start_trainings :] if i % 3 == 0]


def test_nothing_waits_that_is_slower_than_one_with_every_answer_right():
    known = Observations.nothing(4)
    known.latency_ms[:], known.looks[:] = [1.0, 2.0, 3.0, np.nan], [1, 1, 1, 0]
    known.accuracy[1] = 0.99
    assert known.waiting().tolist() == [True, False, True, False] and not known.is_hopeless().any()
    known.accuracy[1] = 1.0
    assert known.waiting().tolist() == [True, False, False, False] and known.is_hopeless().tolist() == [
        False,
        True,
        True,
        False,
    ]
    known.failed[1] = True
    assert known.waiting().tolist() == [True, False, True, False], "it was no measurement after all"


def test_all_closed_is_nothing_to_do():
    run = start(TABLE)
    run.known.closed[:] = True
    assert run.round() == 0


def test_none_asked_for_is_none():
    run = start(TABLE)
    assert not len(run.proposer.to_time(run.known, 0))
    assert len(run.proposer.to_time(run.known, 3)) <= 3


def test_low_fidelity_may_begin_and_end_on_the_way():
    run = start(TABLE, settings=replace(SMALL, tries=0))
    assert np.isnan(run.known.brief).all()
    for tries in (3, 0, 3):
        run.proposer.settings = replace(SMALL, tries=tries)
        before = np.isfinite(run.known.brief).sum()
        assert run.round() == 1 and np.isfinite(run.known.brief).sum() == before + tries


def test_asked_before_anything_is_known():
    proposer = Proposer(TABLE.encoding, 3.0, 0, SMALL)
    known = Observations.nothing(len(TABLE.codes))
    assert proposer.starting(known)
    assert len(set(proposer.to_time(known))) == SMALL.timings
    for ask in (proposer.to_confirm, proposer.to_try, proposer.to_train):
        assert not len(ask(known))


def test_counts_follow_what_the_stages_cost():
    assert settings_for(1e-3, 1.0, 1e3) == ProposerSettings()
    assert settings_for(150.0, 300.0, 600.0).timings == 1
    assert settings_for(1.0, None, 600.0).tries == 0
    some = settings_for(30.0, 120.0, 600.0)
    assert (some.timings, some.tries) == (5, 2) and some.start_timings == 32 and some.start_tries == 30


@pytest.mark.parametrize("per_second", [False, True])
def test_what_is_over_the_budget_is_tried_for_what_it_tells_and_never_trained(per_second):
    """But not where every second counts."""
    budget_ms = float(np.quantile(TABLE.latency_ms, 0.25))
    settings = replace(SMALL, tries=8, start_tries=0, within=True, per_second=per_second)
    run = start(TABLE, settings=settings, budget_ms=budget_ms)
    known = run.known
    known.accuracy[known.latency_ms > budget_ms] = np.nan
    tried_beyond = 0
    for _ in range(8):
        run.first_time(run.proposer.to_time(known))
        known.beyond = known.latency_ms > budget_ms
        known.closed |= known.beyond
        tries = run.proposer.to_try(known)
        assert np.isnan(known.brief[tries]).all() and len(set(tries)) == len(tries)
        known.brief[tries] = TABLE.brief[tries]
        tried_beyond += int(known.beyond[tries].sum())
        assert (known.latency_ms[tries] < 1.4 * budget_ms).all(), "only what may have relatives within"
        run.train(run.proposer.to_train(known))  # holds that it may be trained
    assert tried_beyond == 0 if per_second else 0 < tried_beyond < 8 * 8


def test_what_is_being_trained_is_counted_as_if_it_had_come_out():
    run = start(TABLE)
    run.first_time(run.proposer.to_time(run.known))
    first = run.proposer.to_train(run.known, 3)
    assert run.proposer.to_train(run.known, 2, pending=first[:1]).tolist() == first[1:].tolist()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    n=integers(1, 60),
    axes=integers(0, 3),
    numbers=integers(0, 2),
    fails=sampled_from([0.0, 0.3, 0.9, 1.0]),
    coarse=booleans(),
    tries=integers(0, 2),
    seed=integers(0, 1000),
)
def test_any_table_is_searched_to_its_end(n, axes, numbers, fails, coarse, tries, seed):
    random = np.random.default_rng(seed)
    latency = np.exp(random.normal(size=n) * 2.0)
    latency = np.ceil(latency) if coarse else latency
    accuracy = random.integers(0, 4, n) / 4.0 if coarse else random.uniform(size=n)
    features = np.where(random.uniform(size=(n, numbers)) < 0.2, np.nan, random.normal(size=(n, numbers)))
    table = Made(
        codes=random.integers(0, 3, (n, axes)),
        features=features,
        latency_ms=np.where(random.uniform(size=n) < fails, np.nan, latency),
        accuracy=accuracy,
        brief=np.round(accuracy + random.normal(0, 0.1, n), 2),
        train_s=random.uniform(1, 9, n),
    )
    counts = ProposerSettings(timings=9, tries=tries, start_timings=12, start_tries=6, start_trainings=4, points=25)
    run = start(table, seed, counts, budget_ms=2.0)
    idle = 0
    while idle <= n // 9 + 1:
        idle = 0 if run.round(batch=5) else idle + 1
    assert sorted(run.order) == np.flatnonzero(np.isfinite(table.latency_ms)).tolist()


def test_start_try_begins_with_the_preferred_that_wait_and_fills_up_at_random():
    proposer, known = start(TABLE).proposer, Observations.nothing(len(TABLE.codes))
    proposer.settings = replace(SMALL, start_tries=6)
    timed = np.arange(0, 200, 4)
    known.latency_ms[timed], known.looks[timed] = 1.0, 1
    known.brief[8] = 0.5
    tried = proposer.start_try(known, np.array([12, 8, 1, 4]))  # 8 was tried before, 1 is not timed
    assert list(tried[:2]) == [12, 4] and len(set(tried)) == 6 and np.isin(tried, timed).all()
    proposer.settings = replace(SMALL, start_tries=1)
    assert list(proposer.start_try(known, np.array([12, 4]))) == [12]
