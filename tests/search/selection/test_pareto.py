"""Fronts hold exactly what nothing beats."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from evaluators.measurement import Accuracy, Interval, Measurement, Outcome
from search.selection.pareto import front, objectives
from spaces.candidate import Candidate
from tests.search.analytic import Analytic

BASE = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=32)


def measured(number, top1, ms, mb):
    latency = replace(Analytic().latency(BASE, None), rank_ms=Interval(ms, ms, ms), peak_mb=mb)
    accuracy = Accuracy(top1=top1, correct=int(100 * top1), count=100, epochs=3, split="validation", model_sha256="")
    return Measurement(candidate=BASE, outcome=Outcome.KEPT, latency=latency, accuracies=(accuracy,), trial=number)


POINTS = st.lists(
    st.tuples(st.sampled_from([0.5, 0.7, 0.9]), st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([50, 60])),
    max_size=25,
)


@given(POINTS)
def test_a_front_is_what_nothing_beats(points):
    measurements = [measured(i, *point) for i, point in enumerate(points)]
    found = front(measurements)

    def beats(a, b):
        (accuracy, ms, mb), (accuracy_b, ms_b, mb_b) = objectives(a), objectives(b)
        no_worse = accuracy >= accuracy_b and ms <= ms_b and mb <= mb_b
        return no_worse and objectives(a) != objectives(b)

    for m in measurements:
        beaten = any(beats(other, m) for other in measurements)
        assert beaten == (objectives(m) not in {objectives(f) for f in found})
    assert len({objectives(f) for f in found}) == len(found), "equals stand once"
    assert [objectives(f)[1] for f in found] == sorted(objectives(f)[1] for f in found)


@given(POINTS)
def test_order_does_not_matter(points):
    measurements = [measured(i, *point) for i, point in enumerate(points)]
    assert {objectives(f) for f in front(measurements)} == {objectives(f) for f in front(measurements[::-1])}


def test_only_what_was_measured_in_full_is_on_a_front():
    over = replace(measured(0, 0.99, 0.1, 10), outcome=Outcome.OVER_BUDGET)
    assert front([over, measured(1, 0.5, 1.0, 50)])[0].trial == 1
