"""python -m benchmarks.peers: against what a user would run instead, Olive's and NNCF's post-training quantization.

The same parent, calibration images, machine and minute. Half of the validation images judge: ours is the fastest of
what this project makes (input sizes, fp32, int8 after the ladder, two runtimes) that loses no more on them than the
ladder allows: 1 point against fp32, or one standard error of the difference where that is more. The other half is the
test, of which the table's accuracies are. Times are interleaved; the ratio is the median over rounds of ours / theirs
in the same round, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.int8_ladder import NETS
from benchmarks.peers.environment import cache, python, run
from benchmarks.peers.ours import JUDGED, SHOWN, Entry, Parent, calibration, candidates
from evaluators.jobs import Ladder
from evaluators.measurement import paired_error, standard_error
from evaluators.statistics import quantile_interval
from remote.connect import connect
from remote.device import capabilities

RUNTIMES = ("onnxruntime", "openvino")
Answer = dict[str, dict[str, np.ndarray]]  # "answers" | "ms" -> by name


def contest(interpreter: Path, entries: list[Entry], part: str, folder: Path, rounds: int) -> Answer:
    """Classes and milliseconds of every entry."""
    models = [[e.name, e.runtime, str(e.path), str(folder / f"{part}_{e.image_px}.npy")] for e in entries]
    job, answer = folder / f"{part}-job.json", folder / f"{part}-answer.json"
    job.write_text(json.dumps({"models": models, "rounds": rounds, "seed": 0}))
    run(interpreter, "contest.py", job, answer, log=folder / f"{part}.log")
    told = json.loads(answer.read_text())
    return {kind: {name: np.array(values) for name, values in told[kind].items()} for kind in ("answers", "ms")}


def peers(interpreter: Path, parent: Parent, folder: Path) -> list[Entry]:
    """What Olive and NNCF made of the parent, each for the runtime that its users take."""
    fp32, images = folder / f"ours_{parent.image_px}_fp32.onnx", folder / "calibration.npy"
    (folder / "peers").mkdir()
    run(interpreter, "quantizers.py", fp32, images, folder / "peers", log=folder / "quantizers.log")
    for name, why in json.loads((folder / "peers" / "failed.json").read_text()).items():
        print(f"  {name} could not be made: {why}")
    files = sorted((*(folder / "peers").glob("*.onnx"), *(folder / "peers").glob("*.xml")))
    made = [(path.stem.replace("_", " "), path) for path in files]
    return [
        Entry(name, "onnxruntime" if path.suffix == ".onnx" else "openvino", path, parent.image_px)
        for name, path in made
    ]


def chosen(told: Answer, labels: np.ndarray, parent: Entry, ours: list[Entry]) -> Entry:
    """The fastest of ours that loses no more than the ladder allows against the parent in fp32."""
    right = {entry.name: told["answers"][entry.name] == labels for entry in ours}
    whole, drop = right[parent.name], Ladder().allowed_drop
    enough = [
        entry
        for entry in ours
        if whole.mean() - right[entry.name].mean() <= max(drop, paired_error(whole, right[entry.name])) + 1e-9
    ]
    return min(enough, key=lambda entry: float(np.median(told["ms"][entry.name])))


def table(told: Answer, labels: np.ndarray, entries: list[Entry], ours: Entry) -> list[str]:
    """Rows in Markdown: accuracy, latency, and ours against each."""
    count, best = len(labels), told["answers"][ours.name] == labels
    lines = ["| | top-1 | ours less it, points | median ms | p95 ms | ours / it |", "|---|---|---|---|---|---|"]
    for entry in entries:
        right, ms = told["answers"][entry.name] == labels, told["ms"][entry.name]
        noise = 100 * standard_error(int(right.sum()), count)
        gain, error = 100 * (best.mean() - right.mean()), 100 * paired_error(best, right)
        ratio = quantile_interval(told["ms"][ours.name] / ms, 50)
        against = ("", "") if entry == ours else (
            f"{gain:+.1f} ± {error:.1f}", f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        )  # fmt: skip
        lines.append(
            f"| {entry.name} | {100 * right.mean():.1f} ± {noise:.1f} | {against[0]} | {np.median(ms):.2f} "
            f"| {np.percentile(ms, 95):.2f} | {against[1]} |"
        )
    return lines


def compared(parent: Parent, interpreter: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """The table of one parent."""
    session, _, _ = connect("local")
    with session:
        able = capabilities(session.facts, RUNTIMES)
    if able.int8 is None:
        raise SystemExit(f"int8 cannot be compared here: {able.why_not.get('int8', '')}")
    ours = list(candidates(parent, folder, able.int8, args.int8_sizes, RUNTIMES))
    train, shown = parent.pictures(parent.image_px)
    norm = parent.exported(parent.image_px, folder / f"ours_{parent.image_px}_fp32.onnx")
    np.save(folder / "calibration.npy", calibration(train, norm))
    theirs = peers(interpreter, parent, folder)
    judged = contest(interpreter, ours, "judge", folder, args.rounds // 4)
    plain = [entry for entry in ours if entry.path == folder / f"ours_{parent.image_px}_fp32.onnx"]
    best = chosen(judged, shown.labels[JUDGED], plain[0], ours)
    shortlist = [best, *theirs, *(entry for entry in plain if entry != best)]
    told = contest(interpreter, shortlist, "test", folder, args.rounds)
    return table(told, shown.labels[SHOWN], shortlist, best)


def main() -> None:
    """A table a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--rounds", type=int, default=300, help="timings of each model, interleaved")
    parser.add_argument(
        "--int8-sizes", type=int, default=2, help="input sizes at which int8 is made, the largest first"
    )
    parser.add_argument("--environment", type=Path, default=cache(), help="folder of the peers' packages")
    args = parser.parse_args()
    interpreter = python(args.environment)
    for name in args.networks:
        print(f"{name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for line in compared(Parent(name), interpreter, Path(folder), args):
                print(line, flush=True)


if __name__ == "__main__":
    main()
