"""Optuna's NSGA-II, the usual evolutionary baseline."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002."""
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
