"""Format the results as Markdown tables and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas

from benchmarks.compression import front, plots
from benchmarks.compression.plan import INT8, INT8_PTQ, TASKS, table_rows
from benchmarks.search_quality.summary import renew
from evaluators.measurement import standard_error

KEY = ["data", "network", "image_px", "how"]
SHORT = ("fp32", "int8 PTQ", "int8 ladder", "prune 0.5", "prune 0.5 + int8", "lowrank 0.5")
ALLOWED_POINTS = 1.0  # largest accepted loss in points, or one standard error if that is larger
JOINT = "neu_cls"
Line = dict[str, Any]


def write(out: Path, readme: Path | None) -> None:
    """Write the tables into OUT/README.md, the short table into `readme`, and the picture beside the results."""
    rows = read(out)
    lines = in_table(rows)
    parts = []
    for data, group in groupby(lines, key=lambda line: str(line["data"])):
        parts += [f"### {data}", _table(list(group))]
    parts += ["### What int8 loses", _losses(lines)]
    joint = rows[(rows.data == JOINT) & rows.rank_ms.notna()]
    if joint.how.nunique() > 1 and joint.network.nunique() > 1:
        found, origin = front.sets(joint), front.corner(joint)
        parts += [f"### All together against one technique alone, {JOINT}", _areas(found, origin), _front(found[0])]
        plots.draw(found, joint, origin, out / "front.png")
    renew(out / "README.md", "\n\n".join(parts))
    if readme is not None:
        renew(readme, _short(lines))


def read(out: Path) -> pandas.DataFrame:
    """Read all scored rows, with their latest timing if there is one; accuracies are in percent."""
    rows = pandas.read_csv(out / "results.csv")
    rows = rows[rows.failed.isna()].drop_duplicates(KEY, keep="last")
    timings = out / "timings.csv"
    columns = [*KEY, "median_ms", "p95_ms", "rank_ms", "peak_mb", "disturbed"]
    known = pandas.read_csv(timings).drop_duplicates(KEY, keep="last") if timings.exists() else rows[KEY]
    rows = rows.merge(known.reindex(columns=columns), on=KEY, how="left")
    errors = [100 * standard_error(int(c), int(n)) for c, n in zip(rows.correct, rows["count"], strict=True)]
    work = rows.groupby(["data", "network", "image_px", "prune", "lowrank"]).macs_m.transform("max")
    return rows.assign(
        test=100 * rows.correct / rows["count"], validation=100 * rows.validation, error=errors, macs_m=work
    )


def in_table(rows: pandas.DataFrame) -> list[Line]:
    """Return the rows of the tables in order."""
    known = {tuple(line[name] for name in KEY): line for line in rows.to_dict("records")}
    wanted = [row.key for task in TASKS.values() for row in table_rows(task)]
    return [{str(name): value for name, value in known[key].items()} for key in wanted if key in known]


def _table(group: Sequence[Line]) -> str:
    lines = ["| network | | test % | median ms | p95 ms | peak MB | size MB | M MACs |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|")
    for row in group:
        cells = [
            f"{row['network']} {row['image_px']}px",
            row["how"],
            f"{row['test']:.1f} ± {row['error']:.1f}",
            _number(row["median_ms"]),
            _number(row["p95_ms"]) + "\\*" * isinstance(row["disturbed"], str),
            _number(row["peak_mb"], ".0f"),
            f"{row['size_mb']:.2f}",
            _number(row["macs_m"], ".1f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    loaded = any(isinstance(row["disturbed"], str) for row in group)
    return "\n".join([*lines, *(["", "\\* other load while it was timed"] * loaded)])


def _losses(lines: Sequence[Line]) -> str:
    """Compare fp32 with int8 after the ladder, with the escalation levels that were needed."""
    told = [
        "| set | network | fp32 % | int8 PTQ loses | after the ladder | allowed | kept | what it took |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]
    for by in _networks(lines):
        if "fp32" not in by:
            continue
        plain = by["fp32"]
        allowed = max(ALLOWED_POINTS, plain["error"])
        for how in [name for name in by if name.startswith(INT8.name)]:
            lost = plain["test"] - by[how]["test"]
            own = how == INT8.name and INT8_PTQ.name in by
            cells = [
                plain["data"],
                plain["network"] + how.removeprefix(INT8.name),
                f"{plain['test']:.1f}",
                _points(plain["test"] - by[INT8_PTQ.name]["test"]) if own else "",
                _points(lost),
                f"{allowed:.1f}",
                "yes" if lost <= allowed + 1e-9 else "NO",
                _took(str(by[how]["rungs"])),
            ]
            told.append(f"| {' | '.join(cells)} |")
    return "\n".join([*told, "", "Points of test accuracy; negative where int8 has more right."])


def _networks(lines: Sequence[Line]) -> list[dict[str, Line]]:
    """Group the rows by network; each group maps treatments to rows."""
    grouped = groupby(lines, key=lambda line: (line["data"], line["network"]))
    return [{line["how"]: line for line in group} for _, group in grouped]


def _took(rungs: str) -> str:
    """Return the accepted escalation levels in order."""
    kept = [rung.removesuffix(" kept").rpartition(" ")[0] for rung in rungs.split("; ") if rung.endswith(" kept")]
    return ", ".join(kept)


def _areas(found: Sequence[front.Set], origin: front.Corner) -> str:
    lines = ["| | network | candidates | area, ms × points | of the joint | joint, as many at random |"]
    lines.append("|---|---|--:|--:|--:|--:|")
    for one in found:
        lines.append(
            f"| {one.name} | {one.network or 'all'} | {len(one.rows)} | {one.area:.2f} | "
            f"{one.area / found[0].area:.2f} | {one.joint_area:.2f} |"
        )
    return "\n".join([*lines, "", f"From the corner {origin.points:.1f} %, {origin.ms:.3g} ms."])


def _front(joint: front.Set) -> str:
    lines = ["| joint front | ms | validation % | test % |", "|---|--:|--:|--:|"]
    for row in joint.front.to_dict("records"):
        name = f"{row['network']} {row['image_px']}px {row['how']}"
        test = f"{row['test']:.1f} ± {row['error']:.1f}"
        lines.append(f"| {name} | {_number(row['rank_ms'])} | {row['validation']:.1f} | {test} |")
    return "\n".join(lines)


def _short(lines: Sequence[Line]) -> str:
    """Format one line per network."""
    told = ["| set | network | " + " | ".join(SHORT) + " |", "|---|---|" + "---|" * len(SHORT)]
    for by in _networks(lines):
        first = next(iter(by.values()))
        cells = [_cell(by[how]) if how in by else "" for how in SHORT]
        told.append(f"| {first['data']} | {first['network']} | {' | '.join(cells)} |")
    untimed = any(math.isnan(line["p95_ms"]) for line in lines)
    end = " Where one is missing, the row is scored and not yet timed, or not yet run." if untimed else ""
    return "\n".join([*told, "", f"Test accuracy with its standard error, and p95 latency.{end}"])


def _cell(line: Line) -> str:
    timed = "" if math.isnan(line["p95_ms"]) else f", {_number(line['p95_ms'])} ms"
    return f"{line['test']:.1f} ± {line['error']:.1f} %{timed}"


def _points(lost: float) -> str:
    return f"{round(lost, 1) + 0.0:.1f}"  # + 0.0 avoids a minus before zero


def _number(value: float, form: str = ".3g") -> str:
    return "" if math.isnan(value) else f"{value:{form}}"
