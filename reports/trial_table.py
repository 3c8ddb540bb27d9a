"""Build tables of all measurements of a run: one row per trial, and one per screened candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite

import pandas

from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import (
    BALANCED,
    MACRO_F1,
    TOP1,
    Accuracy,
    Agreement,
    Interval,
    Latency,
    Measurement,
    Outcome,
    Structure,
)
from search.budget import Budget
from search.result import Result
from spaces.candidate import Candidate
from spaces.family_files import label
from spaces.operation_specs import operations, options

# A column's name ends in its unit; accuracies are fractions. The types are nullable: a missing measurement is empty in
# the CSV and null in parquet and JSON, never NaN, and whole numbers never become 3.0.
_TYPES = {
    "string": "candidate outcome reason family variant precision runtime model_sha256 model_path runtime_version "
    "disturbed exporter rounded_to unfolded metric scored_sha256 validation_by_epochs layers_by_precision "
    "layers_otherwise layers_untold host",
    "Int64": "trial image_px threads samples blocks repeated parameters macs onnx_bytes opset granularity epochs "
    "validation_count validation_correct test_count test_correct layers layers_as_asked reformats same_answers "
    "answers",
    "Float64": "percentile latency_ms latency_low_ms latency_high_ms median_ms median_low_ms median_high_ms rank_ms "
    "rank_low_ms rank_high_ms reference_ms gpu_ms gpu_low_ms gpu_high_ms over_ms peak_mb runtime_mb load_ms build_s "
    "energy_mj "
    "parity_max_abs reformat_share other_share fp32_ratio device_top1 host_top1 same_answer",
    "boolean": "keeps_budget confirmed simulated relaid on_front chosen baseline",
}
_SCORES = {TOP1: "top1", BALANCED: "balanced", MACRO_F1: "macro_f1"}  # metric -> its name in column names
_SPLITS = ("validation", "test")
_ORDER = (
    "trial candidate outcome reason chosen baseline on_front family variant image_px prune precision runtime threads "
    "percentile latency_ms latency_low_ms latency_high_ms keeps_budget over_ms metric validation_score "
    "validation_score_se test_score test_score_se validation_top1 validation_se test_top1 test_se peak_mb"
)
_FIRST = _ORDER.split()


def _kinds() -> dict[str, str]:
    """Return the type of every column, including those of compression operations and their options."""
    kinds = {name: kind for kind, names in _TYPES.items() for name in names.split()}
    kinds |= dict.fromkeys(operations(), "Float64") | dict.fromkeys(options(), "string")
    for split in _SPLITS:
        kinds |= dict.fromkeys((f"{split}_score", f"{split}_score_se"), "Float64")
        for metric, name in _SCORES.items():
            kinds |= dict.fromkeys((f"{split}_{name}", _error_column(split, metric)), "Float64")
    return kinds


def _error_column(split: str, metric: str) -> str:
    return f"{split}_se" if metric == TOP1 else f"{split}_{_SCORES[metric]}_se"


_TYPE = _kinds()
COLUMNS = (*_FIRST, *(name for name in _TYPE if name not in _FIRST))


def same(one: Measurement | None, other: Measurement | None) -> bool:
    """Return whether two measurements belong to the same trial.

    Args:
        one: A measurement, or None, which equals nothing.
        other: Another one; a remeasured finalist still belongs to the same trial.
    """
    return one is not None and other is not None and _identity(one) == _identity(other)


def trials(result: Result) -> list[Measurement]:
    """Return every trial by number in its latest state: a confirmed and tested measurement replaces an earlier one."""
    latest = {_identity(m): m for m in result.measurements}
    for measurement in (*result.front, result.baseline, result.choice):
        if measurement is not None:
            latest[_identity(measurement)] = measurement
    return sorted(latest.values(), key=lambda m: m.trial)


def screened_measurements(result: Result) -> list[Measurement]:
    """Return the measurements of candidates that never became trials, with outcomes for screened candidates."""
    tried = {m.candidate for m in trials(result)}
    return [_as_screened(m) for m in result.screened if m.candidate not in tried]


def rows(result: Result) -> pandas.DataFrame:
    """Return one row per trial, in order of its number.

    `COLUMNS` come first, then one column per compression step that has no file in `spaces/operations/`.
    """
    return _table(result, trials(result))


def rows_of_screened(result: Result) -> pandas.DataFrame:
    """Return one row per screened candidate, without a trial number, in the columns of `rows`."""
    return _table(result, screened_measurements(result))


def _table(result: Result, measurements: Sequence[Measurement]) -> pandas.DataFrame:
    front = {_identity(m) for m in result.front}
    table = [
        _row(m, result.budget)
        | {
            "on_front": _identity(m) in front,
            "chosen": same(m, result.choice),
            "baseline": same(m, result.baseline),
        }
        for m in measurements
    ]
    steps = sorted({name for row in table for name in row} - _TYPE.keys())
    frame = pandas.DataFrame(table, columns=[*COLUMNS, *steps])
    return frame.astype({**_TYPE, **dict.fromkeys(steps, "Float64")})


def _as_screened(measurement: Measurement) -> Measurement:
    if measurement.latency is None:  # a failure keeps its outcome, whether it is a trial or not
        return measurement
    outcome = Outcome.TRIED_BRIEFLY if measurement.accuracies else Outcome.TIMED_ONLY
    return replace(measurement, outcome=outcome)


def _identity(measurement: Measurement) -> tuple[int, str]:
    return measurement.trial, measurement.candidate.key()


def _row(measurement: Measurement, budget: Budget) -> dict[str, object]:
    facts: dict[str, object] = {
        "trial": measurement.trial if measurement.trial >= 0 else None,
        "outcome": str(measurement.outcome),
        "reason": measurement.reason,
        "confirmed": measurement.confirmed,
        "model_path": measurement.model_path,
        **_candidate(measurement.candidate),
        **_accuracy(measurement.accuracy, "validation"),
        **_accuracy(measurement.test, "test"),
    }
    if measurement.accuracies:
        facts["validation_by_epochs"] = _pairs((a.epochs, f"{a.score:.4f}") for a in measurement.accuracies)
    if measurement.structure is not None:
        facts |= _structure(measurement.structure)
    if measurement.latency is not None:
        facts |= _latency(measurement.latency, budget)
    if measurement.coverage is not None:
        facts |= _coverage(measurement.coverage)
    return facts | (_agreement(measurement.agreement) if measurement.agreement else {})


def _candidate(candidate: Candidate) -> dict[str, object]:
    """Return the candidate's fields; an unnamed option of an applied step has its default."""
    steps = {"prune": 0.0} | dict(candidate.steps)
    named = dict(candidate.options)
    chosen = {axis: named.get(axis, of.default) for axis, of in options().items() if steps.get(of.operation)}
    return {
        "candidate": candidate.describe(),
        "family": label(candidate.family),
        "variant": candidate.variant,
        "image_px": candidate.image_px,
        **steps,
        **chosen,
        "precision": candidate.precision,
        "runtime": candidate.runtime,
        "threads": candidate.threads,
    }


