"""The short form of the benchmark of samplers, and whether it computes what it says."""

from __future__ import annotations

import numpy
import optuna
import pandas
import pytest

from benchmarks.search_quality import summary
from benchmarks.search_quality.__main__ import BENCH, main
from benchmarks.search_quality.one import score, search
from benchmarks.search_quality.task import best_of, covered, read, undominated
from benchmarks.search_quality.watched import Clock, Faults, Row, Watched, faults_of
from evaluators.measurement import Failure, Latency
from evaluators.table_evaluator import TableEvaluator
from spaces.table_space import load_table
from tests.search.made_table import made, write

NONE = Faults({})
real = pytest.mark.skipif(not BENCH.is_dir(), reason=f"no tables in {BENCH}: they are not part of the repository")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return read("pi/pets", made(tmp_path_factory.mktemp("table"), 5, 4), 0.25)


def test_area_front_and_regret_by_hand():
    points, ms = numpy.array([50.0, 70.0, 60.0, 80.0, 70.0, 40.0]), numpy.array([1.0, 2.0, 2.0, 4.0, 3.0, 0.5])
    assert undominated(points, ms).tolist() == [5, 0, 1, 3]
    # from (45 points, 5 ms): 5 x 1 ms + 25 x 2 ms + 35 x 1 ms
    assert covered(points, ms, 45.0, 5.0) == pytest.approx(5 + 50 + 35)
    assert covered(points[:0], ms[:0], 45.0, 5.0) == 0.0
    best = best_of(points, ms, 0.5)  # median 65: useful are 70 at 2 ms and 80 at 4 ms
    assert (best.corner_ms, best.corner_points, best.budget_ms, best.points) == pytest.approx((4.4, 65.0, 3.0, 70.0))
    assert best.area == pytest.approx(5 * 2 + 15 * 0.4)
    assert best.share(points, ms) == 1.0 and best.regret(points, ms) == 0.0
    assert best.share(points[3:4], ms[3:4]) == pytest.approx(15 * 0.4 / best.area)
    assert best.regret(points[3:4], ms[3:4]) == pytest.approx(5.0), "too slow counts as nothing found"


def test_twins_and_empty_entries_change_nothing():
    points, ms = numpy.array([50.0, 70.0, 80.0]), numpy.array([1.0, 2.0, 4.0])
    empty = numpy.array([numpy.nan, 90.0])
    with_twin = best_of(numpy.r_[points, 70.0, 70.0], numpy.r_[ms, 2.0, numpy.nan], 0.25)
    assert with_twin.area == best_of(numpy.r_[points, 70.0], numpy.r_[ms, 2.0], 0.25).area
    assert best_of(numpy.r_[points, empty], numpy.r_[ms, 1.0, numpy.nan], 0.25).points < 90


@real
def test_the_published_oracle_is_reproduced():
    space, told = load_table("nb201", BENCH), pandas.read_csv(BENCH / "nb201_oracle_budgets.csv")
    for row in told.itertuples():
        for quantile in (10, 25, 50, 75):
            best = read(f"{row.device}/{row.dataset}", space, quantile / 100).best
            budget, oracle = getattr(row, f"budget_p{quantile}_ms"), getattr(row, f"oracle_acc_p{quantile}")
            found = best.corner_ms, best.corner_points, best.area, best.budget_ms, best.points
            assert found == pytest.approx((row.ref_lat, row.ref_acc, row.hv_true, budget, oracle), rel=1e-5, abs=5e-5)
    assert len(told) == 45


def test_ours_beats_chance(task):
    """At 40 evaluations of a table of 1,024, two seeds: the product's way from study to choice."""
    scores = {
        sampler: [
            search(task, sampler, seed=seed, limit_ms=task.best.corner_ms, marks=[20, 40], faults=NONE)
            for seed in range(2)
        ]
        for sampler in ("budget", "random")
    }
    ours, chance = ([run[0][-1].hv for run in runs] for runs in scores.values())
    assert numpy.mean(ours) > numpy.mean(chance) + 0.03 and min(ours) > numpy.mean(chance), scores
    for scored, end in scores["budget"] + scores["random"]:
        assert scored[0].hv <= scored[1].hv <= 1 and scored[0].regret >= scored[1].regret >= 0
        assert not end.over and task.latency_ms[end.choice] <= task.best.corner_ms
        for one in scored:
            spent = one.trained + one.low_lookups * 12 / 200
            assert one.evaluations - 1 - 10 * 12 / 200 < spent <= one.evaluations + 1e-9
    assert all(run[0][-1].low_lookups > 0 for run in scores["budget"]), "it knows the low fidelity"
    assert all(run[0][-1].low_lookups == 0 for run in scores["random"])


@real
@pytest.mark.parametrize("name", ["jetson_nano_fp32/cifar100", "raspi4/in16"])
def test_ours_beats_chance_on_a_real_table(name):
    task = read(name, load_table("nb201", BENCH), 0.25)
    reached = {
        sampler: [
            search(task, sampler, seed=seed, limit_ms=task.best.corner_ms, marks=[25], faults=NONE)[0][-1].hv
            for seed in range(2)
        ]
        for sampler in ("budget", "random")
    }
    assert numpy.mean(reached["budget"]) > numpy.mean(reached["random"]) + 0.05, reached


