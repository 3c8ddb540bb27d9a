"""Ranges of activations: extremes are found, outliers cut as much as the method says."""

import numpy as np
import pytest

from evaluators.quantization.calibration import BINS, Histogram, extremes, histograms, ranges
from evaluators.quantization.torch_graph import TorchGraph
from evaluators.training.jobs import CALIBRATIONS
from tests.evaluators.quantization.nets import images, plain_graph


def histogram(values):
    top = np.abs(values).max()
    counts = np.histogram(np.abs(values), BINS, (0, top))[0]
    return Histogram(min(0.0, values.min()), max(0.0, values.max()), counts)


def top(values, method, symmetric=True):
    return ranges({"x": histogram(values)}, method, symmetric)["x"]


BELL = np.random.default_rng(0).standard_normal(100_000)
SPIKED = np.append(BELL, [40.0, -3.0])


def test_min_max_keeps_everything():
    assert top(SPIKED, "min-max") == (BELL.min(), 40.0)


@pytest.mark.parametrize("share", [99.9, 99.99])
def test_a_percentile_is_the_share_of_values_inside(share):
    low, high = top(SPIKED, f"percentile {share}")
    inside = np.mean((low <= SPIKED) & (high >= SPIKED))
    assert low == pytest.approx(-high) and share / 100 <= inside < share / 100 + 0.002
    assert high < 8


def test_entropy_cuts_a_lone_outlier_and_no_flat_distribution():
    assert 2.5 < top(SPIKED, "entropy")[1] < 12
    flat = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert top(flat, "entropy")[1] > 0.9


@pytest.mark.parametrize("method", CALIBRATIONS)
@pytest.mark.parametrize(
    "values", [np.zeros(10), np.full(10, 0.5), -np.arange(1.0, 9.0)], ids=["0", "same", "negative"]
)
def test_no_tensor_breaks_a_method(method, values):
    low, high = top(values, method)
    assert low <= 0 <= high and np.isfinite([low, high]).all()


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown calibration method 'best'; accepted: min-max, .*entropy"):
        top(BELL, "best")


def test_they_are_of_the_graphs_own_activations(tmp_path):
    """What ONNX Runtime is asked for agrees with what torch computes."""
    import torch

    plain, shown = plain_graph(tmp_path), images(6)
    found, whole = histograms(plain, shown), extremes(plain, shown)
    seen = {}
    TorchGraph(plain, torch.device("cpu"))(
        torch.from_numpy(shown), lambda node, out, _: seen.setdefault(node.output[0], out)
    )
    for name, out in seen.items():
        if name in whole:
            low_high = min(0.0, float(out.min())), max(0.0, float(out.max()))
            assert whole[name] == pytest.approx(low_high, rel=1e-3, abs=1e-4)
            assert found[name].counts.sum() == out.numel() or found[name].top == 0
    assert len(seen.keys() & whole.keys()) > 10
    assert whole["image"] == pytest.approx((float(shown.min()), float(shown.max())))
