"""Measure the accuracy cost and the latency gain of each compression technique, and of all techniques combined.

Rows in OUT/results.csv are not trained again, rows in OUT/timings.csv are not timed again; tables and picture cover all
rows in these files.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas

from benchmarks.compression import report
from benchmarks.compression.bench import Bench, bench, model, reference_ms, score, timed
from benchmarks.compression.plan import TASKS, Row, front_rows, table_rows
from evaluators.data.dataset import DataError
from remote.errors import DeviceError

SHARED = Path(__file__).parents[3] / "shared"
KEY = ["data", "network", "image_px", "how"]
STEPS = ("score", "timing", "report")
SETS = ("neu_cls", "cifar10_subset", "imagenet_val700")


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; return exit code 0 once every row is in the results."""
    args = _parser().parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = _rows(args)
    try:
        if "score" in args.only or "timing" in args.only:
            with bench(args.work, args.data, args.weights) as opened:
                if "score" in args.only:
                    _score(opened, rows, args.out / "results.csv")
                if "timing" in args.only:
                    _time(opened, rows, args.out, args.rounds)
    except (DataError, DeviceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, DataError) else 4
    if "report" in args.only:
        report.write(args.out, args.readme)
    return 0


def _rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows of the tables, uncompressed networks first, then the further rows of the joint front."""
    tasks = [TASKS[name] for name in args.sets]
    shown = sorted((row for task in tasks for row in table_rows(task)), key=lambda row: bool(row.candidate.steps))
    rows = [*shown, *(row for task in tasks for row in front_rows(task))]
    if args.networks:
        rows = [row for row in rows if row.candidate.variant in args.networks]
    return [row for row in rows if not args.rows or row.treatment.name in args.rows]


def _score(bench: Bench, rows: Sequence[Row], file: Path) -> None:
    """Score the rows that are missing from the file, and append them."""
    done = keys(file)
    wanted = [row for row in rows if row.key not in done]
    for number, row in enumerate(wanted, start=1):
        began, candidate = time.monotonic(), row.candidate
        figures = score(bench, TASKS[row.data], row)
        line = dict(zip(KEY, row.key, strict=True)) | {
            "prune": candidate.amount("prune"),
            "lowrank": candidate.amount("lowrank"),
            "precision": candidate.precision,
            "epochs": row.epochs,
            **dict.fromkeys(("macs_m", "size_mb", "validation", "correct", "count", "rungs", "failed")),
            **figures,
            "seconds": round(time.monotonic() - began, 1),
        }
        _add(file, [line])
        told = figures.get("failed") or f"{figures['correct']} of {figures['count']} right"
        print(f"{number} of {len(wanted)}: {' '.join(map(str, row.key))}: {told}, {line['seconds']} s", flush=True)


def _time(bench: Bench, rows: Sequence[Row], out: Path, rounds: int) -> None:
    """Time every network that has an untimed row, all its variants in turn."""
    file, scored = out / "timings.csv", keys(out / "results.csv", whole=True)
    done = keys(file)
    there = [row for row in rows if row.key in scored]
    yardstick_ms, restless = reference_ms(bench)
    if file.exists():
        yardstick_ms = float(pandas.read_csv(file).reference_ms.iloc[0])  # one for all, to keep latencies comparable
    print(f"reference {yardstick_ms:.3g} ms{': ' * bool(restless)}{restless}", flush=True)
    for network in dict.fromkeys((row.data, row.candidate.variant) for row in there):
        group = [row for row in there if (row.data, row.candidate.variant) == network]
        if all(row.key in done for row in group):
            continue
        models = [(model(bench, TASKS[row.data], row), row.candidate.precision) for row in group]
        latencies = timed(bench, models, yardstick_ms, rounds)
        lines = [
            dict(zip(KEY, row.key, strict=True))
            | {
                "median_ms": latency.median_ms.value,
                "p95_ms": latency.percentile_ms.value,
                "p95_low_ms": latency.percentile_ms.low,
                "p95_high_ms": latency.percentile_ms.high,
                "rank_ms": latency.rank_ms.value,
                "peak_mb": latency.peak_mb,
                "blocks": latency.blocks,
                "repeated": latency.repeated,
                "disturbed": latency.disturbed,
                "reference_ms": yardstick_ms,
            }
            for row, latency in zip(group, latencies, strict=True)
        ]
        _add(file, lines)
        disturbed = sum(bool(line["disturbed"]) for line in lines)
        print(f"timed {' '.join(network)}: {len(lines)} variants, {disturbed} disturbed", flush=True)


def keys(file: Path, whole: bool = False) -> set[tuple[str, str, int, str]]:
    """Return the keys of the rows in a file; with `whole`, without failed rows."""
    if not file.exists():
        return set()
    found = pandas.read_csv(file)
    if whole:
        found = found[found.failed.isna()]
    return set(found[KEY].itertuples(index=False, name=None))


def _add(file: Path, lines: Sequence[dict[str, object]]) -> None:
    pandas.DataFrame(lines).to_csv(file, mode="a", header=not file.exists(), index=False, float_format="%.5g")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the data sets")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of the weights")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(TASKS))
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="of these sets; all unless named")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="such as fp32 'prune 0.5 + int8'; all unless named")
    parser.add_argument("--only", nargs="+", default=list(STEPS), choices=STEPS, help="timing wants a quiet machine")
    parser.add_argument("--rounds", type=int, default=5, help="timing blocks of each variant")
    parser.add_argument("--work", type=Path, default=Path("runs/compression"), help="folder of networks and graphs")
    parser.add_argument("--readme", type=Path, help="Markdown file that gets the short table, such as docs/evidence.md")
    parser.add_argument("--out", type=Path, default=Path("runs/compression/out"), help="folder of results and README")
    return parser


if __name__ == "__main__":
    sys.exit(main())
