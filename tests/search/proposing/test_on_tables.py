"""On measured tables, where they are there: what the proposer reaches, and what another device adds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.proposer_tables import BENCH, Trouble, earlier_study, load, search
from search.proposing.known import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCH.is_dir(), reason=f"no tables in {BENCH}: they are not part of the repository"),
]


def share(rows, evaluations):
    return rows[rows.spent <= evaluations].iloc[-1].area


@pytest.mark.parametrize("name", ["gpu_titanx_b32/cifar10", "eyeriss_sim/in16", "timm/cpu_i7_12700h_b1_ms"])
def test_most_of_the_front_after_a_hundred_evaluations(name):
    task = load(name, 25, True)
    runs = [search(task, seed, 100, Settings(), Trouble(), None)[0] for seed in range(3)]
    assert np.mean([share(run, 100) for run in runs]) > 0.94
    assert min(share(run, 100) for run in runs) > 0.9
    assert max(run.ask_s.mean() for run in runs) < 0.2
    assert max((run.looks / run.spent).iloc[-1] for run in runs) < 10.3, "ten a training, and a second look or two"


def test_wrong_latencies_cost_little_and_are_not_chosen():
    task = load("pixel3/cifar10", 25, True)
    runs = [search(task, seed, 60, Settings(), Trouble(wrong=40), None)[0] for seed in range(2)]
    assert min(share(run, 60) for run in runs) > 0.85
    assert not any(run.over.iloc[-1] for run in runs)


def test_another_device_and_data_set_help_early():
    task, other = load("raspi4/in16", 25, True), load("pixel3/cifar10", 25, True)
    cold = [share(search(task, seed, 20, Settings(), Trouble(), None)[0], 20) for seed in range(4)]
    warm = [
        share(search(task, seed, 20, Settings(), Trouble(), earlier_study(other, seed, 100, False))[0], 20)
        for seed in range(4)
    ]
    assert np.mean(warm) > np.mean(cold)
