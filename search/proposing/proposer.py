"""Which candidates to time, to train briefly and to train: latency is cheap, accuracy dear, the budget known.

One round: time the most promising (`to_time`), look again at what is too fast to be true (`to_confirm`), train the
best of the timed for a few epochs (`to_try`, where there is a low fidelity), train the best of those (`to_train`).
The surrogates propose and never judge: front and choice are made of measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from search.proposing.gain import Belief, Goal, expected_gain, front
from search.proposing.surrogate import GaussianProcess, Prior

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """What it costs and how far it looks. Counts are per full training."""

    timings: int = 12  # latencies asked for (a training with its tries costs more than one evaluation)
    tries: int = 6  # low-fidelity trainings; 0 without a low fidelity
    start_timings: int = 80
    start_tries: int = 60
    start_trainings: int = 8
    budget_weight: float = 0.1  # the budget's share, as a fraction of the latency axis
    pool: int = 1200  # strangers looked at, each round, besides the neighbours of the front
    timed_pool: int = 500  # timed and untrained ones looked at
    points: int = 300  # most that a surrogate is fitted to
    suspect_factor: float = 1.4  # too fast by this, and by `suspect_sd`, is looked at again
    suspect_sd: float = 5.0
    within: bool = False  # nothing beyond the budget counts: for searches that never train it


@dataclass(frozen=True)
class Encoding:
    """Candidates as the surrogates see them."""

    codes: Indices  # (N, axes) the value of each axis, as a number without order
    columns: Array  # (N, columns) one-hot axes, then numbers, standardised
    groups: Indices  # (columns,) columns of a group share a weight
    axes: int


@dataclass
class Known:
    """What has been measured, by candidate; nan is unknown. The caller fills it in."""

    latency_ms: Array  # (N,) of several looks the median, or whatever is believed in the end
    looks: Indices  # (N,) times the latency was asked for
    failed: Mask  # (N,) could not be built, timed or trained
    accuracy: Array  # (N,) full fidelity
    brief: Array  # (N,) low fidelity, never mixed with the other
    closed: Mask  # (N,) not to be proposed any more

    @staticmethod
    def nothing(n: int) -> Known:
        """Of n candidates nothing."""
        unknown, no = np.full(n, np.nan), np.zeros(n, dtype=bool)
        return Known(unknown, np.zeros(n, dtype=np.int64), no, unknown.copy(), unknown.copy(), no.copy())

    def timed(self) -> Mask:
        """Have a latency that can be worked with."""
        return np.isfinite(self.latency_ms) & ~self.failed

    def trained(self) -> Mask:
        """Have both latency and accuracy."""
        return self.timed() & np.isfinite(self.accuracy)

    def waiting(self) -> Mask:
        """Timed and not trained."""
        return self.timed() & np.isnan(self.accuracy) & ~self.closed


def encode(codes: Indices, features: Array) -> Encoding:
    """Axes (N, axes) one-hot; features (N, F) such as MACs; and where axes share their values, how often each occurs.

    A feature that spans more than a factor of five is taken as a logarithm; one not known (nan) as the average.
    """
    hot, groups = [], []
    for axis, column in enumerate(codes.T):
        for value in np.unique(column):
            hot.append((column == value) / np.sqrt(2.0))  # two values that differ are 1 apart
            groups.append(axis)
    numbers = [_log_if_wide(column) for column in features.T] + _occurrences(codes)
    numbers = [_standard(c) for c in numbers if np.isfinite(c).any() and np.nanstd(c) > 0]
    groups += range(codes.shape[1], codes.shape[1] + len(numbers))
    return Encoding(codes, np.stack([*hot, *numbers], axis=1), np.array(groups), codes.shape[1])


def settings_for(latency_s: float, brief_s: float | None, accuracy_s: float) -> Settings:
    """Counts such that the cheap stages together take no more than about as long as the trainings they save.

    Timing may take a tenth of the trainings' time, low fidelity 0.4 of it; each at most what the default says.
    """
    plain = Settings()
    timings = int(np.clip(0.1 * accuracy_s / max(latency_s, 1e-9), 1, plain.timings))
    tries = int(min(0.4 * accuracy_s / max(brief_s, 1e-9), plain.tries)) if brief_s else 0
    return Settings(
        timings=timings,
        tries=tries,
        start_timings=timings * plain.start_timings // plain.timings,
        start_tries=tries * plain.start_tries // plain.tries,
    )


class Proposer:
    """Holds the surrogates' parameters between rounds; everything else comes in with `Known`."""

    def __init__(
        self, encoding: Encoding, budget_ms: float | None, seed: int, settings: Settings | None = None
    ) -> None:
        self.encoding, self.budget_ms, self.settings = encoding, budget_ms, settings or Settings()
        self.random = np.random.default_rng(seed)
        groups, axes = encoding.groups, encoding.axes
        next_group = int(groups.max()) + 1
        weights = np.r_[np.full(axes, 0.3), np.full(next_group - axes, 0.1)]
        self.latency = GaussianProcess(groups, Prior(weights, noise=0.02, noise_log_sd=1.5))
        weights = np.r_[np.full(axes, 0.1), np.full(next_group - axes, 0.03), 0.03]
        groups = np.r_[groups, next_group]  # latency tells of structure that the encoding does not
        self.brief = GaussianProcess(groups, Prior(weights))
        if self.settings.tries:
            groups, weights = np.r_[groups, next_group + 1], np.r_[weights, 0.3]
        self.accuracy = GaussianProcess(groups, Prior(weights))
        self.last_gain = np.full(len(encoding.codes), np.inf)
        self.suspects = np.zeros(0, dtype=np.int64)
        self.goal: Goal | None = None  # set by the first `to_time`

    # --- the start: spread over the space

    def starting(self, known: Known) -> bool:
        """True until the surrogates have something to go by."""
        return int(known.trained().sum()) < min(self.settings.start_trainings, len(known.failed) - known.failed.sum())

    def start_time(self, known: Known) -> Indices:
        """Candidates far apart: of five drawn at random the one farthest from those taken (Mitchell 1991)."""
        free = np.flatnonzero((known.looks == 0) & ~known.failed)
        count = min(self.settings.start_timings, len(free))
        x = self.encoding.columns[free]
        nearest = np.full(len(free), np.inf)
        taken: list[int] = []
        for _ in range(count):
            drawn = self.random.choice(np.flatnonzero(nearest > -1.0), min(5, len(free) - len(taken)), replace=False)
            pick = int(drawn[np.argmax(nearest[drawn])])
            nearest = np.minimum(nearest, ((x - x[pick]) ** 2).sum(axis=1))
            nearest[pick] = -1.0
            taken.append(pick)
        return free[taken]

    def start_try(self, known: Known) -> Indices:
        """Timed ones for a first look at low fidelity."""
        free = np.flatnonzero(known.waiting() & np.isnan(known.brief))
        wanted = self.settings.start_tries if self.settings.tries else 0
        return self.random.choice(free, min(wanted, len(free)), replace=False)

    def start_train(self, known: Known) -> Indices:
        """One from each stretch of latencies: by turns the best at low fidelity (where known) and any."""
        free = np.flatnonzero(known.waiting())
        tried = free[np.isfinite(known.brief[free])]
        free = tried if len(tried) >= self.settings.start_trainings else free
        wanted = min(max(self.settings.start_trainings - int(known.trained().sum()), 0), len(free))
        if not wanted:
            return free[:0]
        stretches = np.array_split(free[np.argsort(known.latency_ms[free], kind="stable")], wanted)
        chosen = []
        for turn, stretch in enumerate(stretches):
            brief = known.brief[stretch]
            best = turn % 2 == 0 and np.isfinite(brief).any()
            chosen.append(stretch[np.nanargmax(brief)] if best else self.random.choice(stretch))
        return np.array(chosen)

    # --- a round

    def to_time(self, known: Known, count: int | None = None) -> Indices:
        """The most promising of those not timed, best first. Fits the surrogates to all that is known."""
        self._fit(known)
        pool, strangers = self._pool(known)
        belief = self._believe(pool, known)
        self.goal = self._goal(known, belief, strangers)
        gain = self._gain(pool, belief, known)
        self.last_gain[pool] = gain
        new = known.looks[pool] == 0
        wanted = (count or self.settings.timings) - min(len(self.suspects), 2)
        return pool[new][np.argsort(-gain[new], kind="stable")[:wanted]]

    def to_confirm(self, known: Known, count: int = 2) -> Indices:
        """The choice as it stands, and what is faster than can be believed, worst first, if timed only once."""
        choice = self._choice(known)
        return np.r_[choice, self.suspects[~np.isin(self.suspects, choice)]][:count]

    def to_try(self, known: Known) -> Indices:
        """Timed ones to be trained for a few epochs, best first."""
        waiting = self._shortlist(known)
        waiting = waiting[np.isnan(known.brief[waiting])]
        gain = self._gain(waiting, self._believe(waiting, known), known)
        return waiting[np.argsort(-gain, kind="stable")[: self.settings.tries]]

    def to_train(self, known: Known, count: int = 1) -> Indices:
        """Timed ones to be trained, best first; in a batch each is chosen as if the former had come out as believed.

        Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010.
        """
        waiting = self._shortlist(known)
        tried = waiting[np.isfinite(known.brief[waiting])]
        waiting = tried if self.settings.tries and len(tried) else waiting
        if not len(waiting) or self.goal is None:
            return waiting[:0]
        belief = self._believe(waiting, known)
        trained = known.trained()
        accuracy, latency = known.accuracy[trained], known.latency_ms[trained]
        chosen: list[int] = []
        for _ in range(min(count, len(waiting))):
            gain = expected_gain(belief, accuracy, latency, self.goal)
            gain[chosen] = -1.0
            pick = int(np.argmax(gain))
            chosen.append(pick)
            accuracy, latency = np.r_[accuracy, belief.accuracy[pick]], np.r_[latency, known.latency_ms[waiting[pick]]]
        return waiting[chosen]

    # --- surrogates

    def _fit(self, known: Known) -> None:
        self._fit_latency(known)
        if self.settings.tries and np.isfinite(known.brief).sum() > 2:
            tried = self._some(np.flatnonzero(known.timed() & np.isfinite(known.brief)))
            self.brief_floor = _floor(known.brief[tried])
            self.brief.fit(self._with_latency(tried, known)[0], squash(known.brief[tried], *self.brief_floor))
        trained = np.flatnonzero(known.trained())
        best = trained[np.argsort(-known.accuracy[trained], kind="stable")[: self.settings.points]]
        y = known.accuracy[best]
        floor, unit = _floor(y)
        if self.goal is not None and self.goal.accuracy_low < floor:  # nothing that may be on the front is bent
            floor, unit = self.goal.accuracy_low, floor + unit - self.goal.accuracy_low
        self.accuracy.fit(self._with_brief(best, known)[0], squash(y, floor, unit), growth=1.1)

    def _fit_latency(self, known: Known) -> None:
        """The latency surrogate without what it cannot believe, and `suspects`: what is too fast and was timed once."""
        timed = np.flatnonzero(known.timed())
        some = self._some(timed)
        once = known.looks <= 1
        y = np.log(known.latency_ms)
        self.latency.fit(self.encoding.columns[some], y[some])
        off = self.latency.left_out()
        sane = ~(_too_low(off, off, self.settings) & once[some])
        if not sane.all():
            some, off = some[sane], off[sane]
            self.latency.fit(self.encoding.columns[some], y[some])
            off = self.latency.left_out()
        unseen = timed[~np.isin(timed, some) & once[timed]]
        residual = y[unseen] - self.latency.mean(self.encoding.columns[unseen])
        inside = once[some]
        suspects, by = np.r_[unseen, some[inside]], np.r_[residual, off[inside]]
        low = _too_low(by, off, self.settings)
        self.suspects = suspects[low][np.argsort(by[low], kind="stable")]

    def _with_latency(self, which: Indices, known: Known) -> tuple[Array, Array, Array]:
        """Columns with log-latency as one more, log-latency and its spread: measured where it is."""
        log_ms, sd = np.zeros(len(which)), np.zeros(len(which))
        timed = known.timed()[which]
        log_ms[timed] = np.log(known.latency_ms[which][timed])
        if not timed.all():
            log_ms[~timed], spread = self.latency.predict(self.encoding.columns[which[~timed]])
            sd[~timed] = np.hypot(spread, self.latency.noise())
        scaled = (log_ms - self.latency.center) / self.latency.scale
        return np.c_[self.encoding.columns[which], scaled], log_ms, sd

    def _with_brief(self, which: Indices, known: Known) -> tuple[Array, Array, Array, Array]:
        """As above with low-fidelity accuracy as a further column, measured where it is; last: that column's spread."""
        x, log_ms, log_ms_sd = self._with_latency(which, known)
        if not self.settings.tries:
            return x, log_ms, log_ms_sd, np.zeros(len(x))
        value, sd = np.zeros(len(x)), np.zeros(len(x))
        tried = np.isfinite(known.brief[which])
        value[tried] = squash(known.brief[which][tried], *self.brief_floor)
        if not tried.all():
            value[~tried], spread = self.brief.predict(x[~tried])
            sd[~tried] = np.hypot(spread, self.brief.noise())
        scaled = (value - self.brief.center) / self.brief.scale
        return np.c_[x, scaled], log_ms, log_ms_sd, sd / self.brief.scale

    def _believe(self, which: Indices, known: Known) -> Belief:
        x, log_ms, log_ms_sd, brief_sd = self._with_brief(which, known)
        mean, sd = self.accuracy.predict(x)
        guessed = brief_sd > 0
        if guessed.any():  # what is not known of the low fidelity is not known of the high one
            above, below = x[guessed], x[guessed]
            above[:, -1] += brief_sd[guessed]
            below[:, -1] -= brief_sd[guessed]
            sd[guessed] = np.hypot(sd[guessed], 0.5 * (self.accuracy.mean(above) - self.accuracy.mean(below)))
        return Belief(mean, np.hypot(sd, self.accuracy.noise()), log_ms, log_ms_sd)

    # --- gain

    def _gain(self, which: Indices, belief: Belief, known: Known) -> Array:
        """Expected gain x probability that the candidate can be built and timed."""
        trained = known.trained()
        assert self.goal is not None
        gain = expected_gain(belief, known.accuracy[trained], known.latency_ms[trained], self.goal)
        unknown = ~known.timed()[which]
        gain[unknown] *= self._works(which[unknown], known)
        return gain

    def _works(self, which: Indices, known: Known) -> Array:
        """Probability of no failure: share of those that worked among the neighbours, by the latency kernel."""
        failed = self._some(np.flatnonzero(known.failed))
        if not len(failed) or not len(which):
            return np.ones(len(which))
        x = self.encoding.columns
        bad = (self.latency.covariance(x[which], x[failed]) ** 4).sum(axis=1)  # ** 4: only near ones count
        good = (self.latency.covariance(x[which], self.latency.x) ** 4).sum(axis=1)
        prior = 0.01 * self.latency.signal**4
        return np.asarray((good + prior) / (good + bad + prior))

    def _goal(self, known: Known, belief: Belief, strangers: Mask) -> Goal:
        """Measured from what any candidate reaches (the median believed) and just beyond the slowest that was timed."""
        low = belief.accuracy[strangers] if strangers.any() else belief.accuracy
        trusted = known.timed()
        high = 1.1 * float(known.latency_ms[trusted].max())
        if self.settings.within and self.budget_ms is not None:
            high = min(high, self.budget_ms)
        return Goal(float(np.median(low)), high, self.budget_ms, self.settings.budget_weight)

    def _choice(self, known: Known) -> Indices:
        """The most accurate within the budget if its latency was asked for once only."""
        if self.budget_ms is None:
            return np.zeros(0, dtype=np.int64)
        keep = np.flatnonzero(known.trained() & (known.latency_ms <= self.budget_ms))
        best = keep[np.argsort(-known.accuracy[keep], kind="stable")[:1]]
        return best[known.looks[best] == 1]

    # --- who is looked at

    def _pool(self, known: Known) -> tuple[Indices, Mask]:
        """Neighbours of the front (one axis changed), the best of the timed, and strangers; and which are strangers."""
        codes = self.encoding.codes
        new = (known.looks == 0) & ~known.failed & ~known.closed & np.isnan(known.accuracy)
        trained = np.flatnonzero(known.trained())
        near = np.zeros(len(new), dtype=bool)
        for i in trained[front(known.accuracy[trained], known.latency_ms[trained])]:
            near |= (codes != codes[i]).sum(axis=1) == 1
        near_new = self._some(np.flatnonzero(near & new), self.settings.pool)
        rest = self._some(np.flatnonzero(new & ~near), self.settings.pool)
        pool = np.r_[near_new, self._shortlist(known), rest]
        return pool, np.arange(len(pool)) >= len(pool) - len(rest)

    def _shortlist(self, known: Known) -> Indices:
        """Timed and untrained ones that were worth something when last looked at, or are new."""
        waiting = np.flatnonzero(known.waiting())
        return waiting[np.argsort(-self.last_gain[waiting], kind="stable")[: self.settings.timed_pool]]

    def _some(self, which: Indices, count: int | None = None) -> Indices:
        """All, or as many as a surrogate takes, drawn at random."""
        count = count or self.settings.points
        return which if len(which) <= count else self.random.choice(which, count, replace=False)


