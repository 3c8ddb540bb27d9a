"""Propose every candidate once, in an order drawn by the seed: a baseline for small spaces and for tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from search.budget import Budget
from search.sampling.whole_candidate_sampler import WholeSampler
from spaces.space import CandidateSet, Value


class GridSampler(WholeSampler):
    """Iterate over the candidates of a space.

    Optuna's own grid sampler iterates over the product of all axes, but a table lacks some of its rows, and a family
    some of the axes.

    Args:
        seed: Seed of the order.
        space: Candidates of the run.
    """

    def __init__(self, seed: int, space: CandidateSet) -> None:
        points = list(space.params())
        self._points = [points[place] for place in numpy.random.default_rng(seed).permutation(len(points))]
        self._next, self._read = 0, 0
        self._tried: set[frozenset[tuple[str, Value]]] = set()
        self._drawn: dict[int, Mapping[str, Value]] = {}  # number of an open trial -> parameters of its candidate

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Value:
        """Return one parameter of the next candidate that has no trial."""
        if trial.number not in self._drawn:
            self._drawn = {trial.number: self._next_untried(study, trial)}
        return self._drawn[trial.number][param_name]

    def _next_untried(self, study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Value]:
        trials = study.get_trials(deepcopy=False)
        self._tried |= {frozenset(t.params.items()) for t in trials[self._read :] if t.number != trial.number}
        self._read = trial.number
        while self._next < len(self._points) and frozenset(self._points[self._next].items()) in self._tried:
            self._next += 1
        # At the end the first point is repeated: the search detects that.
        point: Mapping[str, Value] = self._points[self._next % len(self._points)]
        return point


def make(seed: int, space: CandidateSet, budget: Budget) -> GridSampler:
    """Return a shuffled full grid.

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run.
        budget: Limits of the run; not used.
    """
    return GridSampler(seed, space)
