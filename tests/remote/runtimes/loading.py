"""The texts that are sent to a device as modules of this process, and jobs for them."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np

from remote import agent
from remote.link.transport import texts

agent.PARTS.update(texts())
part = agent.part
timing = part("timing")


def job(runtime: str, **more) -> dict:
    return {"runtime": runtime, "threads": 1, "precision": "fp32"} | more


def predicted(module, job: dict, model: Path, images: np.ndarray, folder: Path) -> np.ndarray:
    """What the device's side says of float32 images (N, C, H, W): (N, classes)."""
    data = folder / "images"
    data.write_bytes(images.astype("<f4").tobytes())
    value, raw = timing.predict(module, job | {"model": str(model), "data": str(data), "shape": list(images.shape)})
    return np.frombuffer(raw, "<f4").reshape(value["shape"])


def measured(module, job: dict, model: Path, reference: Path, **more) -> dict:
    """One block of few pairs."""
    wanted = {"model": str(model), "reference": str(reference), "pairs": 6, "seconds_max": 3.0}
    try:
        value, raw = timing.measure(module, job | wanted | more)
    finally:
        gc.enable()  # it is off in a child that only measures
    assert raw == b""
    return value


def check_block(value: dict, pairs: int = 6) -> None:
    """What any runtime's block must hold."""
    lists = ("wall_ms", "cpu_ms", "reference_wall_ms", "reference_cpu_ms")
    assert [len(value[name]) for name in lists] == [pairs] * 4
    assert all(0 < item < 1000 for name in ("wall_ms", "reference_wall_ms") for item in value[name])
    assert 0 < value["runtime_mb"] <= value["peak_mb"] and value["load_ms"] > 0 and value["warmup_runs"] >= 3


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(1).standard_normal((count, *shape)).astype(np.float32)
