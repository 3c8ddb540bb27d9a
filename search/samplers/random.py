"""Uniform draws."""

from __future__ import annotations

import optuna

from spaces.space import Space


def make(seed: int, space: Space) -> optuna.samplers.BaseSampler:
    """Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012."""
    return optuna.samplers.RandomSampler(seed=seed)
