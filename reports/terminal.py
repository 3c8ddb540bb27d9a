"""Summarise the end of a run in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evaluators.measurement import TOP1, Measurement
from remote.link.reply_parsing import printable
from reports.comparison import saving
from reports.formatting import (
    accuracy_change,
    duration,
    early,
    headline,
    incidents,
    interval,
    latency_change,
    metric_name,
    number,
    outcomes,
    runs_as,
    split,
    trust,
)
from reports.recommendations import more_time, nearest
from reports.trial_table import same
from search.result import Result


def summary(result: Result) -> Group:
    """Summarise a run for 80 columns: finding, front, comparison, time and paths of the files.

    Args:
        result: The result of the run, after its report was written.

    Returns:
        Renderables of rich.
    """
    parts: list[RenderableType] = [_text(headline(result), style="bold green" if result.choice else "bold red")]
    parts += [_text(line, style="yellow") for line in trust(result)]
    if near := nearest(result):
        parts.append(_text(f"nearest: {near}"))
    if result.front:
        parts.append(_front(result))
    parts.append(_facts(result))
    parts += [_text(f"warning: {line}", style="yellow") for line in result.warnings]
    return Group(*parts)


def _text(text: str, style: str = "") -> Text:
    """Return text that may contain a user's names: markup is not read, and control characters are written out."""
    return Text(printable(text), style=style)


def _front(result: Result) -> Table:
    shown = list(result.front)
    shown += [m for m in (result.choice, result.baseline) if m is not None and not any(same(m, one) for one in shown)]
    shown.sort(key=lambda m: m.latency.percentile_ms.value if m.latency else 0.0)
    table = Table(title="front  (* chosen, b greedy baseline)", title_justify="left", box=None, pad_edge=False)
    table.add_column("", width=1)
    table.add_column("candidate", overflow="fold")
    if result.budget.metric != TOP1:
        table.title = f"{table.title}; val and test: {metric_name(result.budget.metric)}"
    for name in (f"p{result.budget.percentile:g} ms", "val %", "test %", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for measurement in dict.fromkeys(shown):
        table.add_row(*_cells(result, measurement), style=_style(result, measurement))
    return table


def _cells(result: Result, m: Measurement) -> list[Text]:
    mark = "*" if same(m, result.choice) else "b" if same(m, result.baseline) else ""
    latency = interval(m.latency.percentile_ms) if m.latency else "–"
    peak = f"{m.latency.peak_mb:.0f}" if m.latency else "–"
    accuracies = [f"{100 * a.score:.1f}" if a else "–" for a in (m.accuracy, m.test)]
    return [_text(cell) for cell in (mark, m.candidate.describe(), latency, *accuracies, peak)]


def _style(result: Result, m: Measurement) -> str:
    if same(m, result.choice):
        return "bold green"
    return "dim" if m.latency and not result.budget.keeps(m.latency) else ""


def _facts(result: Result) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(result):
        if text:
            table.add_row(name, _text(text))
    return table


def _lines(result: Result) -> list[tuple[str, str]]:
    saved = saving(result)
    gained = ""
    if saved and not saved.is_baseline:
        lost, metric = saved.test_lost, result.budget.metric
        gained = (
            f"latency {latency_change(saved.latency_saved)}, "
            f"memory x {number(saved.memory_ratio)}"
            + (f", size x {number(saved.size_ratio)}" if saved.size_ratio is not None else "")
            + (f", {accuracy_change(lost, saved.test_lost_se, metric)}" if lost is not None else "")
        )
    ended = ", ".join(f"{count} {outcome}" for outcome, count, _ in outcomes(result) if count)
    spent = ", ".join(f"{kind} {share:.0%}" for kind, _, share in split(result))
    return [
        ("against b", gained),
        ("trials", ended),
        ("", early(result)),
        ("precision", runs_as(result.choice) if result.choice else ""),
        ("device", ", ".join(f"{kind}: {count}" for kind, count in incidents(result))),
        ("time", f"{duration(result.seconds.wall)}: {spent}"),
        ("more time", more_time(result)),
        ("report", str(result.folder / "report.html")),
        ("model", str(result.folder / "chosen") if result.choice and result.choice.model_path else ""),
    ]
