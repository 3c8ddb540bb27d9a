"""Propose by Optuna's multivariate tree-structured Parzen estimator, with several objectives and constraints."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Return a TPE sampler (Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, JAIR 2022).

    Args:
        seed: Seed of the sampler.
        space: Candidates of the run; not used.
        budget: Limits of the run; not used.
    """
    return optuna.samplers.TPESampler(multivariate=True, group=True, n_startup_trials=12, seed=seed)
