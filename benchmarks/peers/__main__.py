"""Compare this project with Olive's and NNCF's post-training quantization: `python -m benchmarks.peers`.

Users would run these peers instead. Every peer gets the same parent, calibration images and machine at the same time.
It is compared with the model that a search with the peer's latency as budget would choose: among the models that this
project made of the parent and that are clearly faster than the peer, the one with the most correct validation and
training images. The table's accuracies are of test images, and their difference is paired. Timings are interleaved; the
ratio is the median over rounds of ours / theirs in the same round, with its 95 % interval. Our models come from
`python -m benchmarks.compression --only score`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.compression.__main__ import SHARED
from benchmarks.compression.bench import Bench, bench
from benchmarks.peers.environment import cache, python, run
from benchmarks.peers.ours import Entry, Parent, entries, parents
from benchmarks.search_quality.summary import renew
from evaluators.data.dataset import TEST, TRAIN, VALIDATION
from evaluators.measurement import Interval, standard_error, standard_error_of_difference
from evaluators.timing.confidence import quantile_interval

HERE = Path(__file__).parent
SETS = ("neu_cls", "imagenet_val700")


@dataclass(frozen=True)
class Told:
    """Hold the results of every model by name.

    Attributes:
        right: Whether each image was classified correctly, (N,).
        ms: Latency in ms, by round.
    """

    right: dict[str, np.ndarray]
    ms: dict[str, np.ndarray]

    def median_ms(self, entry: Entry) -> float:
        """Return the median latency of one inference, in ms."""
        return float(np.median(self.ms[entry.name]))

    def ratio(self, ours: Entry, theirs: Entry) -> Interval:
        """Return the median over rounds of ours / theirs in the same round, with its 95 % interval."""
        return quantile_interval(self.ms[ours.name] / self.ms[theirs.name], 50)


def contest(interpreter: Path, models: list[Entry], split: str, labels: np.ndarray, folder: Path, rounds: int) -> Told:
    """Score all models on one split and time them in turn."""
    words = [[e.name, e.runtime, str(e.path), str(folder / f"{split}_{e.image_px}.npy")] for e in models]
    job, answer = folder / f"{split}-job.json", folder / f"{split}-answer.json"
    job.write_text(json.dumps({"models": words, "rounds": rounds, "seed": 0}))
    run(interpreter, "contest.py", job, answer, log=folder / f"{split}.log")
    told = json.loads(answer.read_text())
    return Told(
        {name: np.array(values) == labels for name, values in told["answers"].items()},
        {name: np.array(values) for name, values in told["ms"].items()},
    )


def peers(interpreter: Path, parent: Parent, fp32: Path, folder: Path) -> list[Entry]:
    """Quantize the parent by Olive and NNCF, each for the runtime that its users choose."""
    np.save(folder / "calibration.npy", parent.calibration())
    (folder / "peers").mkdir()
    run(interpreter, "quantizers.py", fp32, folder / "calibration.npy", folder / "peers", log=folder / "quantizers.log")
    for name, why in json.loads((folder / "peers" / "failed.json").read_text()).items():
        print(f"  {name} could not be made: {why}")
    files = sorted((*(folder / "peers").glob("*.onnx"), *(folder / "peers").glob("*.xml")))
    return [
        Entry(path.stem.replace("_", " "), "onnxruntime" if path.suffix == ".onnx" else "openvino", path, px)
        for path in files
        for px in [parent.net.image_px]
    ]


def chosen(judged: list[Told], peer: Entry, ours: list[Entry]) -> Entry | None:
    """Choose our model to compare with a peer; return None if none is faster.

    A model must be faster than the peer in the first split's rounds by the whole interval. Of these the one with the
    most correct images over all splits is chosen, and the faster one in a tie.
    """
    faster = [entry for entry in ours if judged[0].ratio(entry, peer).high < 1]
    rights = {entry: sum(told.right[entry.name].sum() for told in judged) for entry in faster}
    return max(faster, key=lambda entry: (rights[entry], -judged[0].median_ms(entry)), default=None)


def table(told: Told, against: dict[Entry, Entry | None]) -> list[str]:
    """Format one Markdown row per peer: accuracy and latency, ours and theirs compared."""
    lines = [
        "| | test % | median ms | p95 ms | ours | test % | ours less it, points | median ms | ours / it |",
        "|---|--:|--:|--:|---|--:|--:|--:|---|",
    ]
    for peer, ours in against.items():
        row = f"| {peer.name} | {_percent(told, peer)} | {told.median_ms(peer):.2f} "
        row += f"| {np.percentile(told.ms[peer.name], 95):.2f} "
        if ours is None:
            lines.append(row + "| none of ours is faster |  |  |  |  |")
            continue
        first, second = told.right[ours.name].tolist(), told.right[peer.name].tolist()
        gain, error = 100 * (np.mean(first) - np.mean(second)), 100 * standard_error_of_difference(first, second)
        ratio = told.ratio(ours, peer)
        lines.append(
            f"{row}| {ours.name} | {_percent(told, ours)} | {gain:+.1f} ± {error:.1f} | {told.median_ms(ours):.2f} "
            f"| {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] |"
        )
    return lines


def _percent(told: Told, entry: Entry) -> str:
    right = told.right[entry.name]
    return f"{100 * right.mean():.1f} ± {100 * standard_error(int(right.sum()), len(right)):.1f}"


def compared(opened: Bench, parent: Parent, interpreter: Path, folder: Path, args: argparse.Namespace) -> list[str]:
    """Build the table of one parent."""
    rows = parent.rows(args.results)
    if not rows or rows[0].treatment.name != "fp32":
        return ["not scored: run `python -m benchmarks.compression --only score` first"]
    ours = entries(opened, parent, rows, folder)
    plain = [entry for entry in ours if entry.path == ours[0].path]
    theirs = [*peers(interpreter, parent, ours[0].path, folder), *plain]
    labels = {split: parent.pictures(split, parent.net.image_px)[1] for split in (VALIDATION, TRAIN, TEST)}
    all_, rounds = [*ours, *theirs[: -len(plain)]], {VALIDATION: args.rounds, TRAIN: 1}
    judged = [
        contest(interpreter, all_, split=split, labels=labels[split], folder=folder, rounds=rounds[split])
        for split in rounds
    ]
    against = {peer: chosen(judged, peer, ours) for peer in theirs}
    shortlist = dict.fromkeys([*theirs, *(entry for entry in against.values() if entry)])
    return table(
        contest(interpreter, list(shortlist), split=TEST, labels=labels[TEST], folder=folder, rounds=args.rounds),
        against,
    )


def main() -> None:
    """Print one table per network, and write them between the marks of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="of these sets; all unless named")
    parser.add_argument("--rounds", type=int, default=300, help="timings of each model, interleaved")
    parser.add_argument("--work", type=Path, default=Path("runs/compression"), help="folder of networks and graphs")
    parser.add_argument("--results", type=Path, default=HERE.parent / "compression" / "results.csv")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the data sets")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="folder of the weights")
    parser.add_argument("--environment", type=Path, default=cache(), help="folder of the peers' packages")
    parser.add_argument("--readme", type=Path, help="a README that gets the tables")
    args = parser.parse_args()
    interpreter, parts = python(args.environment), []
    with bench(args.work, args.data, args.weights) as opened:
        for parent in [parent for data in args.sets for parent in parents(opened, data)]:
            if args.networks and parent.net.variant not in args.networks:
                continue
            with tempfile.TemporaryDirectory() as folder:
                lines = compared(opened, parent, interpreter, Path(folder), args)
            parts.append("\n".join([f"### {parent.name}", "", *lines]))
            print(parts[-1], flush=True)
    if args.readme is not None:
        renew(args.readme, "\n\n".join(parts))


if __name__ == "__main__":
    main()
