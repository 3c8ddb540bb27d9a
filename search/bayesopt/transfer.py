"""What an earlier study says of every candidate: columns for this study's surrogates, and whom to begin with."""

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

FEWEST = 5  # measurements that an earlier study must have of a kind to be heard on it


@dataclass(frozen=True)
class Hint:
    """The earlier study's surrogate on every candidate."""

    values: Array  # (N,) standardised x skill: what cannot foretell its own measurements is flat, and tells nothing
    skill: float  # share of the variance of its own measurements that it foretells, each from the others; 0..1


@dataclass(frozen=True)
class Hints:
    """None where the earlier study has too little to say."""

    latency: Hint | None
    accuracy: Hint | None

    @property
    def skill(self) -> float:
        """How far to be led at the start: not further than the worse of the two can be trusted."""
        return min(self.latency.skill, self.accuracy.skill) if self.latency and self.accuracy else 0.0

    def leaders(self, among: Indices, count: int) -> Indices:
        """Of some candidates by layers of the predicted front: the front, then the front without it, and so on."""
        assert self.latency is not None and self.accuracy is not None
        left, taken = among, among[:0]
        while len(left) and len(taken) < count:
            best = front(self.accuracy.values[left], self.latency.values[left])
            taken, left = np.r_[taken, left[best]], np.delete(left, best)
        return taken[:count]


def hints(earlier: PriorRun | None, encoding: Encoding, points: int, random: np.random.Generator) -> Hints:
    """The earlier study by itself, smoothed: what was luck in its measurements does not come along."""
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
