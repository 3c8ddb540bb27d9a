"""Draw the front as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from evaluators.measurement import METRICS, Measurement
from reports.formatting import shorten
from reports.trial_table import same, screened_measurements, trials
from search.result import Result

_KEPT, _FRONT, _CHOSEN, _BASELINE, _OVER = "#8c96a3", "#0f6cbd", "#c2410c", "#6b21a8", "#9aa3ad"
_LIMIT = "#b42318"


def draw(result: Result, file: Path) -> None:
    """Draw accuracy against latency as PNG, with intervals, budget, front, choice and baseline.

    Args:
        result: The result of the run.
        file: Path of the PNG file.
    """
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tried = [m for m in trials(result) if m.latency is not None]
    scored = [m for m in tried if m.accuracy is not None]
    looked = [m for m in screened_measurements(result) if m.latency is not None]
    timed = [*tried, *looked]
    _limits(axes, timed, scored, result.budget.latency_ms)
    _budget(axes, result)
    _points(axes, [m for m in scored if not any(same(m, f) for f in result.front)], _KEPT, "measured")
    _line(axes, result.front)
    _points(axes, result.front, _FRONT, "front")
    _rug(axes, [*(m for m in tried if m.accuracy is None), *looked])
    if not same(result.baseline, result.choice):
        _name(
            axes,
            result.baseline,
            marker="D",
            colour=_BASELINE,
            what="baseline",
            lift=26 if _close(axes, result) else 12,
        )
    _name(axes, result.choice, marker="*", colour=_CHOSEN, what="chosen", lift=12)
    axes.set_xlabel(f"p{result.budget.percentile:g} latency on {result.device.get('name', 'the device')}, ms")
    axes.set_ylabel(f"validation {METRICS[result.budget.metric]}, %")
    axes.set_title(
        f"{len(timed)} candidates timed, {len(scored)} scored; budget {result.budget.describe()}\n"
        "bars: 95 % interval of latency, one standard error of accuracy",
        loc="left", fontsize=9.5, parse_math=False,
    )  # fmt: skip
    if not timed:
        axes.text(0.5, 0.5, "no candidate was timed", transform=axes.transAxes, ha="center", color=_OVER)
    axes.grid(True, which="major", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=9)
    with warnings.catch_warnings():  # characters that the font lacks become boxes without a warning
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": "edgefront"})


def _limits(axes: Axes, timed: Sequence[Measurement], scored: Sequence[Measurement], budget_ms: float) -> None:
    ends = [budget_ms]
    for measurement in timed:
        assert measurement.latency is not None
        estimate = measurement.latency.percentile_ms
        ends += [estimate.low, estimate.high if isfinite(estimate.high) else estimate.value]
    low, high = max(min(ends), max(ends) / 1e4), max(ends)
    if high > 10 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.25, high * 1.25)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(max(0.0, low - 0.1 * (high - low) - 0.01 * high), high + 0.1 * (high - low) + 0.01 * high)
    # the range of the shown scores, with room for the names above and the rug below
    axes.yaxis.set_major_formatter(FuncFormatter(lambda score, _: f"{score:g}" if 0 <= score <= 100 else ""))
    tops = [100 * m.accuracy.score for m in scored if m.accuracy] or [0.0, 100.0]
    room = max(1.0, max(tops) - min(tops))
    axes.set_ylim(min(tops) - 0.18 * room, max(tops) + 0.16 * room)


def _budget(axes: Axes, result: Result) -> None:
    limit = result.budget.latency_ms
    axes.axvspan(limit, axes.get_xlim()[1], color=_LIMIT, alpha=0.06, linewidth=0)
    axes.axvline(limit, color=_LIMIT, linewidth=1.4, label=f"budget {limit:g} ms")


def _points(axes: Axes, measurements: Sequence[Measurement], colour: str, label: str) -> None:
    if not measurements:
        return
    x, y, left, right, error = [], [], [], [], []
    for m in measurements:
        assert m.latency is not None and m.accuracy is not None
        estimate = m.latency.percentile_ms
        x.append(estimate.value)
        y.append(100 * m.accuracy.score)
        left.append(max(0.0, estimate.value - estimate.low))
        right.append(max(0.0, estimate.high - estimate.value) if isfinite(estimate.high) else 0.0)
        error.append(100 * m.accuracy.score_error())
    axes.errorbar(
        x, y, xerr=[left, right], yerr=error, fmt="o", markersize=5, color=colour, ecolor=colour, elinewidth=0.9,
        alpha=0.9, label=label,
    )  # fmt: skip


def _line(axes: Axes, front: Sequence[Measurement]) -> None:
    """Draw the front of latency and accuracy alone; points on the front for their memory only lie below the line."""
    best, x, y = -1.0, [], []
    for m in sorted(front, key=lambda m: m.latency.percentile_ms.value if m.latency else 0.0):
        assert m.latency is not None and m.accuracy is not None
        if m.accuracy.score > best:
            best = m.accuracy.score
            x.append(m.latency.percentile_ms.value)
            y.append(100 * best)
    axes.step(x, y, where="post", color=_FRONT, linewidth=1.2, alpha=0.6)


def _rug(axes: Axes, unscored: Sequence[Measurement]) -> None:
    if not unscored:
        return
    x = [m.latency.percentile_ms.value for m in unscored if m.latency]
    place = axes.get_xaxis_transform()  # x in ms, y as a fraction of the axis
    axes.plot(
        x,
        [0.025] * len(x),
        "|",
        transform=place,
        color=_OVER,
        markersize=11,
        alpha=0.6,
        label="timed, never trained in full",
    )


def _close(axes: Axes, result: Result) -> bool:
    """Return whether the names of choice and baseline would be at the same height."""
    accuracies = [m.accuracy.score for m in (result.choice, result.baseline) if m and m.accuracy]
    low, high = axes.get_ylim()
    return len(accuracies) == 2 and 100 * abs(accuracies[0] - accuracies[1]) < 0.05 * (high - low)


def _name(axes: Axes, m: Measurement | None, marker: str, colour: str, what: str, lift: float) -> None:
    if m is None or m.latency is None or m.accuracy is None:
        return
    x, y = m.latency.percentile_ms.value, 100 * m.accuracy.score
    size = 17 if marker == "*" else 9
    axes.plot(x, y, marker, color=colour, markersize=size, markeredgecolor="white", zorder=5, label=what)
    across = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
    # no point lies above and left of a front, so a name hides nothing there if it has enough room
    shift, side = (-9, "right") if across > 0.45 else (9, "left")
    axes.annotate(
        f"{what}: {shorten(m.candidate.describe(), 60)}", (x, y), xytext=(shift, lift), ha=side, va="center",
        textcoords="offset points", fontsize=9, fontweight="bold", color=colour, zorder=6, parse_math=False,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )  # fmt: skip
