"""Compare our timing protocol with plain back-to-back timing, interleaved: `python benchmarks/timing_agreement.py`.

Ten networks are timed in turn, `--rounds` times: by our protocol through the agent, and by 200 runs in a fresh process
of a 15-line program. The output has the ratio of the medians for every network, the median ratio and the rank
correlation.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy.stats import spearmanr

from evaluators.stages.structure import measure
from evaluators.timing.latency import TimingRules, TimingTarget, calibrate, time_model
from evaluators.timing.reference_model import reference_model
from remote.connect import open_session
from remote.inventory.resolve import load_device
from remote.link.session import Job
from spaces.candidate import Candidate

MODELS = [
    ("squeezenet", "squeezenet1_1", 64),
    ("squeezenet", "squeezenet1_1", 128),
    ("mobilenet_v1", "mobilenet_v1_025", 96),
    ("mobilenet_v1", "mobilenet_v1_050", 128),
    ("mobilenet_v2", "mobilenet_v2", 96),
    ("mobilenet_v2", "mobilenet_v2", 160),
    ("mobilenet_v3", "mobilenet_v3_small", 128),
    ("mobilenet_v3", "mobilenet_v3_large", 128),
    ("resnet", "resnet18", 96),
    ("resnet", "resnet18", 160),
]
BACK_TO_BACK = """
import os, sys, time, statistics, numpy
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = session.get_inputs()[0]
x = numpy.random.default_rng(0).random(image.shape, dtype=numpy.float32)
times = []
for i in range(220):
    began = time.perf_counter()
    session.run(None, {image.name: x})
    times.append(1000 * (time.perf_counter() - began))
print(statistics.median(times[20:]))
"""


def main() -> int:
    """Run the benchmark; return exit code 0 if the medians agree within 3 % and the ranks correlate to 0.95."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often every network is timed each way")
    rounds = parser.parse_args().rounds
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    disturbed = 0
    with tempfile.TemporaryDirectory() as folder, open_session(load_device("local")) as session:
        candidates = [Candidate(family=family, variant=variant, image_px=px) for family, variant, px in MODELS]
        graphs = {
            c.describe(): measure(c, 10, int8=None, folder=Path(folder), opset_max=13, seed=0)[1] for c in candidates
        }
        reference = session.put(reference_model())
        reference_ms, restless = calibrate(session, reference, Job(runtime="onnxruntime"), TimingRules())
        print(f"reference {reference_ms:.3f} ms {restless}", flush=True)
        for _ in range(rounds):
            for name, graph in graphs.items():
                target = TimingTarget(
                    model_sha256=session.put(graph),
                    reference_sha256=reference,
                    job=Job(runtime="onnxruntime"),
                    runtime_version="",
                    percentile=95.0,
                    reference_ms=reference_ms,
                )
                latency = time_model(session, target, TimingRules(), None)
                disturbed += bool(latency.disturbed)
                ours.setdefault(name, []).append(latency.median_ms.value)
                command = [sys.executable, "-c", BACK_TO_BACK, str(graph)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                theirs.setdefault(name, []).append(float(done.stdout))
    print("| network | ours, ms | back to back, ms | ratio |\n|---|---|---|---|")
    ratios = []
    for name in graphs:
        a, b = statistics.median(ours[name]), statistics.median(theirs[name])
        ratios.append(statistics.median(x / y for x, y in zip(ours[name], theirs[name], strict=True)))
        print(f"| {name} | {a:.3f} | {b:.3f} | {ratios[-1]:.3f} |")
    middle = statistics.median(ratios)
    ranks = spearmanr([statistics.median(v) for v in ours.values()], [statistics.median(v) for v in theirs.values()])
    timings = rounds * len(graphs)
    print(
        f"median ratio {middle:.3f}, rank correlation {ranks.statistic:.3f}, {disturbed} of {timings} timings disturbed"
    )
    return 0 if abs(middle - 1) <= 0.03 and ranks.statistic >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
