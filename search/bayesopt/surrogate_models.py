"""What the surrogates of latency, low fidelity, accuracy and training time believe of candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.acquisition import Prediction
from search.bayesopt.encoding import Encoding
from search.bayesopt.gaussian_process import GaussianProcess, Prior
from search.bayesopt.observations import Observations, ProposerSettings
from search.bayesopt.transfer import Hint, Hints

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

FEWEST = 3  # low-fidelity accuracies for a surrogate of their own
FEWEST_S = 5  # durations, likewise
EASED = 0.4  # of a training's seconds, where it was done for another, until some have been seen


class SurrogateModels:
    """Fitted anew each round; their parameters last from one to the next.

    Low fidelity is one of the columns that accuracy is learned from, and so is latency, which tells of structure
    that the encoding does not. What an earlier study foretells is a column too: it may bend, or be worth nothing.
    """

    def __init__(
        self, encoding: Encoding, hints: Hints, settings: ProposerSettings, random: np.random.Generator
    ) -> None:
        self.settings, self.random = settings, random
        speed, quality = _with_hint(encoding, hints.latency), _with_hint(encoding, hints.accuracy)
        self.speed, self.quality = speed.columns, quality.columns  # (N, columns) that latency, accuracy are told from
        self.latency = GaussianProcess(speed.groups, Prior(speed.weights(0.3, 0.1), noise=0.02, noise_log_sd=1.5))
        self.seconds = GaussianProcess(encoding.groups, Prior(encoding.weights(0.1, 0.1), noise=0.05))
        self.working = GaussianProcess(encoding.groups, Prior(encoding.weights(0.1, 0.03), noise=0.05))
        self.columns = encoding.columns
        last, weights = int(quality.groups.max()) + 1, np.r_[quality.weights(0.1, 0.03), 0.03]
        groups = np.r_[quality.groups, last]
        self.brief = GaussianProcess(groups, Prior(weights))
        self.plain = GaussianProcess(groups, Prior(weights))
        self.informed = GaussianProcess(np.r_[groups, last + 1], Prior(np.r_[weights, 0.3]))
        self.accuracy = self.plain
        self.suspects = np.zeros(0, dtype=np.int64)

    def fit(self, known: Observations, accuracy_low: float | None) -> None:
        """To all that is known; accuracies above `accuracy_low` are taken as they are, others bent."""
        self._fit_latency(known)
        self._fit_working(known)
        self._fit_seconds(known)
        self.accuracy = self.informed if self._fit_brief(known) else self.plain
        trained = np.flatnonzero(known.has_accuracy())
        best = trained[np.argsort(-known.accuracy[trained], kind="stable")[: self.settings.points]]
        y = known.accuracy[best]
        floor, unit = _floor(y)
        if accuracy_low is not None and accuracy_low < floor:  # nothing that may be on the front is bent
            floor, unit = accuracy_low, floor + unit - accuracy_low
        self.accuracy.fit(self._with_brief(best, known)[0], squash(y, floor, unit), growth=1.1)

    def believe(self, which: Indices, known: Observations) -> Prediction:
        """Accuracy and latency of some; measured latencies are certain."""
        x, log_ms, log_ms_sd, brief_sd = self._with_brief(which, known)
        mean, sd = self.accuracy.predict(x)
        guessed = brief_sd > 0
        if guessed.any():  # what is not known of the low fidelity is not known of the high one
            above, below = x[guessed], x[guessed]
            above[:, -1] += brief_sd[guessed]
            below[:, -1] -= brief_sd[guessed]
            sd[guessed] = np.hypot(sd[guessed], 0.5 * (self.accuracy.mean(above) - self.accuracy.mean(below)))
        return Prediction(mean, np.hypot(sd, self.accuracy.noise()), log_ms, log_ms_sd)

    def works(self, which: Indices) -> Array:
        """Probability of no failure; certain while none was seen."""
        if not self.working.fitted_to:
            return np.ones(len(which))
        return np.clip(self.working.mean(self.columns[which]), 0.02, 1.0)

    def train_s(self, which: Indices, known: Observations) -> Array:
        """Seconds that the training of some is likely to take; the same for all while too few are known."""
        took = np.isfinite(known.train_s) & (known.train_s > 0)
        if not took[~known.eased].any():
            return np.ones(len(which))
        usual = float(np.exp(np.log(known.train_s[took & ~known.eased]).mean()))
        seconds = np.full(len(which), usual)
        if self.seconds.fitted_to:
            seconds = np.exp(self.seconds.mean(self.columns[which]))
        eased = took & known.eased
        share = float(np.exp(np.log(known.train_s[eased]).mean())) / usual if eased.any() else EASED
        return np.where(known.eased[which], min(share, 1.0) * seconds, seconds)

    def some(self, which: Indices, count: int | None = None) -> Indices:
        """All, or as many as a surrogate takes, drawn at random."""
        count = self.settings.points if count is None else count
        return which if len(which) <= count else self.random.choice(which, count, replace=False)

    def _fit_latency(self, known: Observations) -> None:
        """The latency surrogate without what it cannot believe, and `suspects`: what is too fast and was timed once."""
        timed = np.flatnonzero(known.timed())
        some = self.some(timed)
        once = known.looks <= 1
        y = np.zeros(len(once))
        y[timed] = np.log(known.latency_ms[timed])
        self.latency.fit(self.speed[some], y[some])
        off = self.latency.left_out()
        sane = ~(_too_low(off, off, self.settings) & once[some])
        if not sane.all():
            some, off = some[sane], off[sane]
            self.latency.fit(self.speed[some], y[some])
            off = self.latency.left_out()
        unseen = timed[~np.isin(timed, some) & once[timed]]
        residual = y[unseen] - self.latency.mean(self.speed[unseen])
        inside = once[some]
        suspects, by = np.r_[unseen, some[inside]], np.r_[residual, off[inside]]
        low = _too_low(by, off, self.settings)
        self.suspects = suspects[low][np.argsort(by[low], kind="stable")]

    def _fit_brief(self, known: Observations) -> bool:
        """Whether there is enough of the low fidelity to be told from."""
        tried = self.some(np.flatnonzero(known.timed() & np.isfinite(known.brief)))
        if len(tried) < FEWEST:
            return False
        self.brief_floor = _floor(known.brief[tried])
        self.brief.fit(self._with_latency(tried, known)[0], squash(known.brief[tried], *self.brief_floor))
        return True

    def _fit_working(self, known: Observations) -> None:
        """By least squares on 1 and 0 (Rasmussen & Williams, 6.5): it finds the axes that failures go with."""
        failed = self.some(np.flatnonzero(known.failed), self.settings.points // 2)
        if len(failed):
            worked = self.some(np.flatnonzero(known.timed()), self.settings.points - len(failed))
            labels = np.r_[np.zeros(len(failed)), np.ones(len(worked))]
            self.working.fit(self.columns[np.r_[failed, worked]], labels)

    def _fit_seconds(self, known: Observations) -> None:
        took = self.some(np.flatnonzero(np.isfinite(known.train_s) & (known.train_s > 0) & ~known.eased))
        if self.settings.per_second and len(took) >= FEWEST_S:
            self.seconds.fit(self.columns[took], np.log(known.train_s[took]))

    def _with_latency(self, which: Indices, known: Observations) -> tuple[Array, Array, Array]:
        """Columns with log-latency as one more, log-latency and its spread: measured where it is."""
        log_ms, sd = np.zeros(len(which)), np.zeros(len(which))
        timed = known.timed()[which]
        log_ms[timed] = np.log(known.latency_ms[which][timed])
        if not timed.all():
            log_ms[~timed], spread = self.latency.predict(self.speed[which[~timed]])
            sd[~timed] = np.hypot(spread, self.latency.noise())
        scaled = (log_ms - self.latency.center) / self.latency.scale
        return np.c_[self.quality[which], scaled], log_ms, sd

    def _with_brief(self, which: Indices, known: Observations) -> tuple[Array, Array, Array, Array]:
        """As above with low-fidelity accuracy as a further column, measured where it is; last: that column's spread."""
        x, log_ms, log_ms_sd = self._with_latency(which, known)
        if self.accuracy is self.plain:
            return x, log_ms, log_ms_sd, np.zeros(len(x))
        value, sd = np.zeros(len(x)), np.zeros(len(x))
        tried = np.isfinite(known.brief[which])
        value[tried] = squash(known.brief[which][tried], *self.brief_floor)
        if not tried.all():
            value[~tried], spread = self.brief.predict(x[~tried])
            sd[~tried] = np.hypot(spread, self.brief.noise())
        scaled = (value - self.brief.center) / self.brief.scale
        return np.c_[x, scaled], log_ms, log_ms_sd, sd / self.brief.scale


def squash(y: Array, floor: float, unit: float) -> Array:
    """Accuracies with falls below `floor` taken logarithmically, so that the worst don't set the surrogate's scale."""
    return np.where(y < floor, floor - unit * np.log1p(np.maximum(floor - y, 0.0) / unit), y)


def _floor(y: Array) -> tuple[float, float]:
    """Median, and how far the best is above it."""
    median = float(np.median(y))
    return median, max(float(y.max()) - median, 1e-9)


def _too_low(residual: Array, of_all: Array, settings: ProposerSettings) -> Mask:
    """Log-latencies below belief by several robust standard deviations and by a factor that matters."""
    spread = 1.4826 * float(np.median(np.abs(of_all - np.median(of_all))))
    return residual < -max(settings.suspect_sd * spread, float(np.log(settings.suspect_factor)))


def _with_hint(encoding: Encoding, hint: Hint | None) -> Encoding:
    """What an earlier study foretells as one more number."""
    if hint is None:
        return encoding
    groups = np.r_[encoding.groups, encoding.groups.max() + 1]
    return replace(encoding, columns=np.c_[encoding.columns, hint.values], groups=groups)
