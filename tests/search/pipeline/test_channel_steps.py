"""Steps found once a device, paid for within limits, fixed for a run; and every pruned candidate built by them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console

from evaluators.measurement import Failure, Outcome
from evaluators.rounding_evaluator import RoundingEvaluator
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.engines import serial
from search.pipeline.channel_steps import ChannelStepProbe, ProbeBudget
from search.pipeline.stages import StageLimits
from search.pipeline.step_detection import RUNGS
from search.progress import ProgressView
from search.runs.time_budget import probing_s
from search.sampling.optuna_study import open_study
from search.sampling.protocol import StageCosts
from search.settings import Settings
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from spaces.space import load
from tests.search.stairs import Stairs

SPACE = load("tiny")
PRUNED = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=40, steps=(("prune", 0.25),))


class Run:
    """One session of a run in a folder."""

    def __init__(self, folder, inner, allowed_s=math.inf, run="run"):
        (folder / run).mkdir(exist_ok=True, parents=True)
        self.inner, self.ledger, self.told = inner, Ledger(folder / run / "ledger.jsonl"), []
        watch = Stopwatch()
        terms = ProbeBudget(lambda: allowed_s, folder / "device")
        ladders = CachedEvaluator(inner, self.ledger, watch)
        self.steps = ChannelStepProbe(
            ladders, self.ledger, watch=watch, space=SPACE, terms=terms, tell=self.told.append
        )
        self.evaluator = CachedEvaluator(RoundingEvaluator(inner, self.steps.rounding), self.ledger, watch)

    def timed(self):
        return [key for stage, key in self.inner.calls if stage == "latency"]


def test_pruned_counts_end_at_the_edges(tmp_path):
    run = Run(tmp_path, Stairs({"fp32": 16}))
    structure = run.evaluator.structure(PRUNED)
    assert structure.rounded_to == "16" and (48, 96, 192) in run.inner.built.values()
    assert len(run.timed()) == RUNGS == len(run.told) and "network 8 of 8" in run.told[-1]
    assert run.steps.describe() == {"res8_w8_s2 fp32 onnxruntime": "pruned to multiples of 16"}
    odd = replace(PRUNED, steps=(("prune", 0.4),))
    run.evaluator.structure(odd)
    assert {(48, 80, 160), (40, 80, 152)} & set(run.inner.built.values()) == {(48, 80, 160)}


def test_each_precision_has_its_own(tmp_path):
    run = Run(tmp_path, Stairs({"fp32": 16, "int8": 32}))
    found = {p: run.evaluator.structure(replace(PRUNED, precision=p)).rounded_to for p in ("fp32", "fp16", "int8")}
    assert found == {"fp32": "16", "fp16": "", "int8": "32"}
    assert "no steps found over 8 networks of 24 px" in run.steps.describe()["res8_w8_s2 fp16 onnxruntime"]


def test_sizes_share_a_ladder_and_uncut_networks_need_none(tmp_path):
    run = Run(tmp_path, Stairs({"fp32": 16}))
    run.evaluator.structure(PRUNED.uncut())
    assert run.timed() == []
    for px in (16, 24, 32, 40):
        assert run.evaluator.structure(replace(PRUNED, image_px=px)).rounded_to == "16"
    assert len(run.timed()) == RUNGS


def test_a_later_run_on_the_device_times_nothing_for_it(tmp_path):
    Run(tmp_path, Stairs({"fp32": 16})).evaluator.structure(PRUNED)
    again = Run(tmp_path, Stairs({"fp32": 16}), allowed_s=0.0, run="another")
    assert again.evaluator.structure(PRUNED).rounded_to == "16" and again.timed() == []


def test_what_was_disturbed_is_not_kept_for_later_runs(tmp_path):
    first = Run(tmp_path, Stairs({"fp32": 16}, disturbed="other load"))
    assert first.evaluator.structure(PRUNED).rounded_to == "16"
    again = Run(tmp_path, Stairs({"fp32": 16}), run="another")
    again.evaluator.structure(PRUNED)
    assert len(again.timed()) == RUNGS


def test_a_run_that_goes_on_keeps_what_it_began_with(tmp_path):
    Run(tmp_path, Stairs({"fp32": 16}), allowed_s=0.0).evaluator.structure(PRUNED)
    again = Run(tmp_path, Stairs({"fp32": 16}))
    assert again.evaluator.structure(replace(PRUNED, image_px=16)).rounded_to == "" and again.timed() == []
    assert "not measured, timing 8 networks" in again.steps.describe()["res8_w8_s2 fp32 onnxruntime"]


def test_a_run_of_before_there_were_steps_goes_on_without(tmp_path):
    (tmp_path / "run").mkdir()
    old = Ledger(tmp_path / "run" / "ledger.jsonl")
    CachedEvaluator(Stairs(), old, Stopwatch()).structure(PRUNED.uncut())
    old.close()
    run = Run(tmp_path, Stairs({"fp32": 16}))
    assert run.evaluator.structure(PRUNED).rounded_to == "" and run.timed() == [] and run.steps.describe() == {}


def test_a_network_whose_ladder_fails_is_pruned_as_declared(tmp_path):
    inner = Stairs({"fp32": 16})
    inner.broken = {PRUNED.uncut().key(): Failure("structure", "unsupported", "no such operator")}
    inner.broken |= {
        replace(PRUNED.uncut(), image_px=24).key(): Failure("structure", "unsupported", "no such operator")
    }
    run = Run(tmp_path, inner)
    assert run.evaluator.structure(PRUNED).rounded_to == ""
    assert run.steps.describe()["res8_w8_s2 fp32 onnxruntime"] == "not measured, no such operator"


def test_ladders_may_take_a_share_of_the_run():
    limits = serial.Limits(
        trials=20, seconds_left=lambda: math.inf, finishing_s=lambda: 0.0, costs=lambda: StageCosts(2.0, None, 8.0)
    )
    assert probing_s(Settings(budget_ms=1.0, trials=20), limits) == pytest.approx(20.0)
    assert probing_s(Settings(budget_ms=1.0, time_limit_s=600.0, probe_share=0.05), limits) == pytest.approx(30.0)
    assert probing_s(Settings(budget_ms=1.0, trials=20, probe_share=0.0), limits) == 0.0


@pytest.mark.parametrize("sampler", ["tpe", "budget", "grid"])
def test_whatever_asks_no_cut_is_trained_that_brought_nothing(tmp_path, sampler):
    """Blocks of 64: cutting an eighth, or three of them after a quarter, leaves the latency as it was."""
    inner, budget = Stairs({"fp32": 64}), Budget(latency_ms=4.0)
    run = Run(tmp_path, inner, allowed_s=0.0)  # as declared: the gate alone
    axes = SPACE.axes | {"image_px": (32,), "precision": ("fp32",)}
    space = replace(SPACE, variants={"tiny_resnet": ("res8_w8_s2",)}, axes=axes)
    study = open_study(tmp_path / "run", sampler, 0, space, budget)
    limits = serial.Limits(
        trials=5, seconds_left=lambda: math.inf, finishing_s=lambda: 0.0, costs=lambda: StageCosts(1.0, None, 100.0)
    )
    gates = StageLimits(budget=budget, rungs=(0, 1), less_cut=space.less_cut)
    found = serial.run(
        study,
        space,
        evaluator=run.evaluator,
        gates=gates,
        limits=limits,
        view=ProgressView(Console(quiet=True), budget, 5, None),
    )
    became = {m.candidate.amount("prune"): m for m in found.measurements}
    outcomes = {amount: m.outcome for amount, m in became.items()}
    assert outcomes == {
        0.0: Outcome.KEPT,
        0.125: Outcome.NO_GAIN,
        0.25: Outcome.KEPT,
        0.375: Outcome.NO_GAIN,
        0.5: Outcome.KEPT,
    }
    assert "no faster than the 2 ms" in became[0.125].reason and "which is uncompressed" in became[0.125].reason
    assert "res8_w8_s2 32px prune 0.25 fp32, which is less compressed" in became[0.375].reason
    assert not became[0.125].accuracies and not became[0.375].accuracies
    attributes = [trial.user_attrs for trial in study.get_trials()]
    assert {became[0.125].reason, became[0.375].reason} <= {told.get("reason") for told in attributes}
