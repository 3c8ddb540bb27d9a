"""The table of trials: complete, typed, and the same when read back."""

from dataclasses import fields, replace

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import Accuracy, Agreement, Interval, Latency, Measurement, Outcome, Structure
from reports.run_report import write
from reports.trial_table import COLUMNS, rows, rows_of_screened, same, screened_measurements, trials
from search.budget import Budget
from spaces.candidate import Candidate
from spaces.operation_specs import options
from spaces.space import load, presets
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
    plain = Candidate(family="resnet", variant="resnet18", image_px=96)
    squeezed = replace(plain, steps=(("lowrank", 0.4),))
    made = [measure(c, i, Budget(latency_ms=50)) for i, c in enumerate([plain, squeezed])]
    table = rows(finished(made, Budget(latency_ms=50), tmp_path))
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


# By class: field -> the columns it is told in, where they are not simply called as it is
TOLD_AS = {
    Candidate: {"steps": ["prune", "lowrank", "sparse"], "options": sorted(options())},
    Structure: {},
    Latency: {
        "percentile_ms": ["latency_ms", "latency_low_ms", "latency_high_ms"],
        "median_ms": ["median_ms", "median_low_ms", "median_high_ms"],
        "rank_ms": ["rank_ms", "rank_low_ms", "rank_high_ms"],
        "gpu_ms": ["gpu_ms", "gpu_low_ms", "gpu_high_ms"],
    },
    Accuracy: {
        "top1": ["validation_top1", "test_top1"],
        "correct": ["validation_correct", "test_correct"],
        "count": ["validation_count", "test_count"],
        "model_sha256": ["scored_sha256"],
        "errors": ["validation_balanced", "test_balanced", "validation_macro_f1", "test_macro_f1"],
    },
    LayerPrecision: {
        "layers": ["layers", "layers_as_asked", "layers_by_precision"],
        "others": ["layers_otherwise"],
        "untold": ["layers_untold"],
    },
    Agreement: {"same": ["same_answers", "same_answer"], "count": ["answers"]},
    Measurement: {
        "candidate": ["candidate"],
        "structure": ["parameters"],
        "latency": ["latency_ms"],
        "accuracies": ["validation_score", "validation_by_epochs"],
        "test": ["test_score"],
        "coverage": ["layers"],
        "agreement": ["host_top1"],
    },
}
# Field -> why it has no column of its own
UNTOLD = {
    (Accuracy, "split"): "columns begin with it",
    (Accuracy, "rungs"): "a table of its own in report.html; the ledger has it whole",
    (Accuracy, "class_counts"): "class by class in report.html and chosen/config.json; the ledger has it whole",
    (LayerPrecision, "precision"): "the candidate's own",
}


@pytest.mark.parametrize("kind", TOLD_AS, ids=lambda kind: kind.__name__)
def test_every_field_that_is_measured_is_a_column_or_has_a_reason(kind):
    for field in fields(kind):
        told = TOLD_AS[kind].get(field.name, [field.name])
        if (kind, field.name) not in UNTOLD:
            assert set(told) <= set(COLUMNS), f"{kind.__name__}.{field.name} is in no column"


def test_what_only_some_devices_tell_is_in_the_table(tmp_path):
    result = usual(tmp_path)
    candidate = Candidate(
        family="resnet", variant="resnet18", image_px=96, steps=(("prune", 0.3),), options=(("prune_by", "taylor"),)
    )
    m = measure(candidate, 0, Budget(latency_ms=50))
    latency = replace(m.latency, gpu_ms=Interval(1.0, 0.9, 1.1), build_s=12.0, energy_mj=3.5)
    row = rows(replace(result, measurements=(replace(m, latency=latency),), front=(), choice=None, baseline=None)).loc[
        0
    ]
    assert (row.gpu_ms, row.gpu_high_ms, row.build_s, row.energy_mj) == (1.0, 1.1, 12.0, 3.5)
    assert row.prune_by == "taylor" and row.prune_where == options()["prune_where"].default
    assert row.validation_by_epochs.startswith("0:") and row.exporter == "torchscript"


def test_what_was_measured_and_is_no_trial_has_its_rows(tmp_path):
    """Timed only, tried briefly, failed: in looks.csv, without a number; trials.csv has the trials alone."""
    result = usual(tmp_path)
    tried = {m.candidate for m in result.measurements}
    fresh = [c for c in candidates(80, 7) if c not in tried][:3]
    timed, brief, broken = (replace(measure(c, -1, result.budget), accuracies=()) for c in fresh)
    brief = replace(
        brief,
        accuracies=measure(
            Candidate(family="resnet", variant="resnet18", image_px=96), 0, Budget(latency_ms=50)
        ).accuracies[:1],
    )
    broken = Measurement(candidate=broken.candidate, outcome=Outcome.FAILED, reason="latency, crashed: signal 4")
    again = replace(result.measurements[0], trial=-1)
    result = replace(result, screened=(timed, brief, broken, again))
    assert len(screened_measurements(result)) == 3, "what became a trial after all is one row"
    assert len(rows(result)) == len(result.measurements)
    last = rows_of_screened(result)
    assert list(last.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert list(last.outcome) == [Outcome.TIMED_ONLY, Outcome.TRIED_BRIEFLY, Outcome.FAILED] and last.trial.isna().all()
    assert last.latency_ms.notna().tolist() == [True, True, False]
    assert not last.on_front.any() and not last.chosen.any()
    write(result, tmp_path)
    assert "tried briefly" in (tmp_path / "report.html").read_text()
    assert list(pandas.read_csv(tmp_path / "looks.csv").outcome) == list(last.outcome)
    assert len(pandas.read_csv(tmp_path / "trials.csv")) == len(result.measurements)


@pytest.mark.parametrize("preset", presets())
def test_no_two_candidates_of_a_space_have_one_name(preset):
    """Of at most a thousand of each, in two runtimes."""
    space = load(preset)
    some = [space.candidate(point) for point in list(space.params())[::7][:1000]]
    both = {replace(c, runtime=runtime) for c in some for runtime in ("onnxruntime", "openvino")}
    assert len({c.describe() for c in both}) == len(both)


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(0, 30), seed=st.integers(0, 999), limit=st.floats(0.05, 60), peak=st.none() | st.floats(20, 300)
)
def test_rows_hold_for_any_run(tmp_path_factory, count, seed, limit, peak):
    budget = Budget(latency_ms=limit, percentile=90.0, peak_mb=peak)
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
