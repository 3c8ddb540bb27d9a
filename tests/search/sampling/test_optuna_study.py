"""The study: any sampler, no repeats, gone on with after a kill as if nothing had been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from evaluators.measurement import Failure, Outcome
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.time_allowance import OutOfTimeError
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.sampling.optuna_study import open_study, record_corrections, samplers, waiting
from search.sampling.protocol import StageCosts
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic

SPACE = load("tiny")
BUDGET = Budget(latency_ms=1.5)


def go(folder, trials=15, sampler="random", evaluator=None, budget=BUDGET):
    """One session over a run folder."""
    ledger, watch = Ledger(folder / "ledger.jsonl"), Stopwatch()
    study = open_study(folder, sampler, 0, SPACE, BUDGET)
    view = ProgressView(Console(quiet=True), budget, trials, None)
    limits = serial.Limits(trials=trials, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0)
    inner = evaluator or Analytic()
    searched = serial.run(
        study,
        SPACE,
        evaluator=CachedEvaluator(inner, ledger, watch),
        gates=StageLimits(budget=budget),
        limits=limits,
        view=view,
    )
    ledger.close()
    return searched, study, inner


@pytest.mark.parametrize("sampler", samplers())
def test_every_sampler_finds_something_and_never_repeats(sampler, tmp_path):
    searched, study, _ = go(tmp_path, 25, sampler)
    keys = [m.candidate.key() for m in searched.measurements]
    assert len(keys) == len(set(keys)) == 25
    assert any(m.outcome == Outcome.KEPT for m in searched.measurements)
    assert all(m.latency.percentile_ms.high <= 1.5 for m in searched.measurements if m.outcome == Outcome.KEPT)
    feasible = {t.number for t in study.best_trials}
    assert feasible <= {m.trial for m in searched.measurements if m.outcome == Outcome.KEPT}


def test_run_uncompressed_networks_are_all_timed_before_anything_is_trained(tmp_path):
    searched, _, evaluator = go(tmp_path)
    plain = SPACE.parents()
    first = [stage for stage, _ in evaluator.calls].index("accuracy")
    assert {key for stage, key in evaluator.calls[:first] if stage == "latency"} >= {c.key() for c in plain}
    within = [c for c in sorted(plain, key=evaluator.cost, reverse=True) if evaluator.cost(c) <= 1.4]
    assert [m.candidate for m in searched.measurements[: len(within)]] == within, "the slowest within the budget first"


def test_run_only_the_likeliest_baseline_is_trained_over_the_budget(tmp_path):
    searched, _, evaluator = go(tmp_path)
    over = {m.candidate: m for m in searched.measurements if m.outcome == Outcome.OVER_BUDGET and m.accuracy}
    greedy = max(SPACE.parents(), key=evaluator.cost)
    assert list(over) == [greedy] and [a.epochs for a in over[greedy].accuracies] == [0]
    trained = {key.partition("@")[0] for stage, key in evaluator.calls if stage == "accuracy"}
    slow = {c.key() for c in SPACE.parents() if evaluator.cost(c) > 1.6}
    assert trained & slow == {greedy.key()}


class Late(Analytic):
    """Has no time for a training of more than so many epochs."""

    def __init__(self, epochs_max):
        super().__init__()
        self.epochs_max = epochs_max

    def accuracy(self, candidate, epochs):
        if epochs > self.epochs_max:
            raise OutOfTimeError("its training needs 9 s more, 2 s are left")
        return super().accuracy(candidate, epochs)


@pytest.mark.parametrize(("epochs_max", "scored"), [(1, [0, 1]), (-1, [])])
def test_run_out_of_time_keeps_what_was_reached_and_goes_on(tmp_path, epochs_max, scored):
    first, _, _ = go(tmp_path, 6, evaluator=Late(epochs_max))
    late = [m for m in first.measurements if m.outcome == Outcome.UNFINISHED]
    assert late and all([a.epochs for a in m.accuracies] == scored for m in late)
    second, study, evaluator = go(tmp_path, 6, evaluator=Late(epochs_max))
    assert second.measurements == first.measurements and evaluator.calls == []
    states = {t.number: t.state for t in study.get_trials()}
    assert all(states[m.trial] == TrialState.PRUNED for m in late)


def test_record_corrections_names_what_the_end_changed(tmp_path):
    searched, study, _ = go(tmp_path, 8)
    record_corrections(study, searched.measurements)
    assert "corrections" not in study.user_attrs
    kept = next(m for m in searched.measurements if m.outcome == Outcome.KEPT)
    changed = replace(kept, outcome=Outcome.OVER_BUDGET, reason="p95 may reach 2 ms > 1.5")
    record_corrections(study, [changed if m is kept else m for m in searched.measurements])
    assert study.user_attrs["corrections"][str(kept.trial)]["outcome"] == Outcome.OVER_BUDGET


def test_what_is_told_is_what_was_measured(tmp_path):
    broken = SPACE.parents()[1]
    evaluator = Analytic({broken.key(): Failure("structure", "unbuildable", "no such thing")})
    searched, study, _ = go(tmp_path, evaluator=evaluator)
    trials = {t.number: t for t in study.get_trials()}
    for m in searched.measurements:
        trial = trials[m.trial]
        assert trial.user_attrs["outcome"] == m.outcome
        assert trial.state == (TrialState.COMPLETE if m.outcome == Outcome.KEPT else TrialState.PRUNED)
        if m.outcome == Outcome.OVER_BUDGET:
            assert trial.constraints["latency_ms"] > 0
        if m.outcome == Outcome.FAILED:
            assert trial.constraints["built"] == 1 and trial.user_attrs["reason"].endswith("no such thing")
        if m.outcome == Outcome.KEPT:
            assert trial.values[0] == m.accuracy.top1 and all(v <= 0 for v in trial.constraints.values())


def test_going_on_measures_nothing_again(tmp_path):
    first, _, _ = go(tmp_path, 10)
    second, _, evaluator = go(tmp_path, 20)
    assert second.measurements[:10] == first.measurements
    fresh = {m.candidate.key() for m in second.measurements[10:]}
    assert {key.split("@")[0] for stage, key in evaluator.calls if stage == "accuracy"} <= fresh


def test_a_whole_space_ends_the_search(tmp_path):
    small = load("tiny").__class__(
        name="small",
        title="small",
        variants={"tiny_resnet": ("res8_w4_s2",)},
        axes=SPACE.axes | {"image_px": (16, 24)},
        own_axes={},
    )
    ledger = Ledger(tmp_path / "ledger.jsonl")
    study = open_study(tmp_path, "random", 0, small, BUDGET)
    limits = serial.Limits(trials=1000, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0)
    view = ProgressView(Console(quiet=True), BUDGET, 1000, None)
    evaluator = CachedEvaluator(Analytic(), ledger, Stopwatch())
    searched = serial.run(study, small, evaluator=evaluator, gates=StageLimits(budget=BUDGET), limits=limits, view=view)
    assert len(searched.measurements) == small.size()


def test_the_time_limit_leaves_time_for_the_end(tmp_path):
    inner = Analytic()

    def left():
        return 100.0 - sum(10 for stage, _ in inner.calls if stage == "accuracy")

    study = open_study(tmp_path, "random", 0, SPACE, BUDGET)
    limits = serial.Limits(
        trials=1000,
        seconds_left=left,
        finishing_s=lambda: 5.0,
        costs=lambda: StageCosts(1.0, 2.0, 30.0),
        time_limit_s=100.0,
        baseline_s=25.0,
    )
    view = ProgressView(Console(quiet=True), BUDGET, 1000, 100.0)
    evaluator = CachedEvaluator(inner, Ledger(tmp_path / "l.jsonl"), Stopwatch())
    searched = serial.run(study, SPACE, evaluator=evaluator, gates=StageLimits(budget=BUDGET), limits=limits, view=view)
    assert searched.measurements and -25 < left() < 5 + 1 + 2


def test_a_line_cut_short_is_dropped(tmp_path):
    first, _, _ = go(tmp_path, 8)
    for name in ("ledger.jsonl", "study.journal"):
        with (tmp_path / name).open("a") as file:
            file.write('{"stage": "latency", "ke')
    (tmp_path / "study.journal.lock").touch()
    second, _, _ = go(tmp_path, 9)
    assert second.measurements[:8] == first.measurements


LOOP = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.search.analytic import Analytic
from tests.search.sampling.test_optuna_study import go
class Slow(Analytic):
    def latency(self, candidate, limit_ms):
        time.sleep(0.01)
        return super().latency(candidate, limit_ms)
go(Path({folder!r}), {trials}, "tpe", Slow())
print("done", flush=True)
"""


