"""Cost-aware: by gain per predicted second of training where time is what is limited."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from search.bayesopt.surrogate_models import FEWEST_S, SurrogateModels
from search.bayesopt.transfer import Hints
from tests.search.bayesopt.tables import SMALL, make, start

TABLE = make(seed=5)
DEAR = replace(TABLE, train_s=np.exp(3.0 * TABLE.features[:, 0] / TABLE.features.max()) * 60.0)
PER_SECOND = replace(SMALL, tries=0, per_second=True)


def test_seconds_of_the_untrained_are_foretold():
    run = start(DEAR, settings=PER_SECOND).until(25)
    rest = np.flatnonzero(np.isnan(run.known.train_s))
    ratio = run.proposer.surrogates.train_s(rest, run.known) / DEAR.train_s[rest]
    assert np.abs(np.log(ratio)).mean() < 0.15, "of durations that differ by a factor of twenty"


def test_too_few_durations_leave_all_alike():
    surrogates = SurrogateModels(TABLE.encoding, Hints(None, None), PER_SECOND, np.random.default_rng(0))
    known = start(DEAR, settings=PER_SECOND).known
    known.train_s[np.flatnonzero(np.isfinite(known.train_s))[FEWEST_S - 1 :]] = np.nan
    surrogates.fit(known, None)
    assert len(set(surrogates.train_s(np.arange(9), known))) == 1


def test_what_was_trained_for_another_takes_its_own_share():
    surrogates = SurrogateModels(TABLE.encoding, Hints(None, None), PER_SECOND, np.random.default_rng(0))
    known = start(DEAR, settings=PER_SECOND).known
    twins = np.flatnonzero(np.isnan(known.train_s))[:40]
    surrogates.fit(known, None)
    before = surrogates.train_s(twins, known)
    known.eased[twins] = True
    assert (surrogates.train_s(twins, known) < before).all(), "supposed, as long as none was seen"
    usual = np.exp(np.log(known.train_s[np.isfinite(known.train_s)]).mean())
    known.train_s[twins[:10]] = 0.2 * usual
    surrogates.fit(known, None)
    assert surrogates.train_s(twins[10:], known) == pytest.approx(0.2 * before[10:], rel=0.01)


def test_durations_change_nothing_unless_asked_for():
    without = replace(DEAR, train_s=np.full(len(DEAR.codes), np.nan))
    plain = replace(SMALL, per_second=False)
    assert start(DEAR, settings=plain).until(15).order == start(without, settings=plain).until(15).order


def test_equal_durations_change_nothing():
    level = replace(DEAR, train_s=np.full(len(DEAR.codes), 7.0))
    unknown = replace(DEAR, train_s=np.full(len(DEAR.codes), np.nan))
    assert start(level, settings=PER_SECOND).until(14).order == start(unknown, settings=PER_SECOND).until(14).order


@pytest.mark.parametrize("tries", [0, 3])
def test_more_is_reached_in_as_many_seconds(tries):
    shares = {}
    for per_second in (False, True):
        settings = replace(SMALL, tries=tries, per_second=per_second)
        runs = [start(DEAR, seed, settings) for seed in range(6)]
        for run in runs:
            limit_s = DEAR.train_s[run.order].sum() + 4.0 * DEAR.train_s.mean()
            while DEAR.train_s[run.order].sum() < limit_s:
                assert run.round() == 1
        shares[per_second] = float(np.mean([DEAR.share(np.array(run.order[:-1])) for run in runs]))
    assert shares[True] > shares[False], shares


def test_nonsense_durations_are_passed_over():
    run = start(DEAR, settings=PER_SECOND)
    run.known.train_s[run.order[0]] = 0.0
    run.known.train_s[run.order[1]] = np.inf
    assert run.until(12).round() == 1
