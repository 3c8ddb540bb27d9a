"""The table of trials: complete, typed, and the same when read back."""

from dataclasses import replace

import pandas
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.front import COLUMNS, rows, same, trials
from reports.write import write
from search.budget import Budget
from spaces.candidate import Candidate
from tests.reports.conftest import candidates, finished, measure, usual


def test_a_row_a_trial_with_every_column(result):
    table = rows(result)
    assert list(table["trial"]) == [m.trial for m in result.measurements]
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert table["chosen"].sum() == (result.choice is not None)
    assert table["baseline"].sum() == (result.baseline is not None)
    assert table["on_front"].sum() == len(result.front)


def test_a_row_says_what_was_measured(tmp_path):
    result = usual(tmp_path)
    row = rows(result).set_index("trial").loc[result.choice.trial]
    latency, accuracy = result.choice.latency, result.choice.accuracy
    assert (row.latency_ms, row.latency_low_ms, row.latency_high_ms) == (
        latency.percentile_ms.value, latency.percentile_ms.low, latency.percentile_ms.high,
    )  # fmt: skip
    assert row.percentile == 95 and row.peak_mb == latency.peak_mb and row.samples == latency.samples
    assert row.rank_ms == latency.rank_ms.value and row.rank_high_ms == latency.rank_ms.high
    assert row.validation_top1 == accuracy.top1 and row.validation_se == accuracy.standard_error()
    assert row.test_top1 == result.choice.test.top1 and row.epochs == 3
    assert row.keeps_budget and row.over_ms < 0 and row.chosen and not row.baseline
    assert row.prune == result.choice.candidate.amount("prune")


def test_a_finalist_says_what_really_ran(tmp_path):
    result = usual(tmp_path)
    row = rows(result).set_index("trial").loc[result.choice.trial]
    assert (row["layers"], row["layers_as_asked"], row["reformats"]) == (60, 40, 31)
    assert (row["reformat_share"], row["fp32_ratio"]) == (0.19, 1.13)
    agreement = result.choice.agreement
    assert (row["host_top1"], row["same_answer"]) == (agreement.host_top1, agreement.share)


def test_what_was_not_measured_is_empty_not_zero(tmp_path):
    table = rows(usual(tmp_path)).set_index("trial")
    failed = table[table.outcome == "failed"]
    assert len(failed) > 0
    assert failed[["latency_ms", "peak_mb", "validation_top1", "test_top1", "keeps_budget"]].isna().all(axis=None)
    assert str(table["threads"].dtype) == "Int64" and str(table["keeps_budget"].dtype) == "boolean"


def test_a_new_compression_step_gets_its_column(tmp_path):
    plain = Candidate("resnet", "resnet18", 96)
    squeezed = replace(plain, steps=(("lowrank", 0.4),))
    made = [measure(c, i, Budget(50)) for i, c in enumerate([plain, squeezed])]
    table = rows(finished(made, Budget(50), tmp_path))
    assert table["lowrank"].isna().tolist() == [True, False] and table["lowrank"][1] == 0.4


def test_a_finalist_shows_its_second_timing(tmp_path):
    """Measurements may still hold the first one; the choice carries the confirmed."""
    result = usual(tmp_path)
    slower = replace(result.choice, latency=replace(result.choice.latency, peak_mb=77.0))
    result = replace(result, choice=slower)
    assert rows(result).set_index("trial").loc[slower.trial].peak_mb == 77.0
    assert len(trials(result)) == len(result.measurements)


def test_a_baseline_that_was_no_trial_is_still_shown(tmp_path):
    result = usual(tmp_path)
    rest = tuple(m for m in result.measurements if not same(m, result.baseline))
    table = rows(replace(result, measurements=rest))
    assert len(table) == len(rest) + 1 and table["baseline"].sum() == 1


def test_files_read_back_as_they_were(result):
    write(result, result.folder)
    table = rows(result)
    parquet = pandas.read_parquet(result.folder / "trials.parquet", dtype_backend="numpy_nullable")
    pandas.testing.assert_frame_equal(parquet, table, check_dtype=False)
    assert parquet.dtypes["trial"] == "Int64"
    text = {name: "string" for name, kind in table.dtypes.items() if kind == "string"}
    numbers = {name: [""] for name in table if name not in text}
    read = pandas.read_csv(result.folder / "trials.csv", dtype=text, keep_default_na=False, na_values=numbers)
    assert list(read.columns) == list(table.columns) and len(read) == len(table)
    for name in ("candidate", "reason", "variant"):
        assert list(read[name]) == list(table[name])
    for name in ("latency_ms", "validation_top1", "peak_mb"):
        pandas.testing.assert_series_equal(read[name].astype("Float64"), table[name])


def test_front_csv_is_the_front_fastest_first(tmp_path):
    result = usual(tmp_path)
    write(result, tmp_path)
    front = pandas.read_csv(tmp_path / "front.csv")
    assert list(front.trial) == [m.trial for m in result.front]
    assert front.rank_ms.is_monotonic_increasing


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(0, 30), seed=st.integers(0, 999), limit=st.floats(0.05, 60), peak=st.none() | st.floats(20, 300)
)
def test_rows_hold_for_any_run(tmp_path_factory, count, seed, limit, peak):
    budget = Budget(limit, 90.0, peak)
    made = [measure(c, i, budget) for i, c in enumerate(candidates(count, seed))]
    result = finished(made, budget, tmp_path_factory.getbasetemp())
    table = rows(result)
    assert len(table) == count
    within = table[table.keeps_budget.fillna(False)]
    assert (within.latency_high_ms <= limit).all() and (within.over_ms <= 0).all()
    assert table.loc[table.chosen, "keeps_budget"].all()
    assert (
        not table.drop(columns=[]).select_dtypes("Float64").map(lambda v: v is not pandas.NA and v != v).any(axis=None)
    )
