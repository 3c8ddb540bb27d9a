"""Propose by Optuna's NSGA-II, the usual evolutionary baseline."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Return an NSGA-II sampler (Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002).

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run; not used.
        budget: Limits of the run; not used.
    """
    return optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
