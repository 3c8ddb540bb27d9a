"""What samplers have in common that propose a candidate as a whole instead of parameter by parameter."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial


class WholeSampler(optuna.samplers.BaseSampler):
    """Leaves every parameter to `sample_independent`, where the candidate is known once the first is asked for."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: no parameter is sampled apart from the candidate."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, see above."""
        return {}
