"""Compare our sampler with TPE on a real data set, with equal stages: `python benchmarks/samplers_on_device.py OUT`.

The runs of the product are interleaved by seed. Each starts from its own empty run folder, with the parents trained
before. A run's hypervolume is that of its complete trials so far (validation accuracy, latency); its reference point is
the budget and the median accuracy of TPE's complete trials. The result is the time in seconds until a run reaches the
final hypervolume of TPE under the same seed, as a share of the seconds that TPE needed for it, and as a share of TPE's
whole run; last comes the same share from other reference points.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.bayesopt.acquisition import ReferencePoint, hypervolume
from spaces.candidate import Candidate

SAMPLERS = ("tpe", "budget")
MEDIAN = 0.5
CORNERS = (0.0, 0.25, MEDIAN)  # quantiles of the accuracies of TPE's complete trials


@dataclass(frozen=True)
class Kept:
    """Hold the complete trials of one run, in order.

    Attributes:
        at_s: Time since the begin of the run, in seconds.
        accuracy: Validation accuracy, 0..1.
        latency_ms: Latency in ms.
    """

    at_s: numpy.ndarray
    accuracy: numpy.ndarray
    latency_ms: numpy.ndarray

    def reached(self, goal: ReferencePoint) -> numpy.ndarray:
        """Compute the hypervolume after each trial."""
        parts = range(1, len(self.at_s) + 1)
        return numpy.array([hypervolume(self.accuracy[:n], self.latency_ms[:n], goal) for n in parts])


def search(out: Path, words: list[str]) -> Kept:
    """Run one search of the product, or read the finished run of an earlier call."""
    if not (out / "trials.csv").exists():
        command = [sys.executable, "-m", "search.run", *words, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return kept(out)


def kept(folder: Path) -> Kept:
    """Read the complete trials, each with the second at which its last accuracy was on disk."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    last_s: dict[str, float] = {}
    for entry in entries:
        if entry["stage"] == "accuracy":
            key = entry["key"].partition("@")[0]
            last_s[key] = max(last_s.get(key, 0.0), entry["at_s"])
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    trials = optuna.load_study(study_name="edgefront", storage=storage).get_trials(states=[TrialState.COMPLETE])
    rows = []
    for trial in trials:
        key = Candidate.from_dict(trial.user_attrs["candidate"]).key()
        rows.append((last_s[key], trial.values[0], trial.values[1]))
    return Kept(*numpy.array(sorted(rows)).reshape(-1, 3).T)


def compared(tpe: Kept, ours: Kept, goal: ReferencePoint) -> tuple[float, str]:
    """Return the share of TPE's run after which ours reaches TPE's final hypervolume, and a one-line description."""
    if not len(tpe.at_s):
        sys.exit("TPE kept nothing, so there is nothing to reach: give it more time")
    target = tpe.reached(goal)[-1]
    needed, took = (run.at_s[run.reached(goal) >= target - 1e-12] for run in (tpe, ours))
    took_s, whole_s = float(took[0]) if len(took) else numpy.inf, float(tpe.at_s[-1])
    return took_s / whole_s, (
        f"TPE ends at {target:.4g} (ours at {ours.reached(goal)[-1]:.4g}), after {needed[0]:.0f} s of {whole_s:.0f} s; "
        f"ours after {took_s:.0f} s: {took_s / whole_s:.2f} of its run, {took_s / needed[0]:.2f} of its need"
    )


def main() -> int:
    """Run the benchmark; return exit code 0 if the median share of TPE's run is at most one half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--config", default="examples/steel.toml")
    parser.add_argument("--budget-ms", type=float, default=0.6)
    parser.add_argument("--time-limit", default="4m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="one pair of runs each")
    args = parser.parse_args()
    words = ["--config", args.config, "--budget-ms", str(args.budget_ms), "--trials", "100000"]
    words += ["--probe-share", "0"]  # otherwise the first run would measure the latency steps for all later ones
    runs: dict[tuple[str, int], Kept] = {}
    for turn, seed in enumerate(args.seeds):
        for sampler in SAMPLERS if turn % 2 == 0 else SAMPLERS[::-1]:
            more = ["--sampler", sampler, "--sampler-seed", str(seed), "--time-limit", args.time_limit]
            runs[sampler, seed] = search(args.out / f"{sampler}-{seed}", [*words, *more])
            print(f"{sampler} seed {seed}: {len(runs[sampler, seed].at_s)} kept", flush=True)
    lows = numpy.quantile(numpy.concatenate([runs["tpe", seed].accuracy for seed in args.seeds]), CORNERS)
    shares = {}
    for corner, low in zip(CORNERS, lows, strict=True):
        goal = ReferencePoint(
            accuracy_low=float(low), latency_high_ms=args.budget_ms, budget_ms=None, budget_weight=0.0
        )
        told = [compared(runs["tpe", seed], runs["budget", seed], goal) for seed in args.seeds]
        shares[corner] = [share for share, _ in told]
        if corner == MEDIAN:
            print("\n".join(f"seed {seed}: {line}" for seed, (_, line) in zip(args.seeds, told, strict=True)))
    for corner, found in shares.items():
        each = ", ".join(f"{share:.2f}" for share in found)
        print(f"share of TPE's run, corner at its {corner:.0%} quantile: median {numpy.median(found):.2f} of {each}")
    return 0 if numpy.median(shares[MEDIAN]) <= 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
