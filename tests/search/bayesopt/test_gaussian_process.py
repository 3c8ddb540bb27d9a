"""The Gaussian process: what it says of left-out points is what it would have said without them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from search.bayesopt import gaussian_process
from search.bayesopt.gaussian_process import GaussianProcess, Prior


def fitted(n=40, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 3))
    y = 5.0 + np.sin(2 * x[:, 0]) + 0.05 * random.normal(size=n)
    process = GaussianProcess(np.array([0, 1, 2]), Prior(np.array([0.3, 0.3, 0.3])))
    process.fit(x, y)
    return process, x, y


def test_it_foretells_and_knows_how_well():
    process, _, _ = fitted(80)
    x = np.random.default_rng(1).normal(size=(200, 3))
    mean, sd = process.predict(x)
    error = 5.0 + np.sin(2 * x[:, 0]) - mean
    assert np.sqrt((error**2).mean()) < 0.35
    assert 0.5 < np.sqrt(((error / sd) ** 2).mean()) < 1.6
    assert process.mean(x) == pytest.approx(mean)


def test_columns_that_tell_nothing_lose_their_weight():
    process, _, _ = fitted(80)
    weights = np.exp(process.log_params[:3])
    assert weights[0] > 5 * weights[1] and weights[0] > 5 * weights[2]


def test_left_out_residuals_are_those_of_a_process_without_the_point():
    process, x, y = fitted(20)
    off = process.left_out()
    for i in (0, 7, 19):
        rest = np.arange(20) != i
        z = (y - process.center) / process.scale
        noise = (process.noise_variance + gaussian_process.JITTER) * np.eye(19)
        k = process.covariance(x[rest], x[rest]) + noise
        told = process.covariance(x[[i]], x[rest]) @ np.linalg.solve(k, z[rest])
        assert off[i] == pytest.approx(y[i] - (process.center + process.scale * told[0]))


def test_gradient_of_the_search_for_parameters(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        gaussian_process, "minimize", lambda loss, start, **_: seen.update(loss=loss, start=start) or Found
    )

    class Found:
        x = np.log([0.3, 0.3, 0.3, 1.0, 0.1])

    fitted(15)
    loss, start = seen["loss"], seen["start"] + 0.1
    assert check_grad(lambda p: loss(p)[0], lambda p: loss(p)[1], start) < 1e-3


@pytest.mark.parametrize("y", [np.full(6, 3.0), np.r_[np.full(5, 3.0), 4.0]])
def test_constant_values_and_repeated_points(y):
    process = GaussianProcess(np.array([0]), Prior(np.array([0.3])))
    process.fit(np.zeros((6, 1)), y)
    mean, sd = process.predict(np.array([[0.0], [1.0]]))
    assert np.isfinite(mean).all() and (sd > 0).all() and np.isfinite(process.left_out()).all()
