"""What a table answers, what it can't, and that look-ups are counted."""

from __future__ import annotations

import pytest

from evaluators.evaluator import Evaluator
from evaluators.measurement import Accuracy, Failure, Latency
from evaluators.table_evaluator import TableEvaluator
from spaces.space import SpaceError
from spaces.table_space import TableSpace, load_table
from tests.spaces.test_table_space import small

__all__ = ["small"]  # a fixture


@pytest.fixture
def space(small) -> TableSpace:
    return load_table(str(small / "small.toml"), small)


def row(space: TableSpace, key: str):
    return next(c for c in map(space.candidate, space.params()) if c.variant == key)


def test_it_answers_what_stands_in_it(space):
    table: Evaluator = TableEvaluator(space, "pi", "pets")
    found = table.latency(row(space, "a"), None)
    assert isinstance(found, Latency) and found.percentile_ms.high == found.rank_ms.value == 1.5
    assert isinstance(accuracy := table.accuracy(row(space, "a"), 200), Accuracy) and accuracy.top1 == 0.6
    assert table.accuracy(row(space, "a"), 12).top1 == 0.4
    assert table.structure(row(space, "c")).macs == 6_000_000
    assert table.test(row(space, "a"), 200).split == "test"


@pytest.mark.parametrize("key", ["b", "c"])
def test_an_empty_latency_or_none_above_0_is_a_network_that_cannot_run(space, key):
    found = TableEvaluator(space, "nano", "pets").latency(row(space, key), None)
    assert isinstance(found, Failure) and found.kind == "unbuildable"


def test_an_empty_accuracy_is_a_failed_training(space):
    assert isinstance(TableEvaluator(space, "pi", "pets").accuracy(row(space, "d"), 200), Failure)


def test_look_ups_are_counted(space):
    table = TableEvaluator(space, "pi", "pets")
    for key in "abc":
        table.latency(row(space, key), None)
    table.accuracy(row(space, "a"), 12)
    table.accuracy(row(space, "a"), 200)
    assert dict(table.looked_up) == {"latency": 3, "accuracy@12": 1, "accuracy@200": 1}


@pytest.mark.parametrize(("device", "data", "says"), [("moon", "pets", "'moon'"), ("pi", "cars", "'cars_test'")])
def test_columns_that_are_not_there(space, device, data, says):
    with pytest.raises(SpaceError, match=f"no (device|data) column {says}; accepted"):
        TableEvaluator(space, device, data)
