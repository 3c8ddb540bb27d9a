"""Provide the common base of samplers that propose a whole candidate instead of single parameters."""

from __future__ import annotations

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


class WholeSampler(optuna.samplers.BaseSampler):
    """Leave every parameter to `sample_independent`, which fixes the candidate at the first parameter."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: no parameter is sampled apart from the candidate."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        """Return nothing, since the relative search space is empty."""
        return {}
