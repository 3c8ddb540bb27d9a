"""Optuna's Gaussian process sampler: few trials, slow to ask."""

from __future__ import annotations

from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.budget import Budget
from spaces.space import CandidateSet

STEPS_MAX = 200  # of a walk away from what was tried


class GPSampler(optuna.samplers.GPSampler):
    """Optuna's, which learns nothing from a trial without values and so would propose it for ever.

    Instead of what was tried already it proposes the end of a random walk from there, one parameter a step.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(n_startup_trials=12, seed=seed)
        self._steps = numpy.random.default_rng(seed)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What Optuna's proposes, or something near to it that was not tried."""
        proposed = super().sample_relative(study, trial, search_space)
        tried = {tuple(sorted(t.params.items())) for t in study.get_trials(deepcopy=False) if t.number != trial.number}
        for _ in range(STEPS_MAX):
            if not proposed or tuple(sorted(proposed.items())) not in tried:
                break
            name = str(self._steps.choice(sorted(proposed)))
            values = _values(search_space[name])
            proposed = proposed | {name: values[self._steps.integers(len(values))]}
        return proposed


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Expected hypervolume improvement over Gaussian processes, as in Optuna's GPSampler."""
    return GPSampler(seed)


def _values(distribution: BaseDistribution) -> list[Any]:
    """All that a parameter may be; every one of ours is a choice or goes in steps."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution) and distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + place * distribution.step for place in range(count)]
