"""Predict latency, low-fidelity accuracy, accuracy and training time of candidates by surrogate models."""

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

FEWEST = 3  # smallest number of low-fidelity accuracies to fit a surrogate to
FEWEST_S = 5  # smallest number of training times to fit a surrogate to
EASED = 0.4  # assumed share of a training's seconds if its structure was trained already, until measured


class SurrogateModels:
    """Fit all surrogates anew in each round; their hyperparameters persist between rounds.

    Low-fidelity accuracy is one input column of the accuracy surrogate, and so is latency, which reflects structure
    that the encoding lacks. An earlier run's prediction is a column too: the surrogate may transform it or ignore it.

    Args:
        encoding: Encoded candidates.
        hints: Predictions of an earlier run.
        settings: Settings of the proposer.
        random: Generator of the draws.
    """

    def __init__(
        self, encoding: Encoding, hints: Hints, settings: ProposerSettings, random: np.random.Generator
    ) -> None:
        self.settings, self.random = settings, random
        speed, quality = _with_hint(encoding, hints.latency), _with_hint(encoding, hints.accuracy)
        self.speed, self.quality = speed.columns, quality.columns  # (N, columns) inputs of latency and accuracy
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
        """Fit all surrogates to the observations.

        Args:
            known: Observations so far.
            accuracy_low: Accuracy above which no value is compressed; None, or a value above the median, stands for the
                median.
        """
        self._fit_latency(known)
        self._fit_working(known)
        self._fit_seconds(known)
        self.accuracy = self.informed if self._fit_brief(known) else self.plain
        trained = np.flatnonzero(known.has_accuracy())
        best = trained[np.argsort(-known.accuracy[trained], kind="stable")[: self.settings.points]]
        y = known.accuracy[best]
        floor, unit = _floor(y)
        if accuracy_low is not None and accuracy_low < floor:  # a value that may be on the front is not compressed
            floor, unit = accuracy_low, floor + unit - accuracy_low
        self.accuracy.fit(self._with_brief(best, known)[0], squash(y, floor, unit), growth=1.1)

    def believe(self, which: Indices, known: Observations) -> Prediction:
        """Predict accuracy and latency; a measured latency has no uncertainty.

        Args:
            which: (m,) indices of candidates.
            known: Observations so far.
        """
        x, log_ms, log_ms_sd, brief_sd = self._with_brief(which, known)
        mean, sd = self.accuracy.predict(x)
        guessed = brief_sd > 0
        if guessed.any():  # the low fidelity's uncertainty propagates to full fidelity
            above, below = x[guessed], x[guessed]
            above[:, -1] += brief_sd[guessed]
            below[:, -1] -= brief_sd[guessed]
            sd[guessed] = np.hypot(sd[guessed], 0.5 * (self.accuracy.mean(above) - self.accuracy.mean(below)))
        return Prediction(mean, np.hypot(sd, self.accuracy.noise()), log_ms, log_ms_sd)

    def works(self, which: Indices) -> Array:
        """Predict the probability that candidates (m,) don't fail; it is 1 while no failure was observed."""
        if not self.working.fitted_to:
            return np.ones(len(which))
        return np.clip(self.working.mean(self.columns[which]), 0.02, 1.0)

    def train_s(self, which: Indices, known: Observations) -> Array:
        """Predict the seconds of trainings; while too few are known, all are equal.

        Args:
            which: (m,) indices of candidates.
            known: Observations so far.
        """
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
        """Return all candidates, or a random sample if there are too many.

        Args:
            which: (m,) indices of candidates.
            count: Largest number to return; None for the number that a surrogate takes.
        """
        count = self.settings.points if count is None else count
        return which if len(which) <= count else self.random.choice(which, count, replace=False)

    def _fit_latency(self, known: Observations) -> None:
        """Fit the latency GP with outliers removed; set `suspects` to outliers measured only once."""
        timed = np.flatnonzero(known.has_latency())
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
        """Fit the low-fidelity GP and return True, or return False if there are too few accuracies."""
        tried = self.some(np.flatnonzero(known.has_latency() & np.isfinite(known.brief)))
        if len(tried) < FEWEST:
            return False
        self.brief_floor = _floor(known.brief[tried])
        self.brief.fit(self._with_latency(tried, known)[0], squash(known.brief[tried], *self.brief_floor))
        return True

    def _fit_working(self, known: Observations) -> None:
        """Fit the failure GP by least squares on 1 and 0 (Rasmussen & Williams, 6.5).

        This finds the axes that cause failures.
        """
        failed = self.some(np.flatnonzero(known.failed), self.settings.points // 2)
        if len(failed):
            worked = self.some(np.flatnonzero(known.has_latency()), self.settings.points - len(failed))
            labels = np.r_[np.zeros(len(failed)), np.ones(len(worked))]
            self.working.fit(self.columns[np.r_[failed, worked]], labels)

    def _fit_seconds(self, known: Observations) -> None:
        took = self.some(np.flatnonzero(np.isfinite(known.train_s) & (known.train_s > 0) & ~known.eased))
        if self.settings.per_second and len(took) >= FEWEST_S:
            self.seconds.fit(self.columns[took], np.log(known.train_s[took]))

    def _with_latency(self, which: Indices, known: Observations) -> tuple[Array, Array, Array]:
        """Return columns extended by log-latency, log-latency and its spread; measured values are preferred."""
        log_ms, sd = np.zeros(len(which)), np.zeros(len(which))
        timed = known.has_latency()[which]
        log_ms[timed] = np.log(known.latency_ms[which][timed])
        if not timed.all():
            log_ms[~timed], spread = self.latency.predict(self.speed[which[~timed]])
            sd[~timed] = np.hypot(spread, self.latency.noise())
        scaled = (log_ms - self.latency.center) / self.latency.scale
        return np.c_[self.quality[which], scaled], log_ms, sd

    def _with_brief(self, which: Indices, known: Observations) -> tuple[Array, Array, Array, Array]:
        """Return `_with_latency` with low-fidelity accuracy as a further column, and the spread of that column.

        Measured values are preferred to predicted ones.
        """
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
    """Compress accuracies below `floor` logarithmically, so that the worst ones don't set the surrogate's scale.

    Args:
        y: (n,) accuracies.
        floor: Accuracy below which values are compressed.
        unit: Distance below `floor` up to which the compression is nearly linear.
    """
    return np.where(y < floor, floor - unit * np.log1p(np.maximum(floor - y, 0.0) / unit), y)


def _floor(y: Array) -> tuple[float, float]:
    """Return the median, and the distance of the best value above it."""
    median = float(np.median(y))
    return median, max(float(y.max()) - median, 1e-9)


def _too_low(residual: Array, of_all: Array, settings: ProposerSettings) -> Mask:
    """Return a mask of log-latencies below prediction by several robust standard deviations and a relevant factor."""
    spread = 1.4826 * float(np.median(np.abs(of_all - np.median(of_all))))
    return residual < -max(settings.suspect_sd * spread, float(np.log(settings.suspect_factor)))


def _with_hint(encoding: Encoding, hint: Hint | None) -> Encoding:
    """Return the encoding extended by an earlier run's prediction as one more numeric column."""
    if hint is None:
        return encoding
    groups = np.r_[encoding.groups, encoding.groups.max() + 1]
    return replace(encoding, columns=np.c_[encoding.columns, hint.values], groups=groups)
