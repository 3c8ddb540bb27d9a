"""The start: spread over the space, in part led by an earlier study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.bayesopt import initial_design
from search.bayesopt.observations import Observations
from search.bayesopt.transfer import Hints
from tests.search.bayesopt.tables import SMALL, make
from tests.search.bayesopt.tables import start as begun

NONE = Hints(None, None)


def nearest(x, chosen):
    apart = ((x[chosen][:, None] - x[chosen]) ** 2).sum(axis=2)
    return (apart + 1e9 * np.eye(len(chosen))).min(axis=1)


def test_far_apart_is_farther_apart_than_chance():
    x = np.random.default_rng(0).normal(size=(500, 4))
    chosen = initial_design.far_apart(x, 30, x[:0], np.random.default_rng(1))
    assert len(set(chosen)) == 30
    by_chance = np.random.default_rng(2).choice(500, 30, replace=False)
    assert nearest(x, chosen).mean() > 1.3 * nearest(x, by_chance).mean()


def test_far_apart_keeps_clear_of_those_taken_and_takes_equals_once():
    x = np.r_[np.zeros((50, 1)), np.ones((50, 1))]
    assert initial_design.far_apart(x, 1, np.zeros((1, 1)), np.random.default_rng(0))[0] >= 50
    assert sorted(initial_design.far_apart(np.zeros((6, 1)), 9, np.zeros((2, 1)), np.random.default_rng(0))) == list(
        range(6)
    )


def test_to_time_leaves_alone_what_is_closed_failed_or_timed():
    table, known = make(), Observations.nothing(1024)
    known.closed[::2], known.failed[1::4], known.looks[3::8] = True, True, 1
    chosen = initial_design.to_time(table.encoding.columns, known, SMALL, NONE, np.random.default_rng(0))
    assert len(chosen) == SMALL.start_timings and known.is_open()[chosen].all()


def test_to_train_takes_from_all_latencies_by_turns_the_best_at_low_fidelity():
    table, known = make(), Observations.nothing(1024)
    timed = np.arange(0, 1024, 16)
    known.latency_ms[timed], known.brief[timed], known.looks[timed] = table.latency_ms[timed], table.brief[timed], 1
    chosen = initial_design.to_train(known, 4, NONE, np.random.default_rng(0))
    stretches = np.array_split(timed[np.argsort(table.latency_ms[timed])], 4)
    assert all(i in stretch for i, stretch in zip(chosen, stretches, strict=True))
    assert chosen[0] == stretches[0][np.argmax(table.brief[stretches[0]])]
    assert chosen[2] == stretches[2][np.argmax(table.brief[stretches[2]])]


def test_to_train_takes_the_slowest_of_a_stretch_where_nothing_tells_of_accuracy():
    table, known = make(), Observations.nothing(1024)
    timed = np.arange(0, 1024, 16)
    known.latency_ms[timed], known.looks[timed] = table.latency_ms[timed], 1
    chosen = initial_design.to_train(known, 4, NONE, np.random.default_rng(0))
    ordered = timed[np.argsort(table.latency_ms[timed])]
    assert (chosen[0], chosen[2]) == (ordered[15], ordered[47]) and chosen[1] in ordered[16:32]


@pytest.mark.parametrize(("hurried", "pick"), [(False, np.argmax), (True, np.argmin)])
def test_to_train_begins_with_the_slowest_of_the_first_or_in_a_hurry_the_fastest(hurried, pick):
    table, known = make(), Observations.nothing(1024)
    timed = np.arange(0, 1024, 16)
    known.latency_ms[timed], known.looks[timed] = table.latency_ms[timed], 1
    first = np.isin(np.arange(1024), timed[::4])
    chosen = initial_design.to_train(
        known, 4, hints=NONE, random=np.random.default_rng(0), first=first, hurried=hurried
    )
    assert chosen[0] == timed[::4][pick(table.latency_ms[timed[::4]])] and len(set(chosen)) == 4
    known.accuracy[chosen[0]] = 0.5
    again = initial_design.to_train(known, 3, NONE, np.random.default_rng(0), first)
    assert set(again) == set(
        initial_design.to_train(known, 3, NONE, np.random.default_rng(0))
    )  # as if nobody came first
    assert not len(initial_design.to_train(known, 0, NONE, np.random.default_rng(0), first))


def test_a_start_counts_what_a_gate_ended_and_not_what_is_over_the_budget():
    table, run = make(), begun(make(), settings=replace(SMALL, start_trainings=3))
    known = Observations.nothing(1024)
    known.latency_ms[:8], known.looks[:8] = table.latency_ms[:8], 1
    known.accuracy[:2] = table.accuracy[:2]
    known.closed[2], known.brief[2] = True, 0.1  # ended after its short training
    assert not run.proposer.starting(known)
    known.beyond[2] = True
    assert run.proposer.starting(known) and len(run.proposer.start_train(known)) == 1
    known.closed[3:] = True  # nobody is left to begin with
    assert not run.proposer.starting(known)


def test_nothing_to_start_with():
    known = Observations.nothing(5)
    known.failed[:] = True
    random = np.random.default_rng(0)
    assert not len(initial_design.to_time(np.zeros((5, 1)), known, replace(SMALL, start_timings=3), NONE, random))
    assert not len(initial_design.to_train(known, 3, NONE, random))


def test_to_train_with_a_preference_goes_from_the_budget_down():
    table, known = make(), Observations.nothing(1024)
    timed = np.arange(0, 1024, 16)
    known.latency_ms[timed], known.brief[timed], known.looks[timed] = table.latency_ms[timed], table.brief[timed], 1
    first = np.isin(np.arange(1024), timed[:1])
    known.accuracy[timed[0]] = 0.5  # the preference was met: the others follow
    chosen = initial_design.to_train(known, 4, NONE, np.random.default_rng(0), first)
    stretches = np.array_split(timed[1:][np.argsort(table.latency_ms[timed[1:]])], 4)[::-1]
    assert all(i in stretch for i, stretch in zip(chosen, stretches, strict=True))
    assert chosen[0] == stretches[0][np.argmax(table.brief[stretches[0]])]