def test_a_score_counts_what_was_trained_by_then(task):
    keys = [str(task.points.idxmax()), str(task.latency_ms.idxmin())]
    rows = [
        Row(key=keys[0], evaluations=1.0, latency_lookups=1, low_lookups=0, trials=1, ask_s=0.1),
        Row(key=keys[1], evaluations=2.5, latency_lookups=9, low_lookups=25, trials=2, ask_s=0.3),
    ]
    before, after = score(task, rows, 2), score(task, rows, 3)
    assert (before.trained, before.latency_lookups, before.ask_s) == (1, 1, 0.1)
    assert (after.trained, after.low_lookups, after.trials) == (2, 25, 2)
    by_hand = task.best.share(task.points[keys].to_numpy(), task.latency_ms[keys].to_numpy())
    assert after.hv == by_hand and score(task, rows, 0).hv == 0.0


def test_what_lies_and_what_fails(task):
    space, table = task.space, TableEvaluator(task.space, "pi", "pets")
    lying, untimed, untrained, honest = [space.candidate(params) for params in list(space.params())[:4]]
    faults = Faults({lying.variant: 0.2}, frozenset({untimed.variant}), frozenset({untrained.variant}))
    watched = Watched(table, task, faults, Clock(optuna.samplers.RandomSampler()))
    true = task.latency_ms
    first, second = watched.latency(lying, None), watched.confirm(lying, 200)
    assert isinstance(first, Latency) and first.percentile_ms.high == pytest.approx(0.2 * true[lying.variant])
    assert isinstance(second, Latency) and second.rank_ms.value == true[lying.variant]
    assert watched.latency(honest, None).rank_ms.value == true[honest.variant]
    assert isinstance(watched.latency(untimed, None), Failure)
    assert isinstance(watched.accuracy(untrained, 200), Failure) and watched.rows == []
    assert watched.evaluations() == 1.0, "a training that fails has its price"
    watched.accuracy(honest, 12)
    watched.accuracy(honest, 200)
    row = watched.rows[0]
    assert row.key == honest.variant and row.evaluations == pytest.approx(2.06)
    assert (row.low_lookups, row.latency_lookups) == (1, 4)


def test_faults_are_drawn_where_they_tempt(task):
    faults = faults_of(task, 10, 0.1, 3)
    assert faults == faults_of(task, 10, 0.1, 3) != faults_of(task, 10, 0.1, 4)
    assert len(faults.factors) == 10 and all(1 / 8 <= factor <= 1 / 3 for factor in faults.factors.values())
    assert (task.latency_ms[list(faults.factors)] > task.best.budget_ms).all()
    assert (task.points[list(faults.factors)] >= task.points.quantile(0.9)).all()
    assert len(faults.untimed) + len(faults.untrained) == 102 and not faults.untimed & faults.untrained


def test_a_wrong_entry_is_never_chosen(task):
    for sampler in ("budget", "random"):
        _, end = search(
            task, sampler, seed=0, limit_ms=task.best.budget_ms, marks=[40], faults=faults_of(task, 40, 0.05, 0)
        )
        assert end.choice and not end.over and not end.lied, (sampler, end)


def test_the_clock_counts_what_the_sampler_takes():
    class Slow(optuna.samplers.RandomSampler):
        def sample_independent(self, *args):
            sum(range(3_000_000))
            return super().sample_independent(*args)

    study = optuna.create_study(sampler=Slow(seed=0))
    clock = Clock(study.sampler)
    for _ in range(3):
        trial = study.ask()
        sum(range(20_000_000))  # not the sampler's
        study.tell(trial, trial.suggest_float("x", 0, 1))
    once = study.ask()
    once.suggest_float("x", 0, 1)
    study.tell(once, state=optuna.trial.TrialState.FAIL)
    assert clock.trials == 3 and 0.02 < clock.cpu_s < 1.2


def test_the_command_writes_once_what_it_found(tmp_path, capsys):
    file = write(tmp_path, 4, 3)
    words = ["--table", str(tmp_path), "--space", str(file), "--tasks", "pi/pets", "--samplers", "random", "grid"]
    words += ["--seeds", "2", "--evaluations", "10", "15", "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text(f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n")
    assert main(words) == 0 and "8 of 8" in capsys.readouterr().out
    rows = pandas.read_csv(tmp_path / "out" / "results.csv")
    assert len(rows) == 16 and rows.groupby(["mode", "sampler", "seed"]).ngroups == 8 and rows.hv.between(0, 1).all()
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| pi/pets | grid | 2 |" in text and "after 15" in text
    pictures = sorted(file.name for file in (tmp_path / "out").glob("*.png"))
    assert pictures == ["ask_budget.png", "ask_front.png", "hv.png", "regret.png"]
    assert main(words) == 0 and "of 8" not in capsys.readouterr().out, "nothing is run twice"
    assert main([*words, "--seeds", "3"]) == 0 and "4 of 4" in capsys.readouterr().out


def test_a_task_that_is_not_there_is_said_in_one_line(tmp_path, capsys):
    file = write(tmp_path, 2, 2)
    words = ["--table", str(tmp_path), "--space", str(file), "--out", str(tmp_path / "out")]
    assert main([*words, "--tasks", "moon/pets"]) == 2
    assert "no device column 'moon'" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_the_interval_of_a_mean():
    assert summary.interval([0.5] * 10) == (0.5, 0.5)
    low, high = summary.interval([0.0, 1.0] * 50)
    assert 0.35 < low < 0.45 and 0.55 < high < 0.65  # 0.5 +- 1.96 x 0.05
