"""Finalists alone are looked at more closely: coverage, its ratio to fp32, and agreement with the host."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from evaluators.layer_precision import summarise
from evaluators.measurement import Agreement, Failure
from evaluators.timing.stopwatch import Stopwatch
from remote.device import Layer
from search.budget import Budget
from search.runs.device_run import _warn_of_unfolded
from search.selection.device_checks import look
from search.selection.finalists import finish
from search.storage.cached_evaluator import CachedEvaluator, CachedInspector
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from tests.reports.conftest import measure
from tests.search.analytic import Analytic
from tests.search.selection.test_ranking import OTHERS, PLAIN, run

INT8 = replace(PLAIN, precision="int8")


class Formula:
    """Half of the layers in the precision asked for; every call is counted."""

    def __init__(self, failure=None):
        self.calls, self.failure = [], failure

    def coverage(self, candidate, epochs):
        self.calls.append(("coverage", candidate, epochs))
        layers = [Layer("a", "Conv", candidate.precision, 1.0), Layer("b", "Clip", "fp32", 1.0)]
        return self.failure or summarise(candidate.precision, layers, "")

    def agreement(self, candidate, epochs):
        self.calls.append(("agreement", candidate, epochs))
        return self.failure or Agreement(same=99, count=100, device_top1=0.9, host_top1=0.91, host="onnxruntime 1.31.1")


def ended(sees, budget=2.6):
    measured = list(run(Budget(latency_ms=budget))[0].measurements)
    measured = [replace(m, confirmed=False, test=None) for m in measured]
    evaluator = Analytic()
    tell = lambda line: None  # noqa: E731
    with TemporaryDirectory() as folder, closing(Ledger(Path(folder) / "ledger.jsonl")) as ledger:
        cached = CachedEvaluator(evaluator, ledger, Stopwatch())
        return finish(
            measured, cached, budget=Budget(latency_ms=budget), plain=frozenset([PLAIN]), tell=tell, sees=sees
        ), evaluator


def test_choice_and_front_are_seen_and_nothing_else():
    sees = Formula()
    ending, _ = ended(sees)
    finalists = {m.candidate for m in (*ending.front, ending.choice)}
    assert {candidate for _, candidate, _ in sees.calls} == finalists
    assert all(m.agreement.host_top1 == 0.91 for m in (*ending.front, ending.choice))
    assert all((m.coverage is None) == (m.candidate.precision == "fp32") for m in (*ending.front, ending.choice))
    assert all(m.coverage is m.agreement is None for m in ending.measurements if m.candidate not in finalists)


def test_the_ratio_is_to_the_fp32_twin_of_this_run():
    ending, evaluator = ended(Formula())
    assert ending.choice.candidate == INT8
    twin = next(m for m in ending.measurements if m.candidate == PLAIN)
    ratio = ending.choice.latency.rank_ms.value / twin.latency.rank_ms.value
    assert ending.choice.coverage.fp32_ratio == ratio < 1
    assert ("latency", PLAIN.key()) not in evaluator.calls  # it was timed already


def test_only_the_choices_twin_is_timed_for_it():
    ending, _ = run(Budget(latency_ms=2.6))
    without = [m for m in ending.measurements if m.candidate != PLAIN]
    finalists = [m for m in without if m.candidate.precision == "int8"]
    evaluator = Analytic()
    found = look(without, finalists, choice=ending.choice, evaluator=evaluator, sees=Formula(), tell=lambda line: None)
    assert [key for stage, key in evaluator.calls if stage == "latency"] == [PLAIN.key()]
    known = {m.candidate: m.coverage.fp32_ratio for m in found}
    assert known[INT8] is not None and known[OTHERS[-1]] is None


def test_a_failure_to_look_ends_nothing():
    ending, _ = ended(Formula(Failure("coverage", "crashed", "by signal 11")))
    assert ending.choice.agreement is None and ending.choice.coverage.untold == "crashed: by signal 11"


def test_what_was_seen_is_remembered(tmp_path):
    first, _ = ended(CachedInspector(Formula(), Ledger(tmp_path / "l.jsonl"), Stopwatch()))
    again = Formula()
    second, _ = ended(CachedInspector(again, Ledger(tmp_path / "l.jsonl"), Stopwatch()))
    assert second == first and again.calls == []


def test_unfolded_networks_are_told_once_each():
    known = measure(Candidate(family="resnet", variant="resnet18", image_px=64), 0, Budget(latency_ms=50))
    one = replace(known, candidate=Candidate(family="timm", variant="repvgg_a0", image_px=64))
    why = "its branches can't be folded: the folded network is off by 0.2 of its largest output"
    unfolded = replace(one, structure=replace(one.structure, unfolded=why))
    trained = replace(unfolded, structure=one.structure, accuracies=(replace(one.accuracies[-1], unfolded="else"),))
    assert _warn_of_unfolded([one]) == []
    assert _warn_of_unfolded([one, unfolded, unfolded, trained]) == [
        f"repvgg_a0 runs with its branches, slower than it could: {why}"
    ]
    assert _warn_of_unfolded([trained]) == ["repvgg_a0 runs with its branches, slower than it could: else"]
