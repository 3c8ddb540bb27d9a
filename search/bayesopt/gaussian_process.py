"""Fit a Gaussian process to one-hot and numeric columns: mean, standard deviation and leave-one-out residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

JITTER = 1e-6
LOG_BOUND = 9.0  # parameters stay within e^-9 .. e^9: beyond, a column is ignored, or all points are uncorrelated


@dataclass(frozen=True)
class Prior:
    """Hold log-normal priors of the kernel weights, and of signal and noise variance of standardised values.

    Attributes:
        weights: (groups,) prior median of each group's weight.
        noise: Prior median of the noise variance; with its spread, it keeps a few points from appearing noiseless.
        weights_log_sd: Standard deviation of the weights' logarithm.
        noise_log_sd: Standard deviation of the noise variance's logarithm.
    """

    weights: Array
    noise: float = 0.1
    weights_log_sd: float = 1.5
    noise_log_sd: float = 0.5

    def mean(self) -> Array:
        """Return (groups + 2,) the prior mean of log (weights, signal, noise)."""
        means: Array = np.log(np.r_[self.weights, 1.0, self.noise])
        return means

    def log_sd(self) -> Array:
        """Return (groups + 2,) the prior standard deviation of log (weights, signal, noise)."""
        deviations: Array = np.r_[np.full(len(self.weights), self.weights_log_sd), 1.0, self.noise_log_sd]
        return deviations


class GaussianProcess:
    """Model values by a Matern-3/2 kernel over sum_g weight_g * |x_g - y_g|^2.

    The weights are maximum a posteriori estimates (Rasmussen & Williams 2006). A group is one number, or the one-hot
    columns of one categorical axis, which share a weight.

    Args:
        groups: (columns,) group of each column.
        prior: Priors of the hyperparameters.
    """

    def __init__(self, groups: Indices, prior: Prior) -> None:
        self.groups = groups  # (columns,) group of each column
        self.prior = prior
        self.log_params = prior.mean()
        self.fitted_to = 0  # number of points at the last optimisation of the hyperparameters

    def fit(self, x: Array, y: Array, growth: float = 1.2, steps: int = 60) -> None:
        """Fit the process to observations.

        The hyperparameters are optimised again only once n has grown by a factor of `growth`, which keeps their share
        of the time constant as points come in.

        Args:
            x: (n, columns) inputs.
            y: (n,) observations.
            growth: Factor of n between optimisations.
            steps: Largest number of optimiser iterations.
        """
        self.center, self.scale = float(y.mean()), float(y.std()) + 1e-9
        self.x, self.y, z = x, y, (y - self.center) / self.scale
        if len(x) > growth * self.fitted_to:
            self.log_params = self._search(x, z, steps)
            self.fitted_to = len(x)
        self.signal, self.noise_variance = np.exp(self.log_params[-2:])
        self.roots = np.sqrt(np.exp(self.log_params[self.groups]))
        covariance = self.covariance(x, x) + (self.noise_variance + JITTER) * np.eye(len(x))
        self.lower = cholesky(covariance, lower=True)
        self.alpha = cho_solve((self.lower, True), z)

    def covariance(self, a: Array, b: Array) -> Array:
        """Return (n, m) the covariance of two sets of inputs.

        Args:
            a: (n, columns) inputs.
            b: (m, columns) inputs.
        """
        a, b = a * self.roots, b * self.roots
        squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
        root = np.sqrt(np.maximum(3.0 * squares, 0.0))
        return np.asarray(self.signal * (1.0 + root) * np.exp(-root))

    def mean(self, x: Array) -> Array:
        """Return (m,) the posterior mean at inputs (m, columns)."""
        mean: Array = self.center + self.scale * (self.covariance(x, self.x) @ self.alpha)
        return mean

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return (m,) mean and (m,) standard deviation of the noiseless value at inputs (m, columns)."""
        cross = self.covariance(x, self.x)
        half = solve_triangular(self.lower, cross.T, lower=True, check_finite=False)
        variance = np.maximum(self.signal - (half**2).sum(axis=0), 1e-9)
        return self.center + self.scale * (cross @ self.alpha), self.scale * np.sqrt(variance)

    def noise(self) -> float:
        """Return the standard deviation of an observation around the noiseless value."""
        return float(self.scale * np.sqrt(self.noise_variance))

    def left_out(self) -> Array:
        """Return (n,) leave-one-out residuals: observation minus prediction (Rasmussen & Williams, eq. 5.12)."""
        inverse = cho_solve((self.lower, True), np.eye(len(self.y)))
        residuals: Array = self.scale * self.alpha / np.diag(inverse)
        return residuals

    def _search(self, x: Array, z: Array, steps: int) -> Array:
        n, mean, log_sd = len(x), self.prior.mean(), self.prior.log_sd()
        apart = np.zeros((len(mean) - 2, n, n))
        for column, group in enumerate(self.groups):
            apart[group] += np.subtract.outer(x[:, column], x[:, column]) ** 2
        flat = apart.reshape(len(apart), n * n)

        def loss(p: Array) -> tuple[float, Array]:
            """Return the negative log posterior and its gradient."""
            weights, signal, noise = np.exp(p[:-2]), np.exp(p[-2]), np.exp(p[-1])
            near, slope = _matern(weights @ flat)
            k = signal * near.reshape(n, n)
            try:
                lower = cholesky(k + (noise + JITTER) * np.eye(n), lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(p)
            inverse = cho_solve((lower, True), np.eye(n), check_finite=False)
            alpha = inverse @ z
            outer = inverse - np.outer(alpha, alpha)
            pull = (p - mean) / log_sd
            value = 0.5 * z @ alpha + np.log(np.diag(lower)).sum() + 0.5 * (pull**2).sum()
            by_weight = weights * (flat @ (outer.reshape(-1) * slope)) * signal
            gradient = 0.5 * np.r_[by_weight, (outer * k).sum(), noise * np.trace(outer)]
            return float(value), gradient + pull / log_sd

        bounds = [(-LOG_BOUND, LOG_BOUND)] * len(mean)
        found = minimize(loss, self.log_params, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
        return np.asarray(found.x)


def _matern(squares: Array) -> tuple[Array, Array]:
    """Return the Matern-3/2 correlation at squared distances, and its derivative by the squared distance."""
    root = np.sqrt(3.0 * squares)
    fall = np.exp(-root)
    return (1.0 + root) * fall, -1.5 * fall