@pytest.mark.parametrize("is_queued", [False, True])
def test_open_study_after_a_kill_between_two_parameters_goes_on(tmp_path, is_queued):
    study = open_study(tmp_path, "random", 0, SPACE, BUDGET)
    wanted = SPACE.parents()[1]
    if is_queued:
        study.enqueue_trial(dict(SPACE.params_of(wanted)))
    study.ask().suggest_categorical("variant", [v for names in SPACE.variants.values() for v in names])
    again = open_study(tmp_path, "random", 0, SPACE, BUDGET)
    assert waiting(again, SPACE) == ([wanted] if is_queued else [])
    searched, study, _ = go(tmp_path, 4)
    assert len(searched.measurements) == 4 and not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])


def test_killed_five_times_nothing_is_lost_or_measured_twice(tmp_path):
    """kill -9 at five moments spread over a search; the same command goes on each time."""
    root = str(Path(__file__).parents[3])
    code = LOOP.format(root=root, folder=str(tmp_path), trials=40)
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        while process.poll() is None and not _entries(tmp_path) > 8 * attempt:
            time.sleep(0.005)
        time.sleep(0.013 * attempt % 0.1)
        if kills < 5:
            process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=120)
        kills += process.returncode == -signal.SIGKILL
        if "done" in out:
            break
    assert kills == 5, "the search must be long enough to be killed five times"
    ledger = Ledger(tmp_path / "ledger.jsonl")
    once = [(entry.stage, entry.key) for entry in ledger.entries() if entry.stage != "latency"]
    assert len(once) == len(set(once)), "something was measured twice"
    looks = Counter(entry.key for entry in ledger.entries("latency"))
    assert max(looks.values()) <= 2, "a leader is timed twice, nothing else is"
    assert (tmp_path / "ledger.jsonl").stat().st_size > 0
    searched, study, evaluator = go(tmp_path, 40, "tpe")
    assert evaluator.calls == [], "a finished search measures nothing"
    assert len({m.candidate.key() for m in searched.measurements}) == 40
    assert study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING]) == []


def _entries(folder):
    path = folder / "ledger.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_another_optuna_reads_the_journal(tmp_path):
    """What optuna-dashboard does first: load the study from the journal file alone."""
    go(tmp_path, 8)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    study = optuna.load_study(study_name="edgefront", storage=optuna.storages.JournalStorage(backend))
    assert study.metric_names == ["validation_top1", "rank_ms", "peak_mb"]
    assert len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])) == 8
