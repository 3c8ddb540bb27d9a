"""What a search believes its stages to cost."""

import pytest

from evaluators.device_evaluator import CONFIRM_BLOCKS
from search.runs.time_budget import LOOKS_A_TRAINING, REPORT_S, brief_epochs, costs_of, finishing_s
from search.settings import Settings
from search.storage.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


def put(ledger, stage, key, seconds):
    ledger.put(stage, key, {}, {"training": seconds, "scoring": 0.0}, 0.0)


def test_the_first_rung_is_the_first_look():
    assert brief_epochs(Settings(budget_ms=1.0, rungs=(0, 1, 3))) == 0
    assert brief_epochs(Settings(budget_ms=1.0, rungs=(2, 6))) == 2
    assert brief_epochs(Settings(budget_ms=1.0, rungs=(3,))) is None


def test_what_is_not_known_yet_is_guessed_from_the_first_looks(ledger):
    put(ledger, "accuracy", "plain@0", 2.0)
    put(ledger, "latency", "plain", 3.0)
    found = costs_of(Settings(budget_ms=1.0), ledger, 60.0)
    assert (found.latency_s, found.brief_s, found.training_s, found.seconds_left) == (
        3.0,
        2.0,
        LOOKS_A_TRAINING * 2.0,
        60,
    )


def test_a_training_is_all_its_rungs_and_a_first_look_is_the_first(ledger):
    for key, seconds in {"a@0": 2.0, "a@1": 5.0, "a@3": 11.0, "b@0": 4.0, "b@1": 5.0}.items():
        put(ledger, "accuracy", key, seconds)
    found = costs_of(Settings(budget_ms=1.0), ledger, 60.0)
    assert (found.brief_s, found.training_s) == (3.0, 18.0), "b was stopped on its way"


def test_without_rungs_there_is_no_first_look(ledger):
    put(ledger, "accuracy", "a@3", 11.0)
    put(ledger, "accuracy", "b@3", 13.0)
    found = costs_of(Settings(budget_ms=1.0, rungs=(3,)), ledger, 60.0)
    assert (found.brief_s, found.training_s) == (None, 12.0)


def test_finishing_s_without_a_scored_plain_network_reserves_no_baseline(ledger):
    timing = {"type": "Latency", "blocks": 2, "repeated": 0}
    ledger.put("latency", "cut", timing, {"timing": 4.0}, 0.0)
    unknown = finishing_s(ledger, 3, {"plain"})
    ledger.put("accuracy", "cut@1", {}, {"scoring": 2.0}, 0.0)
    alone = finishing_s(ledger, 3, {"plain"})
    assert alone == CONFIRM_BLOCKS * 2.0 + 1.5 * 2.0 + REPORT_S
    assert unknown == 2 * CONFIRM_BLOCKS * 2.0 + REPORT_S, "before the first score, both may come"
    ledger.put("accuracy", "plain@0", {}, {"scoring": 2.0}, 0.0)
    assert finishing_s(ledger, 3, {"plain"}) == 2 * (alone - REPORT_S) + REPORT_S
