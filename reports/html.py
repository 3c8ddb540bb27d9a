"""Build the report as one self-contained HTML page that opens from a file and needs no network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pandas import DataFrame
from plotly.offline import get_plotlyjs

from evaluators.measurement import METRICS, OUTCOMES, SCREENED, Measurement
from reports import formatting
from reports.classes import by_class
from reports.comparison import levers, saving
from reports.recommendations import explain_saving, more_time, nearest
from reports.trial_table import rows, rows_of_screened, screened_measurements, trials
from search.result import Result

# Columns that the interactive front needs of each trial; the others are in the table and the CSV.
_DRAWN = (
    "id trial candidate outcome reason variant family image_px prune precision threads latency_ms latency_low_ms "
    "latency_high_ms rank_ms validation_score validation_score_se test_score test_score_se epochs peak_mb parameters "
    "macs onnx_bytes keeps_budget disturbed on_front chosen baseline"
)
_KEYS = ("device", "data", "provenance")


def page(result: Result) -> str:
    """Build the HTML document. All names from the run are escaped, in the text and in the embedded data."""
    records = [*_records(rows(result)), *_records(rows_of_screened(result))]
    for place, record in enumerate(records):
        record["id"] = f"look-{place}" if record["trial"] is None else f"trial-{record['trial']}"
    drawn = [{name: record[name] for name in _DRAWN.split()} for record in records]
    return _environment().get_template("report.html").render(
        result=result,
        headline=formatting.headline(result),
        trust=formatting.trust(result),
        nearest=nearest(result),
        saved=saving(result),
        axis_changes=explain_saving(result),
        levers=levers(result),
        outcomes=formatting.outcomes(result),
        outcome_names=[*OUTCOMES, *(name for name in SCREENED if any(r["outcome"] == name for r in records))],
        by_class=by_class(result),
        split=formatting.split(result),
        early=formatting.early(result),
        more_time=more_time(result),
        incidents=formatting.incidents(result),
        finalists=formatting.finalists(result),
        laddered=formatting.int8_finalists(result),
        measured=_describe_timing(result),
        trials=[record for record in records if record["trial"] is not None],
        records=records,
        metric=METRICS[result.budget.metric],
        facts={name: getattr(result, name) for name in _KEYS},
        drawn={"trials": drawn, "budget": {
            "latency_ms": result.budget.latency_ms, "peak_mb": result.budget.peak_mb,
            "percentile": result.budget.percentile,
            "metric": METRICS[result.budget.metric],
        }},
        plotly=_plotly(),
    )  # fmt: skip


def _records(frame: DataFrame) -> list[dict[str, object]]:
    return list(json.loads(frame.to_json(orient="records", double_precision=15)))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # JSON that a browser cannot read (NaN) must fail here and not in the browser
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": True}
    for name in ("ms", "number", "interval", "format_bound", "percent", "points", "duration"):
        environment.filters[name] = getattr(formatting, name)
    names = ("change", "runs_as", "accuracy_change", "latency_change", "metric_name")
    environment.globals |= {name: getattr(formatting, name) for name in names}
    return environment


@cache
def _plotly() -> Markup:
    return Markup(get_plotlyjs())  # safe: the text of the library without any data of the run


def _describe_timing(result: Result) -> dict[str, str]:
    """Describe how the timings of the run went, by label."""
    timed: list[Measurement] = [m for m in (*trials(result), *screened_measurements(result)) if m.latency is not None]
    latencies = [m.latency for m in timed if m.latency is not None]
    samples, blocks = (sum(getattr(latency, name) for latency in latencies) for name in ("samples", "blocks"))
    again = sum(1 for m in timed if m.confirmed)
    disturbed = sum(1 for latency in latencies if latency.disturbed)
    return {
        "reference model": f"{formatting.ms(result.reference_ms)} on this device when undisturbed",
        "candidates timed": f"{len(latencies)}, {again} of them again with trained weights",
        "samples": f"{samples:,} in {blocks} fresh processes",
        "blocks repeated": f"{sum(latency.repeated for latency in latencies)}, because they were disturbed",
        "still disturbed": f"{disturbed} timings" if disturbed else "none",
        "judged by": f"the upper end of the 95 % interval of p{result.budget.percentile:g}; candidates are ranked by "
        "the ratio to the reference model timed in turn with them",
    }
