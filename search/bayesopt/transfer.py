"""Transfer an earlier run to all candidates: columns for the surrogates, and candidates to begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.acquisition import front
from search.bayesopt.encoding import Encoding, standard
from search.bayesopt.gaussian_process import GaussianProcess, Prior
from search.bayesopt.observations import PriorRun

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

FEWEST = 5  # smallest number of measurements of a kind for a prediction of it


@dataclass(frozen=True)
class Hint:
    """Hold the earlier run's surrogate prediction for every candidate.

    Attributes:
        values: (N,) standardised prediction x skill: without skill it is constant and carries no information.
        skill: Share of the variance of its own measurements that it predicts, each from the others, 0..1.
    """

    values: Array
    skill: float


@dataclass(frozen=True)
class Hints:
    """Hold the predictions of an earlier run; None if it has too few measurements.

    Attributes:
        latency: Prediction of log-latency.
        accuracy: Prediction of accuracy.
    """

    latency: Hint | None
    accuracy: Hint | None

    @property
    def skill(self) -> float:
        """Return how far to follow the earlier run at the start: the lower of both skills."""
        return min(self.latency.skill, self.accuracy.skill) if self.latency and self.accuracy else 0.0

    def leaders(self, among: Indices, count: int) -> Indices:
        """Return candidates by layers of the predicted front: the front, then the front without it, and so on.

        Args:
            among: Indices of candidates to choose from.
            count: Largest number to return.
        """
        assert self.latency is not None and self.accuracy is not None
        left, taken = among, among[:0]
        while len(left) and len(taken) < count:
            best = front(self.accuracy.values[left], self.latency.values[left])
            taken, left = np.r_[taken, left[best]], np.delete(left, best)
        return taken[:count]


def hints(earlier: PriorRun | None, encoding: Encoding, points: int, random: np.random.Generator) -> Hints:
    """Fit a GP to the earlier run and return its smoothed predictions, free of the luck in single measurements.

    Args:
        earlier: Earlier run; None without one.
        encoding: Encoded candidates.
        points: Largest number of points to fit.
        random: Generator of the draws.
    """
    if earlier is None:
        return Hints(None, None)
    latency_ms = np.where(earlier.latency_ms > 0, earlier.latency_ms, np.nan)
    return Hints(
        _hint(np.log(latency_ms), encoding, Prior(encoding.weights(0.3, 0.1), 0.02, noise_log_sd=1.5), points, random),
        _hint(earlier.accuracy, encoding, Prior(encoding.weights(0.1, 0.03)), points, random),
    )


def _hint(y: Array, encoding: Encoding, prior: Prior, points: int, random: np.random.Generator) -> Hint | None:
    known = np.flatnonzero(np.isfinite(y))
    if len(known) < FEWEST or np.ptp(y[known]) == 0:
        return None
    some = known if len(known) <= points else random.choice(known, points, replace=False)
    surrogate = GaussianProcess(encoding.groups, prior)
    surrogate.fit(encoding.columns[some], y[some])
    values = np.concatenate([surrogate.mean(x) for x in np.array_split(encoding.columns, 1 + len(y) // 4000)])
    unexplained = float((surrogate.left_out() ** 2).mean() / y[some].var())
    skill = max(1.0 - unexplained, 0.0)
    return Hint(skill * standard(values), skill)
