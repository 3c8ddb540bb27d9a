"""At which size a network is trained before candidates are made from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.pipeline.parent_sizes import ParentSizes, largest_within
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
PLAIN = SPACE.parents()[0]  # at 40 px
SMALL = replace(PLAIN, image_px=16, precision="int8")


def sizes(folder, budget_ms, inner=None, timed=True):
    ledger = Ledger(folder / "ledger.jsonl")
    evaluator = CachedEvaluator(inner or Analytic(), ledger, Stopwatch())
    if timed:
        evaluator.latency(PLAIN, None)
    return ParentSizes(evaluator, ledger, SPACE, Budget(latency_ms=budget_ms), lambda: 0.0), ledger


@pytest.mark.parametrize(("limit_ms", "px"), [(4.0, 160), (1.1, 80), (1.0, 80), (0.9, 80), (2.3, 112)])
def test_largest_within_grows_with_the_area(limit_ms, px):
    assert largest_within([80, 112, 160], 4.0, 160, limit_ms) == px


def test_parent_sizes_loose_budget_takes_the_largest(tmp_path):
    assert sizes(tmp_path, 100.0)[0].of(SMALL) == PLAIN.image_px


def test_parent_sizes_tight_budget_takes_one_within_and_the_baseline_its_own(tmp_path):
    cost = Analytic().cost(PLAIN)
    found, _ = sizes(tmp_path, 0.4 * cost)
    assert found.of(SMALL) == 24 and found.of(PLAIN) == PLAIN.image_px


def test_parent_sizes_first_candidate_without_compression_is_its_own_parent(tmp_path):
    cost = Analytic().cost(PLAIN)
    found, _ = sizes(tmp_path, 0.4 * cost)
    assert found.of(replace(PLAIN, image_px=32, precision="int8")) == 32, "int8 keeps the budget at a larger size"


def test_parent_sizes_decided_once_a_run(tmp_path):
    cost = Analytic().cost(PLAIN)
    found, ledger = sizes(tmp_path, 0.4 * cost)
    decided = found.of(SMALL)
    ledger.close()
    assert sizes(tmp_path, 100.0)[0].of(SMALL) == decided


def test_parent_sizes_not_timed_takes_the_candidates_own(tmp_path):
    inner = Analytic()
    assert sizes(tmp_path, 1.0, inner, timed=False)[0].of(SMALL) == SMALL.image_px and inner.calls == []


def test_parent_sizes_run_of_an_earlier_version_goes_on_at_the_largest(tmp_path):
    found, ledger = sizes(tmp_path, 0.4 * Analytic().cost(PLAIN))
    ledger.put("accuracy", f"{SMALL.key()}@0", None, {}, 0.0)
    assert found.of(SMALL) == PLAIN.image_px
