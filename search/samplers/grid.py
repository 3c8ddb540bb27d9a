"""Every candidate once, in an order drawn by the seed: baselines of small spaces and of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from search.budget import Budget
from search.sampling.whole_candidate_sampler import WholeSampler
from spaces.space import CandidateSet, Value


class GridSampler(WholeSampler):
    """Goes through the candidates that a space has.

    Optuna's own goes through the product of all axes: a table has not a row for each, and a family not every axis.
    """

    def __init__(self, seed: int, space: CandidateSet) -> None:
        points = list(space.params())
        self._points = [points[place] for place in numpy.random.default_rng(seed).permutation(len(points))]
        self._next, self._read = 0, 0
        self._tried: set[frozenset[tuple[str, Value]]] = set()
        self._drawn: dict[int, Mapping[str, Value]] = {}  # number of an open trial -> its candidate

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One parameter of the next candidate that no trial stands for."""
        if trial.number not in self._drawn:
            self._drawn = {trial.number: self._next_untried(study, trial)}
        return self._drawn[trial.number][param_name]

    def _next_untried(self, study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Value]:
        trials = study.get_trials(deepcopy=False)
        self._tried |= {frozenset(t.params.items()) for t in trials[self._read :] if t.number != trial.number}
        self._read = trial.number
        while self._next < len(self._points) and frozenset(self._points[self._next].items()) in self._tried:
            self._next += 1
        return self._points[self._next % len(self._points)]  # the first again: the search sees that there is no more


def make(seed: int, space: CandidateSet, budget: Budget) -> GridSampler:
    """A shuffled full grid."""
    return GridSampler(seed, space)
