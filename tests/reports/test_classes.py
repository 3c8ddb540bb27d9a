"""A class that is never predicted is seen: in the tables, in the warnings, in config.json."""

import re
from dataclasses import replace

import pytest

from evaluators.measurement import Accuracy
from reports.classes import ALL, WORST, by_class, class_warnings, summary
from reports.formatting import headline, trust
from reports.html import page
from reports.trial_table import rows
from tests.reports.conftest import CLASSES, KINDS, usual


def missed(result, place: int = 2):
    """The run, its choice never giving one class: those images are all taken for the first."""
    test = result.choice.test
    counts = test.class_counts
    wrong = counts[place]
    blind = replace(
        test, top1=1 - wrong / test.count, correct=test.count - wrong, errors=((place, 0 if place else 1, wrong),)
    )
    return replace(result, choice=replace(result.choice, test=blind))


def test_a_class_that_is_never_given_is_warned_of_by_name(tmp_path):
    result = missed(usual(tmp_path))
    (line,) = class_warnings(result)
    assert "patches 0 of 90" in line and "test images" in line and "--metric balanced" in line
    assert line in trust(result) and line in page(result)
    assert "never given" in page(result) and class_warnings(usual(tmp_path)) == []
    balanced = replace(result.choice.test, metric="balanced")
    searched_so = replace(result, choice=replace(result.choice, test=balanced))
    assert "--metric" not in class_warnings(searched_so)[0], "what was done is no advice"


def test_choice_and_baseline_are_shown_class_by_class(tmp_path):
    result = missed(usual(tmp_path))
    choice, baseline = by_class(result)
    assert (choice.what, baseline.what) == ("choice", "baseline")
    assert [row.name for row in choice.shown] == list(CLASSES)
    patches = choice.shown[2]
    assert (patches.images, patches.recall, patches.precision, patches.taken_for) == (90, 0.0, None, "crazing (90)")
    assert choice.matrix.cells[2][0] == (90, 1.0) and choice.matrix.cells[2][2] == (0, 0.0)
    text = page(result)
    heat = re.findall(r'<table class="heat">(.*?)</table>', text, re.S)
    assert len(heat) == 2 and heat[0].count("<tr>") == 1 + len(CLASSES)
    assert f"balanced {100 * result.choice.test.value_of('balanced'):.1f} %" in text


def test_of_many_classes_the_worst_are_shown(tmp_path):
    result, count = usual(tmp_path), 1000
    counts = (5,) * count
    errors = tuple((place, (place + 1) % count, 1 + place % 5) for place in range(0, count, 3))
    right = sum(counts) - sum(n for *_, n in errors)
    test = Accuracy(
        top1=right / 5000,
        correct=right,
        count=5000,
        epochs=3,
        split="test",
        model_sha256="a" * 64,
        class_counts=counts,
        errors=errors,
    )
    result = replace(result, choice=replace(result.choice, test=test), classes=tuple(map(str, range(count))))
    choice = by_class(result)[0]
    assert len(choice.shown) == WORST < ALL and {row.recall for row in choice.shown} == {0.0}
    assert sum(choice.matrix.others) > 0 and "classes of 1000" in page(result)
    assert f"and {len(test.confusion.behind()) - 5} more" in class_warnings(result)[0]


def test_the_table_has_every_metric(tmp_path):
    result = missed(usual(tmp_path))
    row, test = rows(result).set_index("trial").loc[result.choice.trial], result.choice.test
    for metric, name in (("balanced", "balanced"), ("macro-f1", "macro_f1")):
        assert row[f"test_{name}"] == test.value_of(metric) and row[f"test_{name}_se"] == test.error_of(metric)
        assert row[f"validation_{name}"] == result.choice.accuracy.value_of(metric)
    assert row["test_score"] == row["test_top1"] == test.top1 and row["metric"] == "top1"


def test_classes_that_are_not_told_apart_leave_no_trace(tmp_path):
    result = usual(tmp_path)
    plain = [replace(m, test=replace(m.test, class_counts=(), errors=())) for m in (result.choice, result.baseline)]
    old = replace(result, choice=plain[0], baseline=plain[1])
    assert by_class(old) == [] and class_warnings(old) == [] and summary(plain[0].test, CLASSES) == {}
    assert "Class by class" not in page(old)


@pytest.mark.parametrize("metric, name", [("balanced", "balanced accuracy"), ("macro-f1", "macro-F1")])
def test_names_follow_the_metric(tmp_path, metric, name):
    result = usual(tmp_path)
    by_metric = {m.trial: _by(m, metric) for m in result.measurements}
    result = replace(
        result,
        budget=replace(result.budget, metric=metric, max_drop=0.05),
        measurements=tuple(by_metric.values()),
        choice=by_metric[result.choice.trial],
        baseline=by_metric[result.baseline.trial],
        front=tuple(by_metric[m.trial] for m in result.front),
    )
    text = page(result)
    assert f"points of test {name}" in headline(result) and f"{name} lost &lt;= 5 points" in text
    assert f'"metric": "{name}"' in text
    assert rows(result).set_index("trial").loc[result.choice.trial, "test_score"] == result.choice.test.value_of(metric)


def _by(m, metric):
    test = replace(m.test, metric=metric) if m.test else None
    return replace(m, test=test, accuracies=tuple(replace(a, metric=metric) for a in m.accuracies))


def test_config_counts_by_class():
    accuracy = Accuracy(
        top1=0.95,
        correct=95,
        count=100,
        epochs=3,
        split="test",
        model_sha256="",
        class_counts=(95, 5),
        errors=((1, 0, 5),),
    )
    told = summary(accuracy, ("good", "bad"))
    assert told["balanced"] == 0.5 and told["by_class"][1] == {
        "class": "bad", "images": 5, "recall": 0.0, "precision": None,
    }  # fmt: skip


def test_hostile_class_names_are_text(tmp_path):
    text = page(missed(KINDS["evil"](tmp_path), 0))
    assert "<script>document" not in text and "Classes that the choice rarely recognises" in text
