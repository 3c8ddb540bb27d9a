"""What a sampler is given before a trial: latencies, second looks, short trainings; and what a second look changes."""

from __future__ import annotations

import json
from dataclasses import replace

import optuna
import pytest
from rich.console import Console

from evaluators.measurement import Failure, Measurement, Outcome
from evaluators.timing.stopwatch import Stopwatch
from search.budget import Budget
from search.pipeline.stages import StageLimits
from search.progress import ProgressView
from search.sampling.protocol import StageCosts
from search.sampling.screening import apply_budget, screen_candidates, subscribe
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.space import load
from tests.search.analytic import Analytic
from tests.search.samplers.test_budget import go

SPACE = load("tiny")
CANDIDATE = SPACE.parents()[1]


class Looks(Analytic):
    """Latencies that depend on how often they were asked for."""

    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.factors = list(factors)

    def latency(self, candidate, limit_ms):
        self.calls.append(("latency", candidate.key()))
        factor = self.factors.pop(0) if self.factors else 1.0
        return self._latency(candidate, factor) if factor else Failure("latency", "crashed", "gone")


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(tmp_path / "ledger.jsonl")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("factors", "believed", "looks"),
    [
        ((1.0, 1.05), 1.05, 2),  # the same but for noise: the newer
        ((0.2, 1.0), 1.0, 3),  # a third tells which was wrong
        ((0.2, 1.0, 1.1), 1.1, 3),
        ((1.0, 0.2, 1.0), 1.0, 3),
        ((0.2, 1.0, 0.0), 1.0, 3),  # of a failure and two that differ the slower
    ],
)
def test_what_is_believed_after_another_look(ledger, factors, believed, looks):
    inner = Looks(factors)
    evaluator = CachedEvaluator(inner, ledger, Stopwatch())
    once = evaluator.latency(CANDIDATE, None)
    assert once.rank_ms.value == pytest.approx(factors[0] * inner.cost(CANDIDATE))
    again = evaluator.latency_again(CANDIDATE, None)
    assert again.rank_ms.value == pytest.approx(believed * inner.cost(CANDIDATE))
    assert len(inner.calls) == looks and evaluator.latency(CANDIDATE, None) == again, "believed from now on"
    kept = [json.loads(line) for line in ledger._path.read_text().splitlines()]
    assert len(kept) >= looks, "no look is lost"


def test_a_listener_hears_the_past_and_what_comes(ledger):
    evaluator = CachedEvaluator(Analytic(), ledger, Stopwatch())
    evaluator.latency(CANDIDATE, None)
    heard: list[tuple[str, str]] = []
    evaluator.listen(lambda stage, key, value: heard.append((stage, key)))
    evaluator.latency(CANDIDATE, None)  # remembered: nothing new
    evaluator.accuracy(CANDIDATE, 1)
    assert heard == [("latency", CANDIDATE.key()), ("accuracy", f"{CANDIDATE.key()}@1")]


def test_a_candidate_that_is_too_slow_after_all_is_over_the_budget():
    latency = Analytic()._latency(CANDIDATE, 1.0)
    kept = Measurement(candidate=CANDIDATE, outcome=Outcome.KEPT, latency=latency)
    assert apply_budget(kept, Budget(latency_ms=latency.percentile_ms.high)) == kept
    over = apply_budget(kept, Budget(latency_ms=0.9 * latency.percentile_ms.low))
    assert over.outcome == Outcome.OVER_BUDGET and "> " in over.reason


class Wrong(Analytic):
    """A share of the latencies is five times too fast when first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def wrong(self, candidate) -> bool:
        return int(candidate.key(), 16) % 12 == 0 and candidate not in SPACE.parents()

    def latency(self, candidate, limit_ms):
        found, first = super().latency(candidate, limit_ms), candidate.key() not in self.seen
        self.seen.add(candidate.key())
        if not (first and self.wrong(candidate)):
            return found
        return replace(found, **{name: _fifth(getattr(found, name)) for name in ("percentile_ms", "rank_ms")})


def _fifth(interval):
    return type(interval)(interval.value / 5, interval.low / 5, interval.high / 5)


def test_latencies_that_are_too_good_to_be_true_do_not_lead_away(tmp_path):
    budget, evaluator = Budget(latency_ms=1.0), Wrong()
    found = go(tmp_path, evaluator, SPACE, budget, 40)
    kept = [m for m in found if m.outcome == Outcome.KEPT]
    best = max(kept, key=lambda m: m.accuracy.top1)
    assert evaluator.cost(best.candidate) <= 1.0, "the best within the budget is so in truth"
    honest = go(tmp_path / "honest", Analytic(), SPACE, budget, 40)
    reachable = max(m.accuracy.top1 for m in honest if m.outcome == Outcome.KEPT)
    assert best.accuracy.top1 >= reachable - 0.01


class Brief(optuna.samplers.RandomSampler):
    """Wants one candidate timed and trained briefly before every trial."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted, self.told = wanted, []

    def start_from(self, earlier):
        pass

    def request_latencies(self, study, costs):
        return [self.wanted]

    def is_opening(self, costs):
        return False

    def request_remeasurements(self):
        return []

    def request_low_fidelity(self):
        return [self.wanted]

    def on_latency(self, key, found):
        self.told.append("timed")

    def on_low_fidelity(self, key, found):
        self.told.append("tried")

    def on_training_time(self, key, seconds):
        self.told.append("trained")

    def exclude(self, key):
        self.told.append("excluded")


def test_over_the_budget_a_short_training_is_given_and_none_where_nothing_runs(tmp_path):
    for name, factor, told in (("slow", 1.0, ["timed", "tried"]), ("broken", 0.0, ["timed", "excluded"])):
        ledger = Ledger(tmp_path / f"{name}.jsonl")
        evaluator = CachedEvaluator(Looks((factor,)), ledger, Stopwatch())
        sampler = Brief(CANDIDATE)
        study = optuna.create_study(sampler=sampler)
        gates = StageLimits(budget=Budget(latency_ms=1e-3), brief_epochs=1)
        subscribe(study, evaluator, gates)
        view = ProgressView(Console(quiet=True), gates.budget, None, None)
        screen_candidates(
            study,
            evaluator,
            gates=gates,
            costs=lambda: StageCosts(1.0, 1.0, 9.0),
            in_time=lambda: True,
            measured=[],
            view=view,
        )
        assert sampler.told == told
        ledger.close()
