"""Time one model repeatedly through the whole path: `python benchmarks/steadiness.py [--device NAME]`.

The output has every timing and the spread of their medians, (p95 - p5) / median. A spread above 3 % is a failure,
unless the timings report that the device was disturbed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy

from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.measurement import Latency
from evaluators.stages.structure import measure
from evaluators.timing.latency import TimingRules, TimingTarget, calibrate, time_model
from evaluators.timing.reference_model import IMAGE_PX, reference_model
from remote.connect import connect
from remote.inventory.setup_commands import prepare_device
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job
from spaces.candidate import Candidate

SPREAD_MAX = 0.03
MODEL = Candidate(family="mobilenet_v2", variant="mobilenet_v2", image_px=96)


def timings(device_name: str, times: int) -> tuple[list[Latency], str]:
    """Time the same file repeatedly; return the latencies, and why the device was not calm at the start, or ''."""
    found = []
    session, device, _ = connect(device_name)
    with tempfile.TemporaryDirectory() as folder, session, prepare_device(device, session.facts):
        runtime, patient = device.runtime or "", RetryingSession(session)
        job = Job(runtime=runtime)
        path = Path(folder) / "reference.onnx"
        path.write_bytes(reference_model())
        reference = patient.put(for_runtime(path, needs(runtime), IMAGE_PX, Path(folder)))
        _, graph = measure(MODEL, 10, int8=None, folder=Path(folder), opset_max=13, seed=0)
        model = patient.put(for_runtime(graph, needs(runtime), MODEL.image_px, Path(folder)))
        reference_ms, restless = calibrate(patient, reference, job, TimingRules())
        print(f"reference {reference_ms:.3f} ms {restless}", file=sys.stderr, flush=True)
        target = TimingTarget(
            model_sha256=model,
            reference_sha256=reference,
            job=job,
            runtime_version="",
            percentile=95.0,
            reference_ms=reference_ms,
        )
        for number in range(times):
            latency = time_model(patient, target, TimingRules(), None)
            found.append(latency)
            print(f"{number + 1:3d}: {line(latency)}", file=sys.stderr, flush=True)
    return found, restless


def line(latency: Latency) -> str:
    """Describe one timing in a line."""
    trust = latency.disturbed or (f"{latency.repeated} blocks repeated" if latency.repeated else "")
    return (
        f"median {latency.median_ms.value:.3f} ms, rank {latency.rank_ms.value:.3f} ms, p95 "
        f"{latency.percentile_ms.value:.3f} ms, {latency.blocks} blocks {trust}"
    )


def spread(values: list[float]) -> float:
    """Return (p95 - p5) / median."""
    low, middle, high = numpy.percentile(values, [5, 50, 95])
    return float((high - low) / middle)


def main() -> int:
    """Run the benchmark; return exit code 0 if the medians lie within 3 % or the timings report a disturbance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found, restless = timings(args.device, args.times)
    disturbed = [latency.disturbed for latency in found if latency.disturbed]
    figures: dict[str, Any] = {
        "model": MODEL.describe(),
        "times": len(found),
        "median_spread": spread([latency.median_ms.value for latency in found]),
        "rank_spread": spread([latency.rank_ms.value for latency in found]),
        "disturbed": len(disturbed),
        "repeated_blocks": sum(latency.repeated for latency in found),
        "restless": restless,
    }
    kept = figures["median_spread"] <= SPREAD_MAX
    said = bool(disturbed or restless)
    if args.json:
        print(json.dumps(figures | {"median_ms": [latency.median_ms.value for latency in found], "kept": kept}))
    else:
        print(
            f"{figures['model']} timed {len(found)} times: medians {100 * figures['median_spread']:.1f} % apart "
            f"(by the reference beside them {100 * figures['rank_spread']:.1f} %), {len(disturbed)} disturbed, "
            f"{figures['repeated_blocks']} blocks repeated; {verdict(kept, said)}"
        )
    return 0 if kept or said else 1


def verdict(kept: bool, said: bool) -> str:
    """Describe the outcome."""
    if kept:
        return f"kept: within {100 * SPREAD_MAX:g} %"
    return "the device was disturbed, and the timings say so" if said else f"MISSED: {100 * SPREAD_MAX:g} %"


if __name__ == "__main__":
    sys.exit(main())
