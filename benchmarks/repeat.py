"""Run the same search twice, and once more beside two busy loops: `python benchmarks/repeat.py OUT`.

The output has the two choices with their intervals. For the loaded run it has the report's verdict on disturbances and
the rank correlation of the latencies of the candidates that it shares with the calm run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas
from scipy.stats import spearmanr

BUSY = "while True: pass"


def search(out: Path, words: list[str]) -> pandas.DataFrame:
    """Run one search and return its trials."""
    command = [sys.executable, "-m", "search.run", *words, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return pandas.read_csv(out / "trials.csv")


def chosen(trials: pandas.DataFrame) -> str:
    """Describe the choice with its interval in one line."""
    row = trials[trials.chosen]
    if row.empty:
        return "nothing"
    c = row.iloc[0]
    name = f"{c.variant} {c.image_px}px prune {c.prune:g} {c.precision}"
    return f"{name}: p95 {c.latency_ms:.3f} [{c.latency_low_ms:.3f}, {c.latency_high_ms:.3f}] ms"


def main() -> int:
    """Run the benchmark; return exit code 0 if choices overlap, the load was reported and ranks correlate to 0.9."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the three runs")
    parser.add_argument("--trials", default="16")
    args, more = parser.parse_known_args()
    words = [
        "--budget-ms",
        "0.15",
        "--rungs",
        "0,1",
        "--trials",
        args.trials,
        "--cache",
        str(args.out / "cache"),
        *more,
    ]
    calm = [search(args.out / name, words) for name in ("calm-1", "calm-2")]
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        loaded = search(args.out / "loaded", words)
    finally:
        for loop in loops:
            loop.kill()
    first, second = (trials[trials.chosen].iloc[0] for trials in calm)
    overlap = first.latency_low_ms <= second.latency_high_ms and second.latency_low_ms <= first.latency_high_ms
    for name, trials in zip(("calm", "calm again", "loaded"), (*calm, loaded), strict=True):
        disturbed = int(trials.disturbed.notna().sum())
        print(f"{name}: {chosen(trials)}; {disturbed} of {len(trials)} trials disturbed")
    key = ["variant", "image_px", "prune", "precision"]
    both = calm[0].merge(loaded, on=key, suffixes=("", "_loaded")).dropna(subset=["rank_ms", "rank_ms_loaded"])
    ranks = spearmanr(both.rank_ms, both.rank_ms_loaded).statistic
    said = "Disturbed: " in (args.out / "loaded" / "report.html").read_text(encoding="utf-8")
    print(f"choices {'overlap' if overlap else 'DIFFER'}; the loaded report says disturbed: {said}")
    print(f"rank correlation calm against loaded: {ranks:.3f} over {len(both)} shared candidates")
    return 0 if overlap and said and ranks >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
