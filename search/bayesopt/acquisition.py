"""What a candidate is expected to add to the front, exactly, with extra weight where the user will choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Prediction:
    """What is thought of m candidates: accuracy and log-latency, normal and independent given what is known."""

    accuracy: Array  # (m,)
    accuracy_sd: Array  # (m,)
    log_ms: Array  # (m,)
    log_ms_sd: Array  # (m,) 0 where measured

    def part(self, chosen: NDArray[np.bool_]) -> Prediction:
        """The same of some of them."""
        return Prediction(
            self.accuracy[chosen],
            self.accuracy_sd[chosen],
            self.log_ms[chosen],
            self.log_ms_sd[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """The corner the hypervolume is measured from, and the limit at which the user will choose."""

    accuracy_low: float
    latency_high_ms: float
    budget_ms: float | None
    budget_weight: float
    accuracy_high: float = np.inf  # more is not possible


def front(accuracy: Array, latency_ms: Array) -> Indices:
    """Positions of the non-dominated, fastest first; of equals the first."""
    order = np.lexsort((-accuracy, latency_ms))
    best = np.maximum.accumulate(accuracy[order])
    return order[np.r_[True, best[1:] > best[:-1]]] if len(order) else order


def hypervolume(accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> float:
    """Area between the front and the corner."""
    latency, level = _steps(accuracy, latency_ms, goal)
    return float((np.diff(np.r_[latency, goal.latency_high_ms]) * (level[1:] - goal.accuracy_low)).sum())


def predict_gain(belief: Prediction, accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> Array:
    """(m,) expected growth of the hypervolume, plus `budget_weight` x the expected rise of the best within the budget.

    With f(u) the best accuracy known at latency <= u, a candidate (a, l) adds the integral over u >= l of (a - f(u))+.
    f is a step function, so this is a sum over steps of expected improvement x expected length covered: the former as
    in Jones et al. 1998, the latter the difference of two put prices of a log-normal. Yang et al., Efficient
    computation of expected hypervolume improvement, 2019; the point of weight at the budget is a weighted
    hypervolume (Zitzler et al. 2007), scaled by the length of the latency axis so that both parts are areas.
    """
    latency, level = _steps(accuracy, latency_ms, goal)
    rise = _improvement(belief, np.minimum(level, goal.accuracy_high))  # (m, steps)
    if np.isfinite(goal.accuracy_high):  # what is believed beyond counts as just that
        rise -= _improvement(belief, np.array([goal.accuracy_high]))
    length = np.diff(_put(belief, np.r_[latency, goal.latency_high_ms]), axis=1, prepend=0.0)
    gain: Array = (rise * length).sum(axis=1)
    if goal.budget_ms is None:
        return gain
    step = int(np.searchsorted(latency, goal.budget_ms, side="right"))
    keeps = ndtr((np.log(goal.budget_ms) - belief.log_ms) / np.maximum(belief.log_ms_sd, 1e-6))
    return np.asarray(gain + goal.budget_weight * goal.latency_high_ms * rise[:, step] * keeps)


def _steps(accuracy: Array, latency_ms: Array, goal: ReferencePoint) -> tuple[Array, Array]:
    """Latencies (k,) at which the best known accuracy steps up, and the levels (k + 1,) before, between and after."""
    inside = (latency_ms < goal.latency_high_ms) & (accuracy > goal.accuracy_low)
    accuracy, latency_ms = accuracy[inside], latency_ms[inside]
    best = front(accuracy, latency_ms)
    return latency_ms[best], np.r_[goal.accuracy_low, accuracy[best]]


def _improvement(belief: Prediction, level: Array) -> Array:
    """(m, levels) E[(accuracy - level)+]."""
    u = (belief.accuracy[:, None] - level) / belief.accuracy_sd[:, None]
    return np.asarray(belief.accuracy_sd[:, None] * (u * ndtr(u) + np.exp(-0.5 * u * u) / np.sqrt(2.0 * np.pi)))


def _put(belief: Prediction, edge: Array) -> Array:
    """(m, edges) E[(edge - latency)+] of a log-normal latency."""
    sd = np.maximum(belief.log_ms_sd, 1e-6)[:, None]
    d = (np.log(edge) - belief.log_ms[:, None]) / sd
    price = edge * ndtr(d) - np.exp(belief.log_ms[:, None] + 0.5 * sd * sd) * ndtr(d - sd)
    return np.asarray(np.maximum(price, 0.0))
