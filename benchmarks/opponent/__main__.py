"""Compare searches with a script that an engineer would write: same data, weights, machine and minutes.

Tasks that are already in OUT/results.csv are skipped. Run it on a quiet machine: both contestants time on it.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import pandas

from benchmarks.opponent.contest import Task, contest

SHARED = Path(__file__).parents[3] / "shared"
KEYS = ["set", "budget_ms", "minutes", "seed"]


def main() -> int:
    """Run the benchmark and print a table of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["neu_cls", "casting_products"], help="folders below --data")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights")
    parser.add_argument("--script", type=Path, default=SHARED / "opponent" / "opponent.py")
    parser.add_argument("--space", default="light")
    parser.add_argument("--budgets", nargs="+", type=float, default=[1.0, 2.0], metavar="MS")
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/opponent"))
    args = parser.parse_args()
    results = args.out / "results.csv"
    rows = pandas.read_csv(results) if results.exists() else pandas.DataFrame(columns=[*KEYS, "who"])
    for seed, minutes, budget_ms, name in product(args.seeds, args.minutes, args.budgets, args.sets):
        task = Task(data=args.data / name, weights=args.weights, budget_ms=budget_ms, minutes=minutes, seed=seed)
        known = rows[(rows["set"] == name) & (rows.budget_ms == budget_ms) & (rows.minutes == minutes)]
        if (known.seed == seed).any():
            continue
        found = pandas.DataFrame(contest(task, space=args.space, file=args.script, out=args.out))
        rows = found if rows.empty else pandas.concat([rows, found], ignore_index=True)
        results.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(results, index=False)
        print(found.to_string(index=False), flush=True)
    print(rows.drop(columns="course", errors="ignore").to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
