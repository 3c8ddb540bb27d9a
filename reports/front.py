"""Every trial as one row of a table."""

from __future__ import annotations

from math import isfinite
from typing import Any

import pandas

from evaluators.measurement import Accuracy, Latency, Measurement
from search.budget import Budget
from search.result import Result

# The column's unit ends its name; accuracies are fractions. Nullable types: what was not measured is empty in the
# CSV and null in parquet and JSON, never NaN and never a whole number turned into 3.0.
_TYPES = {
    "string": "candidate outcome reason family variant precision runtime model_sha256 model_path "
    "runtime_version disturbed",
    "Int64": "trial image_px threads samples blocks repeated parameters macs onnx_bytes epochs validation_count "
    "test_count layers layers_as_asked reformats",
    "Float64": "prune percentile latency_ms latency_low_ms latency_high_ms median_ms median_low_ms "
    "median_high_ms rank_ms rank_low_ms rank_high_ms over_ms peak_mb runtime_mb load_ms parity_max_abs "
    "validation_top1 validation_se test_top1 test_se reformat_share fp32_ratio host_top1 same_answer",
    "boolean": "keeps_budget confirmed simulated on_front chosen baseline",
}
_TYPE = {name: kind for kind, names in _TYPES.items() for name in names.split()}
_FIRST = [
    "trial",
    "candidate",
    "outcome",
    "reason",
    "chosen",
    "baseline",
    "on_front",
    "family",
    "variant",
    "image_px",
    "prune",
    "precision",
    "runtime",
    "threads",
    "percentile",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "keeps_budget",
    "over_ms",
    "validation_top1",
    "validation_se",
    "test_top1",
    "test_se",
    "peak_mb",
]
COLUMNS = (*_FIRST, *(name for name in _TYPE if name not in _FIRST))


def same(one: Measurement | None, other: Measurement | None) -> bool:
    """True if both are the same trial (a finalist that was timed again is still the same one)."""
    return one is not None and other is not None and _identity(one) == _identity(other)


def trials(result: Result) -> list[Measurement]:
    """Every trial by number, in its latest state: what was confirmed and tested takes the place of what was not."""
    latest = {_identity(m): m for m in result.measurements}
    for measurement in (*result.front, result.baseline, result.choice):
        if measurement is not None:
            latest[_identity(measurement)] = measurement
    return sorted(latest.values(), key=lambda m: m.trial)


def rows(result: Result) -> pandas.DataFrame:
    """One row a trial, in order of its number; `COLUMNS` first, then one for every further compression step."""
    front = {_identity(m) for m in result.front}
    table = [
        _row(m, result.budget)
        | {
            "on_front": _identity(m) in front,
            "chosen": same(m, result.choice),
            "baseline": same(m, result.baseline),
        }
        for m in trials(result)
    ]
    steps = sorted({name for row in table for name in row} - _TYPE.keys())
    frame = pandas.DataFrame(table, columns=[*COLUMNS, *steps])
    return frame.astype({**_TYPE, **dict.fromkeys(steps, "Float64")})


def _identity(measurement: Measurement) -> tuple[int, str]:
    return measurement.trial, measurement.candidate.key()


def _row(measurement: Measurement, budget: Budget) -> dict[str, Any]:
    candidate, structure = measurement.candidate, measurement.structure
    facts: dict[str, Any] = {
        "trial": measurement.trial,
        "candidate": candidate.describe(),
        "outcome": measurement.outcome,
        "reason": measurement.reason,
        "family": candidate.family,
        "variant": candidate.variant,
        "image_px": candidate.image_px,
        "prune": 0.0,
        **dict(candidate.steps),
        "precision": candidate.precision,
        "runtime": candidate.runtime,
        "threads": candidate.threads,
        "confirmed": measurement.confirmed,
        "model_path": measurement.model_path,
    }
    if structure is not None:
        names = ("parameters", "macs", "onnx_bytes", "parity_max_abs")
        facts |= {name: getattr(structure, name) for name in names}
    if measurement.latency is not None:
        facts |= _latency(measurement.latency, budget)
    facts |= _accuracy(measurement.accuracy, "validation") | _accuracy(measurement.test, "test")
    return facts | _seen(measurement)


def _seen(measurement: Measurement) -> dict[str, Any]:
    """What the device showed of a finalist; a precision that is not told leaves its columns empty."""
    coverage, agreement = measurement.coverage, measurement.agreement
    facts: dict[str, Any] = {}
    if coverage is not None and coverage.known:
        facts |= {"layers": coverage.count, "layers_as_asked": coverage.asked, "reformats": coverage.reformats}
        facts |= {"reformat_share": coverage.reformat_share}
    if coverage is not None:
        facts |= {"fp32_ratio": coverage.fp32_ratio}
    return facts | ({"host_top1": agreement.host_top1, "same_answer": agreement.share} if agreement else {})


def _latency(latency: Latency, budget: Budget) -> dict[str, Any]:
    intervals = {
        "latency": latency.percentile_ms,
        "median": latency.median_ms,
        "rank": latency.rank_ms,
    }
    facts: dict[str, Any] = {"keeps_budget": budget.keeps(latency), "over_ms": budget.excess_ms(latency)}
    for name, interval in intervals.items():
        high = interval.high if isfinite(interval.high) else None  # too few samples for an upper bound
        facts |= {f"{name}_ms": interval.value, f"{name}_low_ms": interval.low, f"{name}_high_ms": high}
    plain = (
        "percentile peak_mb runtime_mb load_ms samples blocks repeated disturbed model_sha256 runtime_version simulated"
    )
    return facts | {name: getattr(latency, name) for name in plain.split()}


def _accuracy(accuracy: Accuracy | None, split: str) -> dict[str, Any]:
    if accuracy is None:
        return {}
    known: dict[str, Any] = {
        f"{split}_top1": accuracy.top1,
        f"{split}_se": accuracy.standard_error(),
        f"{split}_count": accuracy.count,
    }
    return known | ({"epochs": accuracy.epochs} if split == "validation" else {})
