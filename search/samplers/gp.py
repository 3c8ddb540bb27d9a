"""Optuna's Gaussian process sampler: few trials, slow to ask."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import Points


def make(seed: int, space: Points, budget: Budget) -> optuna.samplers.BaseSampler:
    """Expected hypervolume improvement over Gaussian processes, as in Optuna's GPSampler."""
    return optuna.samplers.GPSampler(n_startup_trials=12, seed=seed)
