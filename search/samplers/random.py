"""Uniform draws."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012."""
    return optuna.samplers.RandomSampler(seed=seed)
