"""What accuracy is, is one setting: gates, front, choice, baseline, limits and journal go by it."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluators.measurement import METRICS, Accuracy, Interval, Latency, Measurement, Outcome
from remote.exit_codes import USER
from search.budget import Budget
from search.cli import parser, settings_of
from search.pipeline.stages import StageLimits, promising
from search.run import main
from search.runs.warm_start import read_earlier
from search.selection.pareto import front, objectives
from search.selection.ranking import baseline, rank_feasible
from search.settings import SettingsError, go_on
from spaces.space import load
from tests.search.analytic import Analytic
from tests.search.runs.test_table_run import command
from tests.search.samplers.test_budget import go
from tests.spaces.test_table_space import small

__all__ = ["small"]  # a fixture
SPACE = load("tiny")


class Blind(Analytic):
    """The most accurate networks by top-1 never give the rare class; those in int8 do."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric

    def _accuracy(self, candidate, epochs, split):
        plain = super()._accuracy(candidate, epochs, split)
        wrong = plain.count - plain.correct
        rare = 50 if candidate.precision != "int8" else 5
        errors = ((0, 1, max(0, wrong - rare)), (1, 0, rare))
        correct = plain.count - max(0, wrong - rare) - rare
        return Accuracy(
            top1=correct / plain.count,
            correct=correct,
            count=plain.count,
            epochs=epochs,
            split=split,
            model_sha256=plain.model_sha256,
            class_counts=(950, 50),
            errors=errors,
            metric=self.metric,
        )


def searched(folder, metric):
    return go(folder, Blind(metric), SPACE, Budget(latency_ms=1e6, metric=metric), 24)


def test_the_choice_goes_by_the_metric(tmp_path):
    by_top1, by_class = (searched(tmp_path / name, name) for name in ("top1", "balanced"))
    best = {
        name: rank_feasible(found, Budget(latency_ms=1e6), None)[0]
        for name, found in (("top", by_top1), ("class", by_class))
    }
    assert best["top"].accuracy.top1 == max(m.accuracy.top1 for m in by_top1 if m.outcome == Outcome.KEPT)
    assert best["class"].candidate.precision == "int8" and best["class"].accuracy.confusion.recalls()[1] == 0.9
    assert best["class"].accuracy.score == max(m.accuracy.score for m in by_class if m.outcome == Outcome.KEPT)
    assert all(objectives(m)[0] == m.accuracy.value_of("balanced") for m in front(by_class))


def test_the_journal_names_the_metric_and_holds_its_values(tmp_path):
    found = searched(tmp_path, "macro-f1")
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    study = optuna.load_study(study_name="edgefront", storage=storage)
    assert study.metric_names[0] == "validation_macro-f1"
    kept = next(m for m in found if m.outcome == Outcome.KEPT)
    assert study.get_trials()[kept.trial].values[0] == pytest.approx(kept.accuracy.value_of("macro-f1"))


def test_an_earlier_run_is_read_by_the_metric_of_this_one(tmp_path):
    found = searched(tmp_path, "top1")
    whole = next(m for m in found if m.outcome == Outcome.KEPT)
    candidates = [SPACE.candidate(point) for point in SPACE.params()]
    place = candidates.index(whole.candidate)
    for metric in METRICS:
        assert read_earlier(tmp_path, SPACE, metric).accuracy[place] == whole.accuracy.value_of(metric)


def accuracy(recalls: tuple[float, float], metric: str, epochs: int = 3) -> Accuracy:
    errors = tuple((c, 1 - c, round(n * (1 - r))) for c, (n, r) in enumerate(zip((900, 100), recalls, strict=True)))
    right = 1000 - sum(n for *_, n in errors)
    return Accuracy(
        top1=right / 1000,
        correct=right,
        count=1000,
        epochs=epochs,
        split="validation",
        model_sha256="",
        class_counts=(900, 100),
        errors=errors,
        metric=metric,
    )


def measured(recalls, metric, trial=0):
    m = searched_one()
    return replace(m, accuracies=(accuracy(recalls, metric),), trial=trial)


def searched_one():
    about = Interval(1.0, 0.98, 1.02)
    latency = Latency(
        percentile=95.0,
        percentile_ms=about,
        median_ms=about,
        rank_ms=about,
        peak_mb=50.0,
        runtime_mb=40.0,
        load_ms=1.0,
        samples=80,
        blocks=2,
        repeated=0,
        disturbed="",
        model_sha256="",
        runtime_version="",
    )
    return Measurement(candidate=SPACE.parents()[0], outcome=Outcome.KEPT, latency=latency)


def test_limits_and_gates_go_by_the_metric():
    """99 % and 30 % of the classes found, against 90 % of both: ahead by top-1, behind by class."""
    for metric, ahead in (("top1", True), ("balanced", False), ("macro-f1", False)):
        blind, even = measured((0.99, 0.3), metric), measured((0.9, 0.9), metric, 1)
        assert (blind.accuracy.score > even.accuracy.score) == ahead, metric
        assert Budget(latency_ms=9, max_drop=0.01, metric=metric).keeps_accuracy(blind, even) == ahead
        better, worse = (blind, even) if ahead else (even, blind)
        assert baseline([blind, even], frozenset([blind.candidate])) == better
        assert promising(better.accuracy, better.latency, StageLimits(budget=Budget(latency_ms=9)), [worse]) == ""
    assert "epochs; trial 1" in promising(
        accuracy((0.99, 0.3), "balanced"),
        searched_one().latency,
        StageLimits(budget=Budget(latency_ms=9)),
        [measured((0.9, 0.9), "balanced", 1)],
    )


def test_the_metric_is_recorded_and_may_not_change(tmp_path):
    asked = settings_of(parser().parse_args(["--budget-ms", "5", "--metric", "balanced"]))
    assert asked.budget().metric == "balanced" and asked.budget().describe() == "p95 <= 5 ms"
    assert "balanced accuracy lost <= 2 points" in replace(asked, max_drop=0.02).budget().describe()
    with pytest.raises(SettingsError, match="metric was 'balanced', now 'top1'"):
        go_on(asked, replace(asked, metric="top1"), tmp_path)
    with pytest.raises(SettingsError, match=r"metric = 'f1' must be one of top1, balanced, macro-f1"):
        settings_of(parser().parse_args(["--budget-ms", "5", "--metric", "f1"]))


def test_a_table_has_top1_only(small, capsys):
    assert main(command(small, "--budget-ms", "2", "--metric", "balanced")) == USER
    said = capsys.readouterr().err
    assert "a table has top1 only" in said and said.count("\n") == 1 and not (small / "run").exists()
