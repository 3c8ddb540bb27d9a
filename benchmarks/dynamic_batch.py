"""Measure the cost of a dynamic batch dimension at batch 1: time one network, exported both ways, in turn.

    python benchmarks/dynamic_batch.py mobilenet_v2 mobilenet_v2 --image-px 160

ONNX Runtime runs on this machine with one thread. Each pair is a run of the static graph and a run of the dynamic graph
right after it; the result is the median of the ratio over all pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from evaluators.export.onnx_export import INPUT, export
from spaces.network import build

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it on import
import onnxruntime

WARM_UP = 10


def main() -> None:
    """Print the medians and the ratio."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("family", nargs="?", default="mobilenet_v2")
    p.add_argument("variant", nargs="?", default="mobilenet_v2")
    p.add_argument("--image-px", type=int, default=160)
    p.add_argument("--pairs", type=int, default=200)
    args = p.parse_args()
    net = build(args.family, args.variant, 1000, args.image_px)
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for dynamic in (False, True):
            path = Path(folder) / f"{dynamic}.onnx"
            export(net, args.image_px, path, dynamic_batch=dynamic)
            sessions.append(_open(path))
    static, dynamic_ms = _timed(sessions, args.image_px, args.pairs)
    ratios = [d / s for s, d in zip(static, dynamic_ms, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{args.variant} {args.image_px} px, batch 1, {args.pairs} pairs")
    print(f"static {statistics.median(static):.3f} ms, dynamic {statistics.median(dynamic_ms):.3f} ms")
    print(f"dynamic / static: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}")


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _timed(sessions: list[onnxruntime.InferenceSession], image_px: int, pairs: int) -> list[list[float]]:
    """Return the milliseconds of each session's runs; the sessions run in turn."""
    image = {INPUT: np.random.default_rng(0).standard_normal((1, 3, image_px, image_px), dtype=np.float32)}
    took: list[list[float]] = [[] for _ in sessions]
    for turn in range(WARM_UP + pairs):
        for session, times in zip(sessions, took, strict=True):
            began = time.perf_counter()
            session.run(None, image)
            if turn >= WARM_UP:
                times.append(1000 * (time.perf_counter() - began))
    return took


if __name__ == "__main__":
    main()