def _structure(structure: Structure) -> dict[str, object]:
    names = "parameters macs onnx_bytes parity_max_abs exporter opset granularity rounded_to unfolded"
    return {name: getattr(structure, name) for name in names.split()}


def _latency(latency: Latency, budget: Budget) -> dict[str, object]:
    facts: dict[str, object] = {"keeps_budget": budget.keeps(latency), "over_ms": budget.excess_ms(latency)}
    facts |= _interval("latency", latency.percentile_ms) | _interval("median", latency.median_ms)
    facts |= _interval("rank", latency.rank_ms) | (_interval("gpu", latency.gpu_ms) if latency.gpu_ms else {})
    plain = (
        "percentile peak_mb runtime_mb load_ms samples blocks repeated disturbed model_sha256 runtime_version "
        "simulated build_s energy_mj reference_ms"
    )
    return facts | {name: getattr(latency, name) for name in plain.split()}


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    high = interval.high if isfinite(interval.high) else None  # inf: too few samples for an upper bound
    return {f"{name}_ms": interval.value, f"{name}_low_ms": interval.low, f"{name}_high_ms": high}


def _accuracy(accuracy: Accuracy | None, split: str) -> dict[str, object]:
    if accuracy is None:
        return {}
    known: dict[str, object] = {f"{split}_count": accuracy.count, f"{split}_correct": accuracy.correct}
    known |= {f"{split}_score": accuracy.score, f"{split}_score_se": accuracy.score_error()}
    for metric, name in _SCORES.items():
        if metric == TOP1 or accuracy.confusion:
            known[f"{split}_{name}"] = accuracy.value_of(metric)
            known[_error_column(split, metric)] = accuracy.error_of(metric)
    if split == "test":
        return known
    own = {"epochs": accuracy.epochs, "relaid": accuracy.relaid, "metric": accuracy.metric}
    own |= {"unfolded": accuracy.unfolded} if accuracy.unfolded else {}  # otherwise the value of the structure holds
    return known | own | {"scored_sha256": accuracy.model_sha256}


def _coverage(coverage: LayerPrecision) -> dict[str, object]:
    """Return the precisions of a finalist's layers; columns stay empty if the runtime does not report them."""
    facts: dict[str, object] = {"fp32_ratio": coverage.fp32_ratio, "layers_untold": coverage.untold}
    if not coverage.known:
        return facts
    return facts | {
        "layers": coverage.count,
        "layers_as_asked": coverage.asked,
        "layers_by_precision": _pairs(coverage.layers),
        "layers_otherwise": _pairs(coverage.others),
        "reformats": coverage.reformats,
        "reformat_share": coverage.reformat_share,
        "other_share": coverage.other_share,
    }


def _agreement(agreement: Agreement) -> dict[str, object]:
    return {
        "same_answers": agreement.same,
        "answers": agreement.count,
        "same_answer": agreement.share,
        "device_top1": agreement.device_top1,
        "host_top1": agreement.host_top1,
        "host": agreement.host,
    }


def _pairs(pairs: Sequence[tuple[object, object]] | Iterator[tuple[object, object]]) -> str:
    """Return `int8:40 fp32:20`."""
    return " ".join(f"{'untold' if name == '' else name}:{value}" for name, value in pairs)
