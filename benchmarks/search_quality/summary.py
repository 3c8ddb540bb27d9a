"""Format the results as Markdown tables: means with intervals, and the worst seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
from numpy.typing import NDArray

BEGIN, END = "<!-- results: written by the command -->", "<!-- end of results -->"
MEASURES = {"front": "hv", "budget": "regret"}
TITLES = {
    "front": "Normalised hypervolume, given a budget that excludes nothing useful (higher is better)",
    "budget": "Regret in points of accuracy under the budget (lower is better)",
}


def interval(values: Sequence[float] | NDArray[numpy.float64]) -> tuple[float, float]:
    """Compute the 95 % interval of the mean by resampling seeds (Efron, Bootstrap Methods, 1979), deterministically."""
    sample = numpy.asarray(values, dtype=float)
    drawn = numpy.random.default_rng(0).integers(len(sample), size=(2000, len(sample)))
    low, high = numpy.quantile(sample[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def markdown(results: pandas.DataFrame, marks: Sequence[int]) -> str:
    """Format all tables, one after the other."""
    parts = []
    for variant in ["", *sorted(v for v in results.faults.unique() if v)]:
        for mode, measure in MEASURES.items():
            rows = results[(results["mode"] == mode) & (results.faults == variant)]
            if not rows.empty:
                parts += [f"### {TITLES[mode]}" + (f"; {variant}" if variant else ""), _scores(rows, measure, marks)]
    ends = results[results.choice.notna()]
    return "\n\n".join([*parts, "### What it took, and the choice at the end", _costs(ends)])


def renew(readme: Path, text: str) -> None:
    """Replace the text between the marks of a README; the file is created if it is missing."""
    before = readme.read_text(encoding="utf-8") if readme.exists() else f"{BEGIN}\n{END}\n"
    head, _, rest = before.partition(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _scores(rows: pandas.DataFrame, measure: str, marks: Sequence[int]) -> str:
    """Format one line per task and sampler, with one column per number of evaluations."""
    marks = [mark for mark in marks if (rows.evaluations == mark).any()]
    lines = ["| task | sampler | seeds | " + " | ".join(f"after {mark}" for mark in marks) + " |"]
    lines += ["|---|---|--:|" + "--:|" * len(marks)]
    order = {name: pandas.Categorical(rows[name], rows[name].unique()) for name in ("task", "sampler")}
    for (task, sampler), group in rows.assign(**order).groupby(["task", "sampler"], observed=True):
        cells = [_cell(group[group.evaluations == mark][measure].to_numpy(), measure) for mark in marks]
        lines.append(f"| {task} | {sampler} | {group.seed.nunique()} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Mean [its 95 % interval], worst seed."])


def _cell(values: NDArray[numpy.float64], measure: str) -> str:
    if not len(values):
        return ""
    low, high = interval(values)
    digits, worst = (3, values.min()) if measure == "hv" else (2, values.max())
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}], {worst:.{digits}f}"


def _costs(ends: pandas.DataFrame) -> str:
    """Format look-ups and time of whole runs, and the number of wrong choices."""
    lines = [
        "| | sampler | runs | evaluations | full trainings | low fidelity | latency look-ups an evaluation, most |"
    ]
    lines[0] += (
        " trials | CPU s an ask | CPU s a run | choice over the budget | a wrong entry chosen | wrong on the front |"
    )
    lines += ["|---|---|" + "--:|" * 11]
    for (mode, faults, sampler), group in ends.groupby(["mode", "faults", "sampler"], sort=False):
        rate = group.latency_lookups / group.evaluations
        numbers = [
            f"{len(group)}",
            f"{group.evaluations.mean():.0f}",
            f"{group.trained.mean():.0f}",
            f"{group.low_lookups.mean():.0f}",
            f"{rate.mean():.1f}, {rate.max():.1f}",
            f"{group.trials.mean():.0f}",
            f"{(group.ask_s / group.trials).mean():.4f}",
            f"{group.cpu_s.mean():.1f}",
            f"{int(group.over.astype(bool).sum())}",
            f"{int(group.lied.astype(bool).sum())}" if faults else "",
            f"{int(group.front_lied.sum())}" if faults else "",
        ]
        lines.append(f"| {', '.join(filter(None, (str(mode), str(faults))))} | {sampler} | {' | '.join(numbers)} |")
    return "\n".join(lines)
