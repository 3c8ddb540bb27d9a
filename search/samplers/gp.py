"""Propose by Optuna's Gaussian process sampler: it needs few trials, but each proposal is slow."""

from __future__ import annotations

import numpy
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.budget import Budget
from spaces.space import CandidateSet

STEPS_MAX = 200  # maximum length of a walk away from a tried candidate


class GPSampler(optuna.samplers.GPSampler):
    """Extend Optuna's sampler, which learns nothing from a trial without values and would propose it forever.

    Instead of a candidate that was already tried, it proposes the end of a random walk from there, one parameter per
    step.

    Args:
        seed: Seed of the sampler.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(n_startup_trials=12, seed=seed)
        self._steps = numpy.random.default_rng(seed)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """Return the proposal of Optuna's sampler, or a similar candidate that was not tried."""
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
    """Return a sampler by expected hypervolume improvement over Gaussian processes, as in Optuna's GPSampler.

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run; not used.
        budget: Limits of the run; not used.
    """
    return GPSampler(seed)


def _values(distribution: BaseDistribution) -> list[object]:
    """Return all values of a parameter; each of ours is categorical or has a step."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution) and distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + place * distribution.step for place in range(count)]
