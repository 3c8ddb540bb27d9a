"""Propose uniform random draws."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Return a random sampler (Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012).

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run; not used.
        budget: Limits of the run; not used.
    """
    return optuna.samplers.RandomSampler(seed=seed)
