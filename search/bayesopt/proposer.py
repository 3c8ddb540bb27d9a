"""Which candidates to time, to train briefly and to train: latency is cheap, accuracy dear, the budget known.

One round: time the most promising (`to_time`), look again at what is too fast to be true (`to_confirm`), train the
best of the timed for a few epochs (`to_try`, where there is a low fidelity), train the best of those (`to_train`).
The surrogates propose and never judge: front and choice are made of measurements.
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

FEWEST = 2  # timed and trained candidates that the surrogates need to begin with


class Proposer:
    """Holds the surrogates' parameters between rounds; everything else comes in with `Known`."""

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
        self.blind = np.zeros(len(encoding.codes), dtype=bool)  # timed without being thought worth it
        self.goal: ReferencePoint | None = None  # set by the first `to_time`

    @property
    def settings(self) -> ProposerSettings:
        """They may change between rounds, as what the stages cost becomes known."""
        return self.surrogates.settings

    @settings.setter
    def settings(self, settings: ProposerSettings) -> None:
        self.surrogates.settings = settings

    # --- the start: spread over the space

    def starting(self, known: Observations) -> bool:
        """True until the surrogates have something to go by."""
        open_ = ~(known.closed | known.failed) & np.isnan(known.accuracy)
        return self._count_started(known) < min(
            self.settings.start_trainings, self._count_started(known) + int(open_.sum())
        )

    def _count_started(self, known: Observations) -> int:
        """Trainings within the budget."""
        return int((known.ended() & ~known.beyond).sum())

    def start_time(self, known: Observations, first: Mask | None = None) -> Indices:
        """Candidates far apart, in part those that an earlier study points to; of these `first` while there are any."""
        return initial_design.to_time(
            self.encoding.columns, known, settings=self.settings, hints=self.hints, random=self.random, first=first
        )

    def start_try(self, known: Observations) -> Indices:
        """Timed ones for a first look at low fidelity."""
        free = np.flatnonzero(known.waiting() & np.isnan(known.brief))
        wanted = self.settings.start_tries if self.settings.tries else 0
        return self.random.choice(free, min(wanted, len(free)), replace=False)

    def start_train(self, known: Observations, first: Mask | None = None, hurried: bool = False) -> Indices:
        """Return one of those that come `first`, then one from each stretch of latencies.

        The slowest of the first, which is likely the most accurate; the fastest if time is short.
        """
        wanted = self.settings.start_trainings - self._count_started(known)
        return initial_design.to_train(
            known, wanted, hints=self.hints, random=self.random, first=first, hurried=hurried
        )

    # --- a round

    def to_time(self, known: Observations, count: int | None = None) -> Indices:
        """The most promising of those not timed, best first. Fits the surrogates to all that is known.

        `count` of them; or what the settings allow, looks anew included.
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
        return np.r_[best, any_of]

    def to_confirm(self, known: Observations, count: int = 2) -> Indices:
        """The choice as it stands, and what is faster than can be believed, worst first, if timed only once."""
        choice, suspects = self._choice(known), self.surrogates.suspects
        return np.r_[choice, suspects[~np.isin(suspects, choice)]][:count]

    def to_try(self, known: Observations) -> Indices:
        """Timed ones to be trained for a few epochs, best first.

        What is over the budget is among them, for what it tells of others: one as accurate may lie within.
        """
        waiting = np.r_[self._shortlist(known), self._just_beyond(known)]
        waiting = waiting[np.isnan(known.brief[waiting])]
        if self.goal is None or not len(waiting):
            return waiting[: self.settings.tries]
        belief = self.surrogates.believe(waiting, known)
        spread = np.where(known.beyond[waiting], self.settings.beyond_log_sd, belief.log_ms_sd)
        worth = self._worth(waiting, replace(belief, log_ms_sd=spread), known)
        blind = waiting[self.blind[waiting]]
        any_of = self._any(blind, np.log(known.latency_ms[blind]), self.settings.any_share * self.settings.tries)
        best = waiting[np.argsort(-worth, kind="stable")]
        return np.r_[best[~np.isin(best, any_of)][: self.settings.tries - len(any_of)], any_of]

    def to_train(self, known: Observations, count: int = 1, pending: Indices | None = None) -> Indices:
        """Timed ones to be trained, best first, as if each chosen before, and all `pending`, came out as believed.

        Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010.
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
        trained, took_s = known.trained(), self._train_s(waiting, known)
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
        """Over the budget, and not so far that relatives within are out of sight; none where seconds are counted."""
        if self.budget_ms is None or self.settings.per_second:
            return np.zeros(0, dtype=np.int64)
        limit_ms = self.budget_ms * np.exp(2 * self.settings.beyond_log_sd)
        return np.flatnonzero(known.beyond & np.isnan(known.accuracy) & (known.latency_ms <= limit_ms))

    def _brief_leader(self, tried: Indices, known: Observations, pending: Indices) -> Indices:
        """Who adds most to the front by low fidelity alone; empty if nobody does.

        A surrogate that is wrong of a whole region never asks for it; what shows there at low fidelity does.
        """
        if self.goal is None or not len(tried):
            return tried[:0]
        there = np.flatnonzero(np.isfinite(known.brief) & known.timed())
        goal = replace(self.goal, accuracy_low=float(np.median(known.brief[there])))
        done = there[known.closed[there] | np.isfinite(known.accuracy[there]) | np.isin(there, pending)]
        sure = np.full(len(tried), 1e-9)
        belief = Prediction(known.brief[tried], sure, np.log(known.latency_ms[tried]), sure)
        gain = predict_gain(belief, known.brief[done], known.latency_ms[done], goal)
        return tried[[np.argmax(gain)]] if gain.max() > 0 else tried[:0]

    def _any(self, which: Indices, log_ms: Array, count: float) -> Indices:
        """Some drawn blindly from those within reach: what the surrogates are wrong about they never ask for."""
        assert self.goal is not None
        which = which[log_ms < np.log(self.goal.latency_high_ms)]
        whole = int(count) + int(self.random.random() < count % 1)
        return self.random.choice(which, min(whole, len(which)), replace=False)

    # --- what a candidate is worth

    def _worth(self, which: Indices, belief: Prediction, known: Observations) -> Array:
        """Expected gain x probability that the candidate can be built and timed; per second, where time is limited."""
        trained = known.has_accuracy()
        assert self.goal is not None
        gain = predict_gain(belief, known.accuracy[trained], known.latency_ms[trained], self.goal)
        unknown = ~known.timed()[which]
        gain[unknown] *= self.surrogates.works(which[unknown])
        return gain / self._train_s(which, known)

    def _train_s(self, which: Indices, known: Observations) -> Array:
        """Snoek et al., Practical Bayesian optimization, 2012: expected improvement per second."""
        return self.surrogates.train_s(which, known) if self.settings.per_second else np.ones(len(which))

    def _goal(self, known: Observations, belief: Prediction, strangers: Mask) -> ReferencePoint:
        """Measured from what any candidate reaches (the median believed) and just beyond the slowest that was timed.

        The more of the space a budget cuts off, the more the choice at its edge counts beside the front.
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
        """The most accurate within the budget if its latency was asked for once only."""
        if self.budget_ms is None:
            return np.zeros(0, dtype=np.int64)
        keep = np.flatnonzero(known.trained() & (known.latency_ms <= self.budget_ms))
        best = keep[np.argsort(-known.accuracy[keep], kind="stable")[:1]]
        return best[known.looks[best] == 1]

    # --- who is looked at

    def _pool(self, known: Observations) -> tuple[Indices, Mask]:
        """Neighbours of the front (one axis changed), the best of the timed, and strangers; and which are strangers."""
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
        """Timed and untrained ones that were worth something when last looked at, or are new."""
        waiting = np.flatnonzero(known.waiting())
        return waiting[np.argsort(-self.last_worth[waiting], kind="stable")[: self.settings.timed_pool]]
