"""Draw the results: a panel for each task, a line for each sampler."""

from __future__ import annotations

from pathlib import Path

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.search_quality.summary import interval

# Okabe and Ito, Color Universal Design, 2008; each sampler has a fixed colour
COLOURS = {
    "budget": "#D55E00",
    "tpe": "#0072B2",
    "tpe_default": "#56B4E9",
    "nsga2": "#009E73",
    "gp": "#CC79A7",
    "random": "#7A7A7A",
    "grid": "#000000",
}
OTHERS = "#8A6D00"  # any other sampler
LABELS = {
    "hv": "normalised hypervolume",
    "regret": "regret under the budget, points",
    "ask_ms": "sampler, CPU ms a trial so far",
}


def draw(results: pandas.DataFrame, measure: str, file: Path) -> None:
    """Draw a measure against evaluations as PNG: means, their 95 % intervals over seeds, and the worst seed dotted."""
    tasks = list(dict.fromkeys(results.task))
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    figure = Figure(figsize=(4.2 * across, 3.4 * down + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = numpy.atleast_1d(figure.subplots(down, across, sharey=measure != "regret", squeeze=False)).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, results[results.task == task], measure)
        axes.set_title(task, loc="left", fontsize=10)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel(LABELS[measure])
    for axes in panels[max(0, len(tasks) - across) : len(tasks)]:
        axes.set_xlabel("evaluations (trainings)")
    handles = {h.get_label(): h for axes in panels for h in axes.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(file, format="png", metadata={"Software": None})


def _panel(axes: Axes, rows: pandas.DataFrame, measure: str) -> None:
    for sampler in sorted(rows.sampler.unique(), key=_place, reverse=True):  # ours on top
        table = rows[rows.sampler == sampler].pivot(index="evaluations", columns="seed", values=measure).dropna()
        bounds = numpy.array([interval(line) for line in table.to_numpy()])
        colour, ours = COLOURS.get(sampler, OTHERS), sampler == "budget"
        axes.fill_between(table.index, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.18, linewidth=0)
        axes.plot(table.index, table.mean(axis=1), color=colour, linewidth=2.2 if ours else 1.4, label=sampler)
        if measure != "ask_ms":
            worst = table.min(axis=1) if measure == "hv" else table.max(axis=1)
            axes.plot(table.index, worst, ":", color=colour, linewidth=1.3 if ours else 0.8)
    if measure == "hv":
        axes.set_ylim(0.4, 1.0)
    elif measure == "regret":
        settled = rows[rows.evaluations >= 0.1 * rows.evaluations.max()]  # the first few values scatter too much
        axes.set_ylim(0.0, 1.3 * float(settled.groupby(["sampler", "evaluations"])[measure].mean().max()) + 0.1)
    else:
        axes.set_yscale("log")
    axes.set_xlim(0, None)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _place(sampler: str) -> int:
    return list(COLOURS).index(sampler) if sampler in COLOURS else len(COLOURS)
