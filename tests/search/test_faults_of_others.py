"""A whole study on a board whose calls fail in every way: nothing is lost, and the numbers are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy
import pytest
from onnx import TensorProto, helper, numpy_helper
from optuna.trial import TrialState
from rich.console import Console

from evaluators.device_space import cut_to
from evaluators.measurement import Latency, Measurement, Outcome
from evaluators.timing.latency import TimingRules, TimingTarget, calibrate, time_model
from evaluators.timing.reference_model import reference_model
from evaluators.timing.stopwatch import Stopwatch
from remote.connect import connect
from remote.link.retrying_session import Incident, RetryingSession, RetryPolicy
from remote.link.session import Job
from remote.simulated.spec import FAULTS
from search.budget import Budget
from search.engines import serial
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.sampling.optuna_study import open_study
from search.selection.pareto import front
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from spaces.space import Space, load
from tests.search.analytic import WIDTH, Analytic

TRIALS = 50  # two generations and a half of the sampler's; some hundred failures
BUDGET = Budget(latency_ms=1.0)
RULES = TimingRules(blocks_min=1)
# many more candidates than trials, and a sampler that learns: what is asked for depends on what was told
SAMPLER = "nsga2"
WIDER = {"image_px": tuple(range(16, 49, 4)), "prune": tuple(round(0.05 * i, 2) for i in range(14))}
FAILING = ",".join(f"{kind}=0.05" for kind in FAULTS)
SURVIVED = {"link", "silent", "rebooted", "memory_taken", "no_space"}


def graph(candidate: Candidate) -> bytes:
    """Three convolutions whose width and size follow the candidate's."""
    width = max(2, round(24 * WIDTH[candidate.variant] * (1 - candidate.amount("prune"))))
    half = candidate.precision == "fp16"
    kind, dtype = (TensorProto.FLOAT16, numpy.float16) if half else (TensorProto.FLOAT, numpy.float32)
    shapes = [(width, 3, 3, 3), (width, width, 3, 3), (10, width, 3, 3)]
    weights = [numpy_helper.from_array(numpy.ones(shape, dtype), f"w{i}") for i, shape in enumerate(shapes)]
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[1, 1, 1, 1]) for i in range(3)]
    nodes.append(helper.make_node("GlobalAveragePool", ["x3"], ["y"]))
    image = [1, 3, candidate.image_px, candidate.image_px]
    made = helper.make_graph(
        nodes,
        "candidate",
        [helper.make_tensor_value_info("x0", kind, image)],
        [helper.make_tensor_value_info("y", kind, [1, 10, 1, 1])],
        weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return model.SerializeToString(deterministic=True)


class OnBoard(Analytic):
    """Structure and accuracy by formulas, latency timed on a board."""

    def __init__(self, patient: RetryingSession) -> None:
        super().__init__()
        self.patient = patient
        self.job = Job(runtime="tensorrt")
        self.reference = patient.put(reference_model())
        self.reference_ms, self.restless = calibrate(patient, self.reference, self.job, RULES)

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency:
        model, job = self.patient.put(graph(candidate)), replace(self.job, precision=candidate.precision)
        target = TimingTarget(
            model_sha256=model,
            reference_sha256=self.reference,
            job=job,
            runtime_version="8.2.1.8",
            percentile=90.0,
            reference_ms=self.reference_ms,
            simulated=True,
        )
        return time_model(self.patient, target, RULES, None)


@contextmanager
def board(faults: str, told: list[Incident]) -> Iterator[tuple[RetryingSession, Space]]:
    """A patient session, and the space cut to what the board can do."""
    session, device, _ = connect(f"sim:nano,{faults}", ping_s=0.1, silence_s=0.6)
    wide = load("tiny")
    wide = replace(wide, axes={**wide.axes, **WIDER})
    with session:
        yield (
            RetryingSession(session, RetryPolicy(first_wait_s=0.0), told.append),
            cut_to(wide, session.facts, device.runtime)[0],
        )


def study(folder, faults: str, told: list[Incident]):
    """(measurements, the Optuna study, the evaluator) of one whole search."""
    folder.mkdir()
    with board(faults, told) as (patient, space):
        ledger, evaluator = Ledger(folder / "ledger.jsonl"), OnBoard(patient)
        optuna_study = open_study(folder, SAMPLER, 0, space, BUDGET)
        limits = serial.Limits(trials=TRIALS, seconds_left=lambda: float("inf"), finishing_s=lambda: 0.0)
        view = ProgressView(Console(quiet=True), BUDGET, TRIALS, None)
        remembered = CachedEvaluator(evaluator, ledger, Stopwatch())
        searched = serial.run(
            optuna_study, space, evaluator=remembered, gates=StageLimits(budget=BUDGET), limits=limits, view=view
        )
        ledger.close()
    assert space.size() > 5 * TRIALS
    return searched.measurements, optuna_study, evaluator


def settled(measurements: list[Measurement]) -> list[Measurement]:
    """Without what tells how often it was tried: an engine is found built when it is asked for again."""
    return [
        replace(m, latency=replace(m.latency, repeated=0, build_s=0.0) if m.latency else None) for m in measurements
    ]


@pytest.mark.slow
def test_five_percent_of_calls_failing_in_each_way_change_nothing(tmp_path, monkeypatch):
    incidents: list[Incident] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one home"))
    calm, _, _ = study(tmp_path / "calm", "seed=0", incidents)
    assert incidents == [] and all(m.latency.repeated == 0 for m in calm)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another home"))  # everything is to be sent again
    rough, told, _ = study(tmp_path / "rough", FAILING, incidents)

    assert settled(rough) == settled(calm)
    assert front(settled(rough)) == front(settled(calm)) and len(front(rough)) > 5
    assert {m.outcome for m in rough} >= {Outcome.KEPT, "over budget"}

    trials = told.get_trials()
    closed = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(closed) == TRIALS == len({m.candidate.key() for m in rough})
    assert {m.trial for m in rough} == {t.number for t in closed}
    assert all("repeat" in t.user_attrs for t in trials if t not in closed), "none is open, none failed"
    ledger = Ledger(tmp_path / "rough" / "ledger.jsonl")
    timed = Counter(entry.key for entry in ledger.entries("latency"))
    ledger.close()
    assert max(timed.values()) <= 3 and sum(timed.values()) < 1.2 * len(timed), "only leaders are timed again"

    survived = Counter(incident.kind for incident in incidents)
    assert set(survived) == SURVIVED, survived
    assert any(m.latency.repeated for m in rough), "throttled blocks are timed again"
    assert all(m.latency.simulated and not m.latency.disturbed for m in rough)
