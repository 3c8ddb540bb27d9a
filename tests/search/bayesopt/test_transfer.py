"""Warm start: what an earlier study of another device foretells helps, and what it cannot know does no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.bayesopt import initial_design as first
from search.bayesopt.observations import Observations, PriorRun
from search.bayesopt.transfer import FEWEST, hints
from tests.search.bayesopt.tables import SMALL, make, start

TABLE, OTHER = make(seed=3), make(seed=3, device=1)
UNKNOWN = np.full(1024, np.nan)


def some(values, count, seed=0):
    """Known of as many, drawn at random."""
    found = np.full(len(values), np.nan)
    which = np.random.default_rng(seed).choice(len(values), count, replace=False)
    found[which] = values[which]
    return found


def heard(earlier, table=TABLE):
    return hints(earlier, table.encoding, 300, np.random.default_rng(0))


def test_another_device_foretells_the_order_of_all():
    said = heard(PriorRun(some(OTHER.latency_ms, 60), some(OTHER.accuracy, 60)))
    assert np.corrcoef(said.latency.values, np.log(TABLE.latency_ms))[0, 1] > 0.7
    assert np.corrcoef(said.accuracy.values, TABLE.accuracy)[0, 1] > 0.7
    assert said.skill > 0.5


def test_accuracies_of_the_wrong_candidates_have_no_skill():
    wrong = some(OTHER.accuracy, 60)
    known = np.flatnonzero(np.isfinite(wrong))
    wrong[known] = np.random.default_rng(1).permutation(wrong[known])
    assert heard(PriorRun(some(OTHER.latency_ms, 60), wrong)).skill < 0.2


@pytest.mark.parametrize(
    "earlier",
    [
        None,
        PriorRun(UNKNOWN, UNKNOWN),
        PriorRun(some(OTHER.latency_ms, FEWEST - 1), some(OTHER.accuracy, FEWEST - 1)),
        PriorRun(np.full(1024, 3.0), np.full(1024, 0.5)),
        PriorRun(np.full(1024, -1.0), some(OTHER.accuracy, 60)),
    ],
)
def test_too_little_to_say(earlier):
    said = heard(earlier)
    assert said.latency is None and said.skill == 0.0
    run = start(TABLE, earlier=earlier).until(12.0)
    assert len(run.order) >= 8


def test_leaders_come_in_layers_of_the_predicted_front():
    said = heard(PriorRun(some(OTHER.latency_ms, 100), some(OTHER.accuracy, 100)))
    led = said.leaders(np.arange(1024), 1024)
    assert sorted(led) == list(range(1024))
    accuracy, latency = said.accuracy.values, said.latency.values
    ahead, behind = led[:10], led[500:]
    dominated = (accuracy[behind] >= accuracy[ahead][:, None]) & (latency[behind] < latency[ahead][:, None])
    assert not dominated.any()


def test_part_of_the_start_is_led_and_the_rest_is_not():
    said = heard(PriorRun(some(OTHER.latency_ms, 100), some(OTHER.accuracy, 100)))
    known, random = Observations.nothing(1024), np.random.default_rng(0)
    chosen = first.to_time(TABLE.encoding.columns, known, SMALL, said, random)
    leaders = said.leaders(np.arange(1024), int(0.5 * said.skill * SMALL.start_timings))
    assert len(leaders) > 5 and set(leaders) <= set(chosen)
    assert len(set(chosen)) == SMALL.start_timings
    assert len(set(chosen) - set(said.leaders(np.arange(1024), 100))) > 5


def test_leaders_that_are_closed_are_passed_over():
    earlier = PriorRun(some(OTHER.latency_ms, 100), some(OTHER.accuracy, 100))
    known = Observations.nothing(1024)
    known.closed[heard(earlier).leaders(np.arange(1024), 50)] = True
    chosen = first.to_time(TABLE.encoding.columns, known, SMALL, heard(earlier), np.random.default_rng(0))
    assert not known.closed[chosen].any() and len(chosen) == SMALL.start_timings


def reached(earlier, spent):
    settings = replace(SMALL, tries=0)
    return np.mean(
        [TABLE.share(np.array(start(TABLE, s, settings, None, earlier).until(spent).order)) for s in (0, 1, 2)]
    )


@pytest.mark.slow
def test_a_warm_start_is_ahead_early_and_a_useless_one_is_hardly_behind():
    cold = reached(None, 10)
    warm = reached(PriorRun(some(OTHER.latency_ms, 150), some(OTHER.accuracy, 80)), 10)
    accuracy = some(OTHER.accuracy, 80)
    known = np.flatnonzero(np.isfinite(accuracy))
    accuracy[known] = np.random.default_rng(1).permutation(accuracy[known])
    useless = reached(PriorRun(some(OTHER.latency_ms, 150), accuracy), 10)
    assert warm > cold + 0.01, (warm, cold)
    assert useless > cold - 0.05, (useless, cold)
