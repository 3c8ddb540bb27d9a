"""Draw the joint front and that of each technique alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.compression.front import Corner, Set

# Okabe and Ito, Color Universal Design, 2008
COLOURS = {
    "joint": "#D55E00",
    "pruning": "#0072B2",
    "low rank": "#CC79A7",
    "precision": "#009E73",
    "size": "#56B4E9",
    "family": "#000000",
}


def draw(found: Sequence[Set], rows: pandas.DataFrame, origin: Corner, file: Path) -> None:
    """Draw test accuracy against latency as PNG: candidates as dots, the covered area of each front as a line."""
    figure = Figure(figsize=(8.4, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(rows.rank_ms, rows.test, ".", color="#b6bcc4", markersize=5, label="every candidate", zorder=1)
    for one in reversed(found):
        _front(axes, one, origin)
    axes.plot([origin.ms], [origin.points], "x", color="#7A7A7A", label="corner")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(origin.points - 1, 100.5)
    axes.set_xlabel("latency, ms (ratio to the reference timed beside it)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(file, format="png", metadata={"Software": None})


def _front(axes: Axes, one: Set, origin: Corner) -> None:
    """Draw the step function above the area of one front."""
    front = one.front
    level = front.test.cummax()
    x = [*front.rank_ms, max(origin.ms, float(front.rank_ms.max()))]
    y = [*level, float(level.iloc[-1])]
    label = f"{one.name}{f', {one.network}' if one.network else ''}"
    ours = one.name == "joint"
    axes.step(x, y, where="post", color=COLOURS[one.name], linewidth=2.4 if ours else 1.4, label=label, zorder=2 + ours)
    axes.plot(front.rank_ms, front.test, "o", color=COLOURS[one.name], markersize=4, zorder=2 + ours)
