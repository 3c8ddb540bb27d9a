"""On measured tables, where they are there, by the product's own way: how much is found, what earlier runs add."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.search_quality.__main__ import BENCH
from benchmarks.search_quality.one import search
from benchmarks.search_quality.task import read
from benchmarks.search_quality.watched import Faults, faults_of
from search.proposing.known import Earlier
from spaces.table import load_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCH.is_dir(), reason=f"no tables in {BENCH}: they are not part of the repository"),
]
NONE = Faults({})


def task_of(space, name):
    return read(name, load_table(space, BENCH), 0.25)


def runs(task, seeds, evaluations, faults=lambda seed: NONE, **more):
    """Searches that nothing useful is excluded from: the score at the end, and the choice."""
    limit_ms = task.best.corner_ms
    return [search(task, "budget", seed, limit_ms, [evaluations], faults(seed), **more) for seed in range(seeds)]


@pytest.mark.parametrize(
    ("space", "name"),
    [("nb201", "gpu_titanx_b32/cifar10"), ("nb201", "eyeriss_sim/in16"), ("timm", "cpu_i7_12700h_b1_ms/top1")],
)
def test_most_of_the_front_after_a_hundred_evaluations(space, name):
    scores = [score[-1] for score, _ in runs(task_of(space, name), 3, 100)]
    assert np.mean([score.hv for score in scores]) > 0.95
    assert min(score.hv for score in scores) > 0.9
    assert max(score.latency_lookups / score.evaluations for score in scores) <= 10


def test_wrong_latencies_cost_little_and_are_not_chosen():
    task = task_of("nb201", "pixel3/cifar10")
    found = runs(task, 2, 60, lambda seed: faults_of(task, 40, 0.0, seed))
    assert min(score[-1].hv for score, _ in found) > 0.85
    assert not any(end.over or end.lied for _, end in found)


def test_another_device_and_data_set_help_early():
    task, other = task_of("nb201", "raspi4/in16"), task_of("nb201", "pixel3/cifar10")
    keys = list(task.points.index)
    seen = np.isin(np.arange(len(keys)), np.random.default_rng(0).choice(len(keys), 100, replace=False))
    earlier = Earlier(
        np.where(seen, other.latency_ms[keys].to_numpy(), np.nan),
        np.where(seen, other.points[keys].to_numpy() / 100, np.nan),
    )
    cold = [score[-1].hv for score, _ in runs(task, 4, 20)]
    warm = [score[-1].hv for score, _ in runs(task, 4, 20, earlier=earlier)]
    assert np.mean(warm) > np.mean(cold)
