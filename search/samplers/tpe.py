"""Optuna's tree-structured Parzen estimator, multivariate; knows several objectives and constraints."""

from __future__ import annotations

import optuna

from search.budget import Budget
from spaces.space import CandidateSet


def make(seed: int, space: CandidateSet, budget: Budget) -> optuna.samplers.BaseSampler:
    """Ozaki et al., Multiobjective Tree-Structured Parzen Estimator, JAIR 2022."""
    return optuna.samplers.TPESampler(multivariate=True, group=True, n_startup_trials=12, seed=seed)
