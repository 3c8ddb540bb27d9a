"""Run and time models in the runtimes that their users choose: `python contest.py job.json answer.json`.

The job is {"models": [[name, "onnxruntime" | "openvino", path, images], ...], "rounds", "seed"}; `images` is an .npy
file of shape (N, 3, H, W), with the same pictures for all models at each model's own size. All models are loaded in one
process, with one thread each. In every round each model runs once untimed and once timed, in a new random order, so
that disturbances of the machine affect all models equally. The script imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARMUP = 10
Run = Callable[[Any], Any]  # (1, 3, H, W) -> (1, classes)


def in_onnxruntime(path: str) -> Run:
    """Load a model in ONNX Runtime with its default optimizations."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it on import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def in_openvino(path: str) -> Run:
    """Load a model in OpenVINO for latency, with one thread and one stream."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda image: next(iter(request.infer({0: image}).values()))


OPENERS = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


def time_in_turn(
    runs: dict[str, Run], images: dict[str, np.ndarray], rounds: int, order: random.Random
) -> dict[str, list[float]]:
    """Return each model's milliseconds by round: once untimed and once timed, in a new random order each round."""
    ms: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        for _ in range(WARMUP):
            run(images[name])
    for _ in range(rounds):
        for name in order.sample(sorted(runs), len(runs)):
            runs[name](images[name])
            began = time.perf_counter()
            runs[name](images[name])
            ms[name].append(1e3 * (time.perf_counter() - began))
    return ms


def main() -> None:
    """Write {"answers": {name: [class, ...]}, "ms": {name: [...], by round}}."""
    job = json.loads(Path(sys.argv[1]).read_text())
    order = random.Random(job["seed"])
    runs = {name: OPENERS[runtime](path) for name, runtime, path, _ in job["models"]}
    answers: dict[str, list[int]] = {}
    first: dict[str, np.ndarray] = {}
    for name, _, _, file in job["models"]:
        images = np.load(file)
        answers[name] = [int(runs[name](image[None]).argmax()) for image in images]
        first[name] = images[:1]
    ms = time_in_turn(runs, first, job["rounds"], order)
    Path(sys.argv[2]).write_text(json.dumps({"answers": answers, "ms": ms}))


if __name__ == "__main__":
    main()
