"""Compute the exact expected hypervolume improvement, with extra weight at the latency budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """Hold the predicted accuracy and log-latency of m candidates, normal and independent given the data.

    Attributes:
        accuracy: (m,) mean accuracy, 0..1.
        accuracy_sd: (m,) standard deviation of accuracy.
        log_ms: (m,) mean of the logarithm of latency in ms.
        log_ms_sd: (m,) standard deviation of log-latency; 0 where it was measured.
    """

    accuracy: Array
    accuracy_sd: Array
    log_ms: Array
    log_ms_sd: Array

    def part(self, chosen: NDArray[np.bool_]) -> Prediction:
        """Return the prediction of a subset, chosen by a mask (m,)."""
        return Prediction(
            self.accuracy[chosen],
            self.accuracy_sd[chosen],
            self.log_ms[chosen],
            self.log_ms_sd[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """Hold the reference point of the hypervolume, and the limit at which the user will choose.

    Attributes:
        accuracy_low: Accuracy of the reference point.
        latency_high_ms: Latency of the reference point in ms.
        budget_ms: Latency limit in ms; None without one.
        budget_weight: Weight of the best accuracy within the budget, relative to the hypervolume.
        accuracy_high: Largest possible accuracy.
    """

    accuracy_low: float
    latency_high_ms: float
    budget_ms: float | None
    budget_weight: float
    accuracy_high: float = np.inf


def front(accuracy: Array, latency_ms: Array) -> Indices:
    """Return the indices of the non-dominated points, fastest first; of equals the first.

    Args:
        accuracy: (n,) accuracies.
        latency_ms: (n,) latencies in ms.
    """
    order = np.lexsort((-accuracy, latency_ms))
    best = np.maximum.accumulate(accuracy[order])
    return order[np.r_[True, best[1:] > best[:-1]]] if len(order) else order


def hypervolume(accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> float:
    """Return the area between the front and the reference point, in accuracy x ms.

    Args:
        accuracy: (n,) accuracies.
        latency_ms: (n,) latencies in ms.
        goal: Reference point.
    """
    latency, level = _steps(accuracy, latency_ms, goal)
    return float((np.diff(np.r_[latency, goal.latency_high_ms]) * (level[1:] - goal.accuracy_low)).sum())


def predict_gain(belief: Prediction, accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> Array:
    """Return (m,) the expected gain of the hypervolume, with extra weight at the budget.

    The weight adds `budget_weight` x the expected rise of the best accuracy within the budget. With f(u) the best
    accuracy known at latency <= u, a candidate (a, l) adds the integral over u >= l of (a - f(u))+. f is a step
    function, so this is a sum over steps of expected improvement x expected length covered: the former as in Jones et
    al. 1998, the latter the difference of two put prices of a log-normal. See Yang et al., Efficient computation of
    expected hypervolume improvement, 2019. The point of weight at the budget is a weighted hypervolume (Zitzler et al.
    2007), scaled by the length of the latency axis so that both parts are areas.

    Args:
        belief: Prediction of m candidates.
        accuracy: (n,) measured accuracies.
        latency_ms: (n,) measured latencies in ms.
        goal: Reference point and budget.
    """
    latency, level = _steps(accuracy, latency_ms, goal)
    rise = _improvement(belief, np.minimum(level, goal.accuracy_high))  # (m, steps)
    if np.isfinite(goal.accuracy_high):  # a prediction beyond the largest accuracy counts as that accuracy
        rise -= _improvement(belief, np.array([goal.accuracy_high]))
    length = np.diff(_put(belief, np.r_[latency, goal.latency_high_ms]), axis=1, prepend=0.0)
    gain: Array = (rise * length).sum(axis=1)
    if goal.budget_ms is None:
        return gain
    step = int(np.searchsorted(latency, goal.budget_ms, side="right"))
    keeps = ndtr((np.log(goal.budget_ms) - belief.log_ms) / np.maximum(belief.log_ms_sd, 1e-6))
    return np.asarray(gain + goal.budget_weight * goal.latency_high_ms * rise[:, step] * keeps)


def _steps(accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> tuple[Array, Array]:
    """Return latencies (k,) at which the best known accuracy steps up, and the k + 1 accuracies around them."""
    inside = (latency_ms < goal.latency_high_ms) & (accuracy > goal.accuracy_low)
    accuracy, latency_ms = accuracy[inside], latency_ms[inside]
    best = front(accuracy, latency_ms)
    return latency_ms[best], np.r_[goal.accuracy_low, accuracy[best]]


def _improvement(belief: Prediction, level: Array) -> Array:
    """Return (m, levels) E[(accuracy - level)+]."""
    u = (belief.accuracy[:, None] - level) / belief.accuracy_sd[:, None]
    return np.asarray(belief.accuracy_sd[:, None] * (u * ndtr(u) + np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)))


def _put(belief: Prediction, edge: Array) -> Array:
    """Return (m, edges) E[(edge - latency)+] of a log-normal latency."""
    sd = np.maximum(belief.log_ms_sd, 1e-6)[:, None]
    d = (np.log(edge) - belief.log_ms[:, None]) / sd
    price = edge * ndtr(d) - np.exp(belief.log_ms[:, None] + 0.5 * sd * sd) * ndtr(d - sd)
    return np.asarray(np.maximum(price, 0.0))
