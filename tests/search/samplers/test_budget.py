"""Our sampler: asks for latencies first, proposes nothing twice and nothing that is known to be too slow."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy
import pytest
from rich.console import Console

from evaluators.measurement import Outcome
from evaluators.table_evaluator import TableEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.sampling.optuna_study import open_study
from search.sampling.protocol import StageCosts
from search.sampling.uncompressed import FEW, LEAST_SHARE
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from spaces.table_space import load_table
from tests.search.analytic import Analytic

SPACE = load("tiny")
BENCH = Path(__file__).parents[3] / ".." / "shared" / "bench"


def go(folder, evaluator, space, budget, trials, sampler="budget", seed=0, rungs=(0, 1, 3), brief_epochs=1):
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    study = open_study(folder, sampler, seed, space, budget)
    costs = StageCosts(1.0, 40.0, 120.0)
    limits = serial.Limits(
        trials=trials, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0, costs=lambda: costs
    )
    view = ProgressView(Console(quiet=True), budget, trials, None)
    remembered = CachedEvaluator(evaluator, ledger, Stopwatch())
    found = serial.run(
        study,
        space,
        evaluator=remembered,
        gates=StageLimits(budget=budget, rungs=rungs, brief_epochs=brief_epochs),
        limits=limits,
        view=view,
    ).measurements
    ledger.close()
    return found


def test_what_is_known_to_be_too_slow_is_not_asked_for_again(tmp_path):
    evaluator = Analytic()
    found = go(tmp_path, evaluator, SPACE, Budget(latency_ms=1.5), 40)
    assert len({m.candidate.key() for m in found}) == 40
    over = [m for m in found if m.outcome == Outcome.OVER_BUDGET]
    assert [m.candidate for m in over] == [max(SPACE.parents(), key=evaluator.cost)], "the greedy baseline alone"
    timed = {key for stage, key in evaluator.calls if stage == "latency"}
    assert len(timed) > 100, "many latencies"


def whole(candidate):
    return not candidate.steps


def test_it_begins_with_whole_networks_that_may_keep_the_budget(tmp_path):
    evaluator, parents = Analytic(), SPACE.parents()
    go(tmp_path, evaluator, SPACE, Budget(latency_ms=1.5), 3)
    candidates = {c.key(): c for c in map(SPACE.candidate, SPACE.params())}
    timed = dict.fromkeys(key for stage, key in evaluator.calls if stage == "latency")
    asked = [candidates[key] for key in timed][len(parents) :]
    first = list(takewhile(whole, asked))
    assert len(first) >= 4 and set(filter(whole, asked)) == set(first)
    for candidate in first:
        as_fp32 = evaluator.cost(replace(candidate, precision="fp32"))
        assert as_fp32 <= 1.5 * (1 if candidate.precision == "fp32" else LEAST_SHARE)


def test_the_first_training_is_of_the_largest_whole_network_within_the_budget_after_few_timings(tmp_path):
    evaluator, parents = Analytic(), SPACE.parents()
    found = go(tmp_path, evaluator, SPACE, Budget(latency_ms=1.5), 2)
    candidates = {c.key(): c for c in map(SPACE.candidate, SPACE.params())}
    begun = [(stage, key) for stage, key in evaluator.calls if stage in ("latency", "accuracy")]
    plain = {c.key() for c in parents}
    after = [(stage, key) for stage, key in begun if key.partition("@")[0] not in plain]
    timed = list(takewhile(lambda call: call[0] == "latency", after))
    assert 1 <= len(timed) <= FEW and all(whole(candidates[key]) for _, key in timed)
    within = [candidates[key] for _, key in timed if evaluator.cost(candidates[key]) <= 1.4]
    largest = max(within, key=lambda c: evaluator.cost(replace(c, precision="fp32")))
    assert found[0].candidate == largest and found[0].outcome == Outcome.KEPT


def test_a_second_session_goes_on_with_other_candidates(tmp_path):
    first = go(tmp_path, Analytic(), SPACE, Budget(latency_ms=1.5), 12)
    both = go(tmp_path, Analytic(), SPACE, Budget(latency_ms=1.5), 20)
    assert [m.candidate for m in both[:12]] == [m.candidate for m in first]
    assert len({m.candidate.key() for m in both}) == 20


def test_every_candidate_in_the_end(tmp_path):
    small = load("tiny").__class__(
        name="small",
        title="small",
        variants={"tiny_resnet": ("res8_w8_s2",)},
        axes=SPACE.axes | {"image_px": (16, 24)},
        own_axes={},
    )
    found = go(tmp_path, Analytic(), small, Budget(latency_ms=1.5), 1000)
    assert len(found) == small.size()


@pytest.mark.slow
def test_it_finds_more_than_chance_with_as_many_trainings(tmp_path):
    """Accuracy reachable within a budget of NAS-Bench-201, each sampler stopped after 40 trainings."""
    if not BENCH.is_dir():
        pytest.skip(f"no tables in {BENCH}: they are not part of the repository")
    space, budget = load_table("nb201", BENCH), Budget(latency_ms=12.0)
    best: dict[str, list[float]] = {"budget": [], "random": []}
    for sampler, reached in best.items():
        for seed in range(3):
            found = go(
                tmp_path / f"{sampler}{seed}",
                TableEvaluator(space, "raspi4", "in16"),
                space=space,
                budget=budget,
                trials=40,
                sampler=sampler,
                seed=seed,
                rungs=(200,),
                brief_epochs=12,
            )
            reached.append(max(m.accuracy.top1 for m in found if m.outcome == Outcome.KEPT))
    assert numpy.mean(best["budget"]) > numpy.mean(best["random"]) + 0.01, best


def test_short_trainings_come_before_long_ones(tmp_path):
    evaluator = Analytic()
    found = go(tmp_path, evaluator, SPACE, Budget(latency_ms=1.5), 20)
    brief = [key for stage, key in evaluator.calls if stage == "accuracy" and key.endswith("@1")]
    full = [key for stage, key in evaluator.calls if stage == "accuracy" and key.endswith("@3")]
    assert len(brief) > len(full) and {m.candidate.key() + "@1" for m in found if m.outcome == Outcome.KEPT} <= set(
        brief
    )
    assert len(evaluator.calls) == len(set(evaluator.calls)) + sum(
        evaluator.calls.count(call) - 1 for call in set(evaluator.calls) if call[0] == "latency"
    ), "only latencies are ever measured twice"


def test_a_batch_is_asked_for_without_repeats(tmp_path):
    """As workers side by side ask: ten trials open at once, told in another order."""
    study = open_study(tmp_path, "budget", 0, SPACE, Budget(latency_ms=1.5))
    evaluator, asked = Analytic(), []
    for _ in range(3):
        batch = [study.ask() for _ in range(10)]
        asked += [SPACE.suggest(trial) for trial in batch]
        for trial, candidate in reversed(list(zip(batch, asked[-10:], strict=True))):
            study.tell(trial, (evaluator.top1(candidate, 3), evaluator.cost(candidate), 50.0))
    assert len({candidate.key() for candidate in asked}) == 30


def test_it_is_a_sampler_like_any_other_where_no_search_heeds_it(tmp_path):
    evaluator = Analytic()

    def objective(trial):
        candidate = SPACE.suggest(trial)
        return evaluator.top1(candidate, 3), evaluator.cost(candidate), 50.0

    best: dict[str, list[float]] = {"budget": [], "random": []}
    for sampler, reached in best.items():
        for seed in range(3):
            (tmp_path / f"{sampler}{seed}").mkdir()
            study = open_study(tmp_path / f"{sampler}{seed}", sampler, seed, SPACE, Budget(latency_ms=1.5))
            study.optimize(objective, n_trials=30)
            reached.append(max(trial.values[0] for trial in study.trials if trial.values[1] <= 1.5))
    assert numpy.mean(best["budget"]) > numpy.mean(best["random"]), best
