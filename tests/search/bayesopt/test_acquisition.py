"""Expected gain agrees with drawing from the belief and measuring."""

from __future__ import annotations

import numpy as np
import pytest

from search.bayesopt.acquisition import Prediction, ReferencePoint, front, hypervolume, predict_gain

ACCURACY, LATENCY = np.array([0.5, 0.7, 0.8, 0.6]), np.array([1.0, 2.0, 4.0, 3.0])


def test_front_leaves_out_the_dominated_and_of_equals_the_second():
    assert front(ACCURACY, LATENCY).tolist() == [0, 1, 2]
    assert front(np.array([0.5, 0.5, 0.5]), np.array([1.0, 1.0, 2.0])).tolist() == [0]
    assert front(np.zeros(0), np.zeros(0)).tolist() == []


def test_hypervolume_by_hand():
    goal = ReferencePoint(accuracy_low=0.4, latency_high_ms=5.0, budget_ms=None, budget_weight=0.0)
    assert hypervolume(ACCURACY, LATENCY, goal) == pytest.approx(1 * 0.1 + 2 * 0.3 + 1 * 0.4)
    assert hypervolume(ACCURACY[:0], LATENCY[:0], goal) == 0.0


@pytest.mark.parametrize("accuracy_high", [np.inf, 0.78])
@pytest.mark.parametrize("log_ms_sd", [0.0, 0.3])
def test_expected_gain_is_what_draws_from_the_belief_add_on_average(log_ms_sd, accuracy_high):
    goal = ReferencePoint(
        accuracy_low=0.4, latency_high_ms=5.0, budget_ms=None, budget_weight=0.0, accuracy_high=accuracy_high
    )
    belief = Prediction(np.array([0.75]), np.array([0.08]), np.log([2.5]), np.array([log_ms_sd]))
    random = np.random.default_rng(0)
    accuracy = random.normal(0.75, 0.08, 4_000).clip(max=accuracy_high)
    latency = np.exp(random.normal(np.log(2.5), log_ms_sd, 4_000))
    before = hypervolume(ACCURACY, LATENCY, goal)
    pairs = zip(accuracy, latency, strict=True)
    drawn = [hypervolume(np.r_[ACCURACY, a], np.r_[LATENCY, m], goal) - before for a, m in pairs]
    told = predict_gain(belief, ACCURACY, LATENCY, goal)[0]
    assert told == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_nothing_is_expected_behind_what_cannot_be_bettered():
    belief = Prediction(np.array([0.97]), np.array([0.05]), np.log([2.5]), np.array([0.0]))
    goal = ReferencePoint(accuracy_low=0.4, latency_high_ms=5.0, budget_ms=4.5, budget_weight=0.5, accuracy_high=1.0)
    known = np.r_[ACCURACY, 1.0]
    assert predict_gain(belief, known, np.r_[LATENCY, 2.4], goal)[0] == pytest.approx(0.0, abs=1e-12)
    assert predict_gain(belief, known, np.r_[LATENCY, 2.6], goal)[0] > 0.001


def test_weight_at_the_budget_draws_to_what_would_be_chosen():
    belief = Prediction(np.array([0.78, 0.78]), np.array([0.02, 0.02]), np.log([2.9, 3.1]), np.zeros(2))
    plain = predict_gain(
        belief,
        ACCURACY,
        LATENCY,
        ReferencePoint(accuracy_low=0.4, latency_high_ms=5.0, budget_ms=None, budget_weight=0.0),
    )
    drawn = predict_gain(
        belief,
        ACCURACY,
        LATENCY,
        ReferencePoint(accuracy_low=0.4, latency_high_ms=5.0, budget_ms=3.0, budget_weight=0.5),
    )
    assert drawn[0] > plain[0] and drawn[1] == pytest.approx(plain[1])
