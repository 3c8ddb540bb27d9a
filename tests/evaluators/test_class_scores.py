"""Scores by class are scikit-learn's, and their error bars are what repeated draws show."""

import warnings
from dataclasses import asdict, replace
from json import dumps, loads

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from evaluators.class_scores import Confusion, iter_mistakes, worst
from evaluators.measurement import METRICS, Accuracy, Measurement, accuracy_from_dict
from evaluators.stages.accuracy import count_errors
from spaces.candidate import Candidate


def confusion_of(labels, predicted, classes: int) -> Confusion:
    counts, errors = count_errors(numpy.array(labels, dtype=int), numpy.array(predicted, dtype=int), classes)
    return Confusion(counts, tuple(errors))


answers = st.integers(2, 7).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60),
    )
)


@settings(deadline=None, max_examples=200)
@given(answers)
def test_scores_of_any_answers_are_scikit_learns(made):
    classes, pairs = made
    labels, predicted = map(list, zip(*pairs, strict=True))
    found, every = confusion_of(labels, predicted, classes), list(range(classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recalls = recall_score(labels, predicted, labels=every, average=None, zero_division=0)
        precisions = precision_score(labels, predicted, labels=every, average=None, zero_division=0)
        balanced = balanced_accuracy_score(labels, predicted)
        f1 = f1_score(labels, predicted, average="macro", zero_division=0)
    assert [r or 0.0 for r in found.recalls()] == pytest.approx(list(recalls))
    assert [p or 0.0 for p in found.precisions()] == pytest.approx(list(precisions))
    assert found.score_balanced()[0] == pytest.approx(balanced)
    assert found.macro_f1()[0] == pytest.approx(f1)
    assert [r is None for r in found.recalls()] == [c not in labels for c in every]
    dense = numpy.diag(found.right)
    for label, taken, count in found.errors:
        dense[label, taken] += count
    assert (dense == confusion_matrix(labels, predicted, labels=every)).all()


def drawn(matrix: numpy.ndarray, rng: numpy.random.Generator) -> Confusion:
    """One data set's answers: each class's images fall into its row of chances."""
    counts = matrix.sum(axis=1).round().astype(int)
    table = numpy.array([rng.multinomial(n, row / row.sum()) for n, row in zip(counts, matrix, strict=True)])
    errors = [(i, j, int(table[i, j])) for i in range(len(table)) for j in range(len(table)) if i != j and table[i, j]]
    return Confusion(tuple(int(n) for n in counts), tuple(errors))


@pytest.mark.parametrize("name", ["even", "skewed", "many"])
def test_error_bars_are_the_spread_of_repeated_draws(name):
    """Within a quarter: what Agresti-Coull adds to small classes is in it."""
    matrix = {
        "even": numpy.full((4, 4), 5.0) + 65 * numpy.eye(4),
        "skewed": numpy.array([[190.0, 8, 2], [20, 50, 10], [6, 14, 40]]),
        "many": numpy.full((30, 30), 0.5) + 25.5 * numpy.eye(30),
    }[name]
    rng = numpy.random.default_rng(0)
    draws = [drawn(matrix, rng) for _ in range(1500)]
    for score in (Confusion.score_balanced, Confusion.macro_f1):
        values, errors = zip(*(score(draw) for draw in draws), strict=True)
        assert numpy.mean(errors) == pytest.approx(numpy.std(values), rel=0.25), score.__name__


def test_perfect_answers_do_not_claim_certainty():
    perfect = Confusion((20, 20, 20), ())
    for value, error in (perfect.score_balanced(), perfect.macro_f1()):
        assert value == 1.0 and 0.01 < error < 0.1


def test_a_class_that_is_never_given_is_named():
    """95 of 100 are right and a whole class is missed."""
    found = Confusion((95, 5), ((1, 0, 5),))
    assert found.recalls() == (1.0, 0.0) and found.precisions() == (0.95, None)
    assert found.behind() == (1,) and found.score_balanced()[0] == 0.5
    assert list(iter_mistakes(found, 1)) == [(0, 5)] and worst(found, 1) == [1]
    assert Confusion((50, 50), ((0, 1, 2), (1, 0, 6))).behind() == ()


def test_noise_in_small_classes_is_no_class_left_behind():
    """The same chance everywhere: of a hundred data sets of five classes, few have a class named."""
    rng, matrix = numpy.random.default_rng(1), numpy.full((5, 5), 1.0) + 15 * numpy.eye(5)
    assert sum(bool(drawn(matrix, rng).behind()) for _ in range(100)) <= 5


def accuracy(**changes) -> Accuracy:
    plain = Accuracy(
        top1=0.95,
        correct=95,
        count=100,
        epochs=3,
        split="validation",
        model_sha256="a" * 64,
        class_counts=(95, 5),
        errors=((1, 0, 5),),
    )
    return replace(plain, **changes)


def test_an_accuracy_is_compared_by_its_metric():
    scores = {metric: accuracy(metric=metric).score for metric in METRICS}
    f1 = f1_score([0] * 95 + [1] * 5, [0] * 100, average="macro", zero_division=0)
    assert scores == {"top1": 0.95, "balanced": 0.5, "macro-f1": pytest.approx(f1)}
    assert accuracy(metric="balanced").score_error() == accuracy().confusion.score_balanced()[1]


def test_entries_of_earlier_versions_are_read():
    old = {"top1": 0.9, "correct": 9, "count": 10, "epochs": 1, "split": "test", "model_sha256": ""}
    found = accuracy_from_dict(old)
    assert found.score == 0.9 and found.confusion is None and found.metric == "top1"
    with pytest.raises(ValueError, match="the confused classes were not recorded"):
        found.value_of("balanced")


def test_an_entry_reads_back_as_it_was():
    whole = accuracy(metric="balanced")
    assert accuracy_from_dict(loads(dumps(asdict(whole)))) == whole


def test_the_journal_has_the_score_and_not_the_matrix():
    """A thousand classes must not make every trial of the journal a hundred kilobytes."""
    measured = Measurement(
        candidate=Candidate(family="resnet", variant="resnet18", image_px=64),
        outcome="kept",
        accuracies=(accuracy(metric="balanced"),),
    )
    found = measured.to_dict()["accuracies"][0]
    assert found["score"] == 0.5 and found["top1"] == 0.95 and "errors" not in found