def squash(y: Array, floor: float, unit: float) -> Array:
    """Accuracies with falls below `floor` taken logarithmically, so that the worst don't set the surrogate's scale."""
    return np.where(y < floor, floor - unit * np.log1p(np.maximum(floor - y, 0.0) / unit), y)


def _floor(y: Array) -> tuple[float, float]:
    """Median, and how far the best is above it."""
    median = float(np.median(y))
    return median, max(float(y.max()) - median, 1e-9)


def _too_low(residual: Array, of_all: Array, settings: Settings) -> Mask:
    """Log-latencies below belief by several robust standard deviations and by a factor that matters."""
    spread = 1.4826 * float(np.median(np.abs(of_all - np.median(of_all))))
    return residual < -max(settings.suspect_sd * spread, float(np.log(settings.suspect_factor)))


def _occurrences(codes: Indices) -> list[Array]:
    """How often each value occurs among axes that take the same values (three axes and three values at least)."""
    values = [tuple(np.unique(column)) for column in codes.T]
    columns = []
    for shared, axes in groupby(sorted(range(len(values)), key=lambda a: values[a]), key=lambda a: values[a]):
        which = list(axes)
        if len(which) > 2 and len(shared) > 2:
            columns += [(codes[:, which] == v).sum(axis=1).astype(float) for v in shared]
    return columns


def _log_if_wide(column: Array) -> Array:
    known = column[np.isfinite(column)]
    wide = len(known) > 0 and known.min() > 0 and known.max() > 5 * known.min()
    return np.asarray(np.log(column) if wide else column, dtype=float)


def _standard(column: Array) -> Array:
    return np.asarray(np.nan_to_num((column - np.nanmean(column)) / np.nanstd(column)))
