"""Ours: latencies first, trainings where they are expected to add most to the front within reach of the budget.

An Optuna sampler that a search also asks which candidates to time before the next trial (`to_time`), and tells what
came of everything (`timed`, `ended`). What it proposes rests on `search/proposing/`; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from evaluators.measurement import Failure, Latency, Measurement
from search.budget import Budget
from search.proposing.proposer import Known, Proposer, Settings, encode, settings_for
from spaces.candidate import Candidate
from spaces.space import Points


class BudgetSampler(optuna.samplers.BaseSampler):
    """Proposes among all candidates of a space; one that was evaluated is never proposed again."""

    def __init__(self, seed: int, space: Points, budget: Budget) -> None:
        points = list(space.params())
        self._points, self._candidates = points, [space.candidate(point) for point in points]
        self._places = {candidate.key(): place for place, candidate in enumerate(self._candidates)}
        self._budget, self._random = budget, numpy.random.default_rng(seed)
        encoding = encode(_codes(points), numpy.array(space.numbers(), dtype=float))
        self._known = Known.nothing(len(points))
        self._proposer = Proposer(encoding, budget.latency_ms, seed, Settings(tries=0, within=True))
        self._drawn: dict[int, int] = {}  # number of an open trial -> its candidate's place
        self._started = False

    # --- told by the search

    def timed(self, key: str, found: Latency | Failure) -> None:
        """The latency of the candidate with that key, or why it has none."""
        place = self._places.get(key)
        if place is None:  # a network that something was cut from, and no candidate itself
            return
        self._known.looks[place] += 1
        if isinstance(found, Failure):
            self._known.failed[place] = True
        else:
            self._known.latency_ms[place] = found.rank_ms.value
            self._known.closed[place] |= not self._budget.keeps(found)  # teaches of latency, and is never trained

    def ended(self, measurement: Measurement) -> None:
        """A trial is over: its candidate is not proposed again."""
        place = self._places[measurement.candidate.key()]
        self._known.closed[place] = True
        if measurement.latency is not None and not self._known.looks[place]:
            self.timed(measurement.candidate.key(), measurement.latency)
        if measurement.accuracy is not None:
            self._known.accuracy[place] = measurement.accuracy.top1
        elif measurement.latency is None:
            self._known.failed[place] = True

    # --- asked by the search

    def to_time(self, latency_s: float, training_s: float) -> list[Candidate]:
        """Whose latency should be known before the next trial, most promising first: as many as pay for themselves."""
        self._proposer.settings = replace(settings_for(latency_s, None, training_s), within=True)
        if not ((self._known.looks == 0) & ~self._known.closed).any():
            return []
        if not self._started:
            self._started = True
            places = self._proposer.start_time(self._known)
        elif self._proposer.starting(self._known) or self._known.trained().sum() < 3:
            return []
        else:
            places = self._proposer.to_time(self._known)
        return [self._candidates[place] for place in places]

    # --- asked by Optuna

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: a candidate is proposed as a whole, when its first parameter is asked for."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing, see above."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One parameter of the candidate proposed for this trial."""
        if trial.number not in self._drawn:
            self._drawn = {trial.number: self._propose()}
        return self._points[self._drawn[trial.number]][param_name]

    def _propose(self) -> int:
        known, proposer = self._known, self._proposer
        early = proposer.starting(known) or known.trained().sum() < 3 or proposer.goal is None
        places = proposer.start_train(known) if early else proposer.to_train(known)
        if len(places):
            return int(places[0])
        open_ = numpy.flatnonzero(~known.closed & ~known.failed)
        return int(self._random.choice(open_ if len(open_) else len(self._points)))


def make(seed: int, space: Points, budget: Budget) -> BudgetSampler:
    """Expected hypervolume improvement x probability of being buildable, see `search/proposing/`."""
    return BudgetSampler(seed, space, budget)


def _codes(points: Sequence[Mapping[str, Any]]) -> numpy.ndarray:
    """(N, axes) the place of each value among its axis's; one more for an axis that a point has not."""
    names = list(dict.fromkeys(name for point in points for name in point))
    columns = []
    for name in names:
        values = {value: place for place, value in enumerate(dict.fromkeys(p[name] for p in points if name in p))}
        columns.append([values[point[name]] if name in point else len(values) for point in points])
    return numpy.array(columns, dtype=numpy.int64).T
