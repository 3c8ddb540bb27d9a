"""Uniform draws."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import Points


def make(seed: int, space: Points, budget: Budget) -> optuna.samplers.BaseSampler:
    """Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012."""
    return optuna.samplers.RandomSampler(seed=seed)
