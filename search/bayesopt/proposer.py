"""Propose candidates to time, to train at low fidelity and to train: latency is cheap, accuracy expensive.

One round times the most promising candidates (`to_time`), remeasures outliers (`to_confirm`), trains the best of the
timed ones for a few epochs (`to_try`, if there is a low fidelity), and trains the best of those (`to_train`). The
surrogates only propose: front and choice rest on measurements.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.bayesopt import initial_design
from search.bayesopt.acquisition import Prediction, ReferencePoint, front, predict_gain
from search.bayesopt.encoding import Encoding
from search.bayesopt.observations import Observations, PriorRun, ProposerSettings
from search.bayesopt.surrogate_models import SurrogateModels
from search.bayesopt.transfer import hints

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

FEWEST = 2  # smallest number of timed and of trained candidates to fit surrogates to


class Proposer:
    """Hold the surrogates' hyperparameters between rounds; each call passes in everything else as Observations.

    Args:
        encoding: Encoded candidates.
        budget_ms: Latency limit in ms; None without one.
        seed: Seed of all random draws.
        settings: Settings; None for the defaults.
        earlier: Earlier run for a warm start; None without one.
    """

    def __init__(
        self,
        encoding: Encoding,
        budget_ms: float | None,
        seed: int,
        settings: ProposerSettings | None = None,
        earlier: PriorRun | None = None,
    ) -> None:
        self.encoding, self.budget_ms = encoding, budget_ms
        self.random = np.random.default_rng(seed)
        settings = settings or ProposerSettings()
        self.hints = hints(earlier, encoding, settings.points, self.random)
        self.surrogates = SurrogateModels(encoding, self.hints, settings, self.random)
        self.last_worth = np.full(len(encoding.codes), np.inf)
        self.blind = np.zeros(len(encoding.codes), dtype=bool)  # timed at random instead of by expected gain
        self.goal: ReferencePoint | None = None  # set by the first `to_time`

    @property
    def settings(self) -> ProposerSettings:
        """Return the settings, which may change between rounds as the stages' costs become known."""
        return self.surrogates.settings

    @settings.setter
    def settings(self, settings: ProposerSettings) -> None:
        self.surrogates.settings = settings

    # --- the initial design: spread over the space

    def starting(self, known: Observations) -> bool:
        """Return True while the initial design is incomplete."""
        open_ = ~(known.closed | known.failed) & np.isnan(known.accuracy)
        return self._count_started(known) < min(
            self.settings.start_trainings, self._count_started(known) + int(open_.sum())
        )

    def _count_started(self, known: Observations) -> int:
        """Return the number of finished trainings within the budget."""
        return int((known.is_finished() & ~known.beyond).sum())

    def start_time(self, known: Observations, first: Mask | None = None) -> Indices:
        """Return candidates to time in the initial design: far apart, and in part the leaders of an earlier run.

        Args:
            known: Observations so far.
            first: (N,) mask of candidates to exhaust before any others; None for no preference.
        """
        return initial_design.to_time(
            self.encoding.columns, known, settings=self.settings, hints=self.hints, random=self.random, first=first
        )

    def start_try(self, known: Observations, first: Indices | None = None) -> Indices:
        """Return timed candidates to train at low fidelity in the initial design.

        Args:
            known: Observations so far.
            first: Indices of candidates that precede those drawn at random; None for no preference.
        """
        free = np.flatnonzero(known.waiting() & np.isnan(known.brief))
        wanted = self.settings.start_tries if self.settings.tries else 0
        led = np.zeros(0, dtype=np.int64) if first is None else first[np.isin(first, free)][:wanted]
        rest = np.setdiff1d(free, led)
        chosen: Indices = np.r_[led, self.random.choice(rest, min(wanted - len(led), len(rest)), replace=False)]
        return chosen

    def start_train(
        self, known: Observations, first: Mask | None = None, hurried: bool = False, work: Array | None = None
    ) -> Indices:
        """Return candidates to train in the initial design: one in `first`, then one per interval of latencies.

        The first one is the largest, which is likely the most accurate, or the fastest if time is short.

        Args:
            known: Observations so far.
            first: (N,) mask of candidates to begin with; None for no preference.
            hurried: True if a training could not finish in time.
            work: (N,) size of the candidates in `first`; None takes their latency for it.
        """
        wanted = self.settings.start_trainings - self._count_started(known)
        return initial_design.to_train(
            known, wanted, hints=self.hints, random=self.random, first=first, hurried=hurried, work=work
        )

    # --- a round

    def to_time(self, known: Observations, count: int | None = None) -> Indices:
        """Fit the surrogates and return the most promising candidates that were not timed, best first.

        Args:
            known: Observations so far.
            count: Number of candidates; None for the number in the settings, of which remeasurements are subtracted.
        """
        again = count is None
        count = self.settings.timings if count is None else count
        if min(known.has_latency().sum(), known.has_accuracy().sum()) < FEWEST:
            self.goal, self.surrogates.suspects = None, np.zeros(0, dtype=np.int64)
            return self.surrogates.some(np.flatnonzero(known.is_open()), max(count, 0))
        self.surrogates.fit(known, self.goal.accuracy_low if self.goal else None)
        pool, strangers = self._pool(known)
        if not len(pool):
            return pool
        belief = self.surrogates.believe(pool, known)
        self.goal = self._goal(known, belief, strangers)
        worth = self._worth(pool, belief, known)
        self.last_worth[pool] = worth
        new = known.looks[pool] == 0
        wanted = max(count - len(self.to_confirm(known)), 0) if again else count
        best = pool[new][np.argsort(-worth[new], kind="stable")]
        any_of = self._any(pool[new & strangers], belief.log_ms[new & strangers], self.settings.any_share * wanted)
        self.blind[any_of] = True
        best = best[~np.isin(best, any_of)][: wanted - len(any_of)]
        chosen: Indices = np.r_[best, any_of]
        return chosen

    def to_confirm(self, known: Observations, count: int = 2) -> Indices:
        """Return candidates to remeasure, if timed only once: the present choice, then the outliers, worst first.

        Args:
            known: Observations so far.
            count: Largest number of candidates.
        """
        choice, suspects = self._choice(known), self.surrogates.suspects
        chosen: Indices = np.r_[choice, suspects[~np.isin(suspects, choice)]][:count]
        return chosen

    def to_try(self, known: Observations) -> Indices:
        """Return timed candidates to train at low fidelity, best first.

        Candidates over the budget are included for what they show about others: an equally accurate one may lie within
        it.
        """
        waiting = np.r_[self._shortlist(known), self._just_beyond(known)]
        waiting = waiting[np.isnan(known.brief[waiting])]
        if self.goal is None or not len(waiting):
            first: Indices = waiting[: self.settings.tries]
            return first
        belief = self.surrogates.believe(waiting, known)
        spread = np.where(known.beyond[waiting], self.settings.beyond_log_sd, belief.log_ms_sd)
        worth = self._worth(waiting, replace(belief, log_ms_sd=spread), known)
        blind = waiting[self.blind[waiting]]
        any_of = self._any(blind, np.log(known.latency_ms[blind]), self.settings.any_share * self.settings.tries)
        best = waiting[np.argsort(-worth, kind="stable")]
        chosen: Indices = np.r_[best[~np.isin(best, any_of)][: self.settings.tries - len(any_of)], any_of]
        return chosen

    def to_train(self, known: Observations, count: int = 1, pending: Indices | None = None) -> Indices:
        """Return timed candidates to train, best first.

        Each is chosen as if the previously chosen and all pending ones had turned out as predicted (Ginsbourger et al.,
        Kriging is well-suited to parallelize optimization, 2010).

        Args:
            known: Observations so far.
            count: Largest number of candidates.
            pending: Indices of candidates in training; None for none.
        """
        open_ = np.zeros(0, dtype=np.int64) if pending is None else pending[known.waiting()[pending]]
        waiting = self._shortlist(known)
        waiting = waiting[~np.isin(waiting, open_)]
        tried = waiting[np.isfinite(known.brief[waiting])]
        waiting = tried if self.settings.tries and len(tried) else waiting
        if self.goal is None or not len(waiting):
            return waiting[:count]
        leader = self._brief_leader(tried, known, open_)
        if len(leader) and self.random.random() < self.settings.brief_share:
            return np.r_[leader, self.to_train(known, count - 1, np.r_[open_, leader])] if count > 1 else leader
        belief = self.surrogates.believe(waiting, known)
        trained, took_s = known.has_accuracy(), self._train_s(waiting, known)
        accuracy, latency = known.accuracy[trained], known.latency_ms[trained]
        if len(open_):
            accuracy = np.r_[accuracy, self.surrogates.believe(open_, known).accuracy]
            latency = np.r_[latency, known.latency_ms[open_]]
        chosen: list[int] = []
        for _ in range(min(count, len(waiting))):
            worth = predict_gain(belief, accuracy, latency, self.goal) / took_s
            worth[chosen] = -1.0
            pick = int(np.argmax(worth))
            chosen.append(pick)
            accuracy, latency = np.r_[accuracy, belief.accuracy[pick]], np.r_[latency, known.latency_ms[waiting[pick]]]
        return waiting[chosen]

    def _just_beyond(self, known: Observations) -> Indices:
        """Return candidates slightly over the budget, with similar ones within it; none if seconds are counted."""
        if self.budget_ms is None or self.settings.per_second:
            return np.zeros(0, dtype=np.int64)
        limit_ms = self.budget_ms * np.exp(2 * self.settings.beyond_log_sd)
        return np.flatnonzero(known.beyond & np.isnan(known.accuracy) & (known.latency_ms <= limit_ms))

    def _brief_leader(self, tried: Indices, known: Observations, pending: Indices) -> Indices:
        """Return the candidate with the largest low-fidelity hypervolume gain, or an empty array.

        A surrogate that is wrong about a whole region never proposes it; low-fidelity results from there correct this.
        """
        if self.goal is None or not len(tried):
            return tried[:0]
        there = np.flatnonzero(np.isfinite(known.brief) & known.has_latency())
        goal = replace(self.goal, accuracy_low=float(np.median(known.brief[there])))
        done = there[known.closed[there] | np.isfinite(known.accuracy[there]) | np.isin(there, pending)]
        sure = np.full(len(tried), 1e-9)
        belief = Prediction(known.brief[tried], sure, np.log(known.latency_ms[tried]), sure)
        gain = predict_gain(belief, known.brief[done], known.latency_ms[done], goal)
        return tried[[np.argmax(gain)]] if gain.max() > 0 else tried[:0]

    def _any(self, which: Indices, log_ms: Array, count: float) -> Indices:
        """Draw random candidates within reach, since the surrogates never propose those that they are wrong about."""
        assert self.goal is not None
        which = which[log_ms < np.log(self.goal.latency_high_ms)]
        whole = int(count) + int(self.random.random() < count % 1)
        return self.random.choice(which, min(whole, len(which)), replace=False)

    # --- the value of a candidate

    def _worth(self, which: Indices, belief: Prediction, known: Observations) -> Array:
        """Return expected gain x probability that a build works, per second if time is limited."""
        trained = known.has_accuracy()
        assert self.goal is not None
        gain = predict_gain(belief, known.accuracy[trained], known.latency_ms[trained], self.goal)
        unknown = ~known.has_latency()[which]
        gain[unknown] *= self.surrogates.works(which[unknown])
        return gain / self._train_s(which, known)

    def _train_s(self, which: Indices, known: Observations) -> Array:
        """Return the seconds to divide the gain by (Snoek et al., Practical Bayesian optimization, 2012)."""
        return self.surrogates.train_s(which, known) if self.settings.per_second else np.ones(len(which))

    def _goal(self, known: Observations, belief: Prediction, strangers: Mask) -> ReferencePoint:
        """Return the reference point: the median predicted accuracy and a latency just above the slowest timed one.

        The more of the space is over the budget, the more weight the choice at its edge has relative to the front.
        """
        any_ = strangers if strangers.any() else np.ones_like(strangers)
        high = 1.1 * float(known.latency_ms[known.has_latency()].max())
        if self.settings.within and self.budget_ms is not None:
            high = min(high, self.budget_ms)
        beyond = np.mean(belief.log_ms[any_] > np.log(self.budget_ms)) if self.budget_ms is not None else 0.0
        low = float(np.median(belief.accuracy[any_]))
        weight = max(self.settings.budget_weight * float(beyond), self.settings.least_weight)
        return ReferencePoint(
            accuracy_low=low, latency_high_ms=high, budget_ms=self.budget_ms, budget_weight=weight, accuracy_high=1.0
        )

    def _choice(self, known: Observations) -> Indices:
        """Return the most accurate candidate within the budget if it was timed only once."""
        if self.budget_ms is None:
            return np.zeros(0, dtype=np.int64)
        keep = np.flatnonzero(known.has_accuracy() & (known.latency_ms <= self.budget_ms))
        best = keep[np.argsort(-known.accuracy[keep], kind="stable")[:1]]
        timed_once: Indices = best[known.looks[best] == 1]
        return timed_once

    # --- which candidates are scored

    def _pool(self, known: Observations) -> tuple[Indices, Mask]:
        """Return indices to score, and a mask of those drawn at random.

        They are neighbours of the front (one axis changed), the best of the timed candidates, and random ones.
        """
        codes, new = self.encoding.codes, known.is_open()
        trained = np.flatnonzero(known.has_accuracy())
        near = np.zeros(len(new), dtype=bool)
        for i in trained[front(known.accuracy[trained], known.latency_ms[trained])]:
            near |= (codes != codes[i]).sum(axis=1) == 1
        near_new = self.surrogates.some(np.flatnonzero(near & new), self.settings.pool)
        rest = self.surrogates.some(np.flatnonzero(new & ~near), self.settings.pool)
        pool = np.r_[near_new, self._shortlist(known), rest]
        return pool, np.arange(len(pool)) >= len(pool) - len(rest)

    def _shortlist(self, known: Observations) -> Indices:
        """Return the timed and untrained candidates with the largest last worth; new ones come first."""
        waiting = np.flatnonzero(known.waiting())
        return waiting[np.argsort(-self.last_worth[waiting], kind="stable")[: self.settings.timed_pool]]
