"""On measured tables, where they are there, by the product's own way: how much is found, what earlier runs add."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.search_quality.__main__ import BENCH
from benchmarks.search_quality.one import search
from benchmarks.search_quality.task import read
from benchmarks.search_quality.watched import Faults, faults_of
from search.bayesopt.observations import PriorRun
from spaces.table_space import load_table

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
    return [
        search(task, "budget", seed=seed, limit_ms=limit_ms, marks=[evaluations], faults=faults(seed), **more)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("space", "name"),
    [("nb201", "gpu_titanx_b32/cifar10"), ("nb201", "eyeriss_sim/in16"), ("timm", "cpu_i7_12700h_b1_ms/top1")],
)
def test_most_of_the_front_after_a_hundred_evaluations(space, name):
    scores = [score[-1] for score, _ in runs(task_of(space, name), 2, 100)]
    assert np.mean([score.hv for score in scores]) > 0.95
    assert min(score.hv for score in scores) > 0.9
    assert max(score.latency_lookups / score.evaluations for score in scores) <= 10


def test_wrong_latencies_cost_little_and_are_not_chosen():
    task = task_of("nb201", "pixel3/cifar10")
    found = runs(task, 2, 60, lambda seed: faults_of(task, 40, 0.0, seed))
    assert min(score[-1].hv for score, _ in found) > 0.85
    assert not any(end.over or end.front_lied for _, end in found), "right at the second look, an entry may be chosen"


def test_another_device_and_data_set_help_early():
    """What a search leaves: 800 latencies, and a hundred accuracies, most of them of the best."""
    other, tasks = (
        task_of("nb201", "pixel3/cifar10"),
        [task_of("nb201", n) for n in ("gold_6226/cifar100", "raspi4/in16")],
    )
    keys, random = list(other.points.index), np.random.default_rng(0)
    latency_ms, points = other.latency_ms[keys].to_numpy(), other.points[keys].to_numpy()
    timed = random.choice(len(keys), 800, replace=False)
    best = timed[np.argsort(-points[timed] + random.normal(0.0, 1.0, 800))]
    trained = np.r_[best[:70], random.choice(timed, 30, replace=False)]
    places = np.arange(len(keys))
    earlier = PriorRun(
        np.where(np.isin(places, timed), latency_ms, np.nan), np.where(np.isin(places, trained), points / 100, np.nan)
    )
    cold = [score[-1].hv for task in tasks for score, _ in runs(task, 5, 14)]
    warm = [score[-1].hv for task in tasks for score, _ in runs(task, 5, 14, earlier=earlier)]
    assert np.mean(warm) > np.mean(cold)
