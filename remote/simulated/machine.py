"""Simulate a board at work: build, time, predict.

The samples of a timing are drawn from the digests of its two models and the board's seed alone: the same model
gives the same samples whenever, and however often, it is timed.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote import agent
from remote.device import ON_GPU, capabilities, version_of
from remote.link import reply_parsing
from remote.simulated import telemetry
from remote.simulated.roofline import latency_ms
from remote.simulated.spec import SimulationSpec

if TYPE_CHECKING:
    from remote.simulated.graph import GraphWork

WARMUP_S, WARMUP_RUNS, DRIFT_RUNS = 2.0, 20, 5
SETTLE_RUNS, SETTLE_S, PAIRS_MIN = 6, 0.03, 5  # the same as in remote/onboard/timing.py
COPY_SHARE = 0.4  # share of the memory's rate that copies between host and GPU reach
COOLED_BY_HALF_S = 20.0
# Operator -> first TensorRT version with a parser that reads it, from docs/operators.md of onnx-tensorrt.
TENSORRT_SINCE = {
    "GridSample": (8, 5),
    "GroupNormalization": (8, 6),
    "HardSwish": (8, 6),
    "LayerNormalization": (8, 6),
    "Gelu": (10, 0),
    "Mish": (10, 0),
}
Value = dict[str, Any]
Wait = Callable[[float], None]  # passes the seconds that a job takes, or raises the failure that ends it


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """Describe a stored file as one of this board's runtimes loads it.

    Attributes:
        digest: SHA-256 of the file.
        wall_ms: Milliseconds of one run, copies included.
        gpu_ms: Milliseconds of one run on the GPU, without copies; None on a CPU.
        layers: Number of layers that are not fused.
        weight_mb: MB of weights.
        working_mb: MB of activations, input and output.
    """

    digest: str
    wall_ms: float
    gpu_ms: float | None
    layers: int
    weight_mb: float
    working_mb: float


class SimulatedMachine:
    """Simulate one board that is switched on."""

    def __init__(self, spec: SimulationSpec, boot_id: str) -> None:
        self.spec, self.board = spec, spec.board
        self.facts = telemetry.facts(spec.board, boot_id)
        self.busy_s = 0.0  # busy seconds of all cores since this process began
        self.passed_s = 0.0  # seconds of fake time
        self.hot_at_s = -math.inf
        self.during: Value = {}  # sensor readings during the last timing
        self.energy_mj: float | None = None  # millijoules of one run in the last timing
        self._model = lru_cache(maxsize=64)(self._read)

    def now_s(self) -> float:
        """Return the board's clock in seconds."""
        return time.monotonic() if self.spec.real_time else self.passed_s

    def state(self) -> Value:
        """Return the readings of the moment that may disturb a timing."""
        return telemetry.state(self.board, self.now_s(), self.busy_s, self._temperature_c())

    def _temperature_c(self) -> float:
        if not self.spec.real_time:  # in fake time it has cooled down before the next reading
            return telemetry.CALM_C
        return telemetry.CALM_C + (telemetry.HOT_C - telemetry.CALM_C) * 0.5 ** (
            (self.now_s() - self.hot_at_s) / COOLED_BY_HALF_S
        )

    def build(self, job: Value, wait: Wait) -> float:
        """Copy the model's file as its engine, and return the seconds that the build took.

        Args:
            job: The job's fields, with `path` of the model and `out` of the engine.
            wait: Passes the seconds of the build.
        """
        model = self._model(job["path"], job["runtime"], job["threads"])
        seconds = round(5.0 + self.board.build_s_per_layer * model.layers, 1)
        wait(seconds)
        self.passed_s += seconds
        shutil.copyfile(job["path"], job["out"])
        return seconds

    def measure(self, job: Value, wait: Wait, slowed: float = 1.0) -> Value:
        """Time two models, with the fields of `timing.measure`.

        Args:
            job: The job's fields.
            wait: Passes the seconds of the timing.
            slowed: Factor on all times, above 1 where heat throttles the board.
        """
        ours = self._model(job["model"], job["runtime"], job["threads"])
        theirs = self._model(job["reference"], job["runtime"], 1)
        peak_mb, device_mb = self._memory_mb(ours)
        rows, timed_s = self._rows(ours, theirs, job, slowed)
        load_ms = 50.0 + 4.0 * ours.weight_mb
        warmup_s = min(WARMUP_S, WARMUP_RUNS * (ours.wall_ms + theirs.wall_ms) / 1e3)
        seconds = load_ms / 1e3 + warmup_s + timed_s
        wait(seconds)
        cores = 1 if ours.gpu_ms else min(job["threads"], self.board.cores)
        self.during = telemetry.during(self.board, seconds, cores, self._temperature_c(), slowed)
        self.energy_mj = self.board.watts * ours.wall_ms if self.board.watts else None
        self.passed_s += seconds
        self.busy_s += seconds * cores
        self.hot_at_s = self.now_s() if slowed > 1 else self.hot_at_s
        return _columns(ours, theirs, rows, cores) | {
            "peak_mb": peak_mb,
            "runtime_mb": self.board.runtime_mb,
            "device_mb": device_mb,
            "load_ms": load_ms,
            "warmup_runs": WARMUP_RUNS,
            "load_average": float(cores),
        }

    def _rows(
        self, ours: LoadedModel, theirs: LoadedModel, job: Value, slowed: float
    ) -> tuple[list[tuple[float, float]], float]:
        """Return (factors of each pair of runs over their best times, seconds of all pairs).

        Fewer pairs are run, but not below 5, where they take longer than `seconds_max`.
        """
        draw = random.Random(f"{ours.digest} {theirs.digest} {job['threads']} {self.spec.seed}")
        rows: list[tuple[float, float]] = []
        timed_s = 0.0
        while len(rows) < job["pairs"] and (len(rows) < PAIRS_MIN or timed_s < job["seconds_max"]):
            all_s = slowed * (1 + self.spec.drift * math.exp(-len(rows) / DRIFT_RUNS))
            row = tuple(all_s * math.exp(draw.gauss(0.0, self.spec.noise)) for _ in range(2))
            rows.append((row[0], row[1]))
            for ms in (ours.wall_ms * row[0], theirs.wall_ms * row[1]):
                timed_s += min(SETTLE_RUNS * ms / 1e3, SETTLE_S + ms / 1e3) + ms / 1e3
        return rows, timed_s

    def predict(self, job: Value, wait: Wait) -> tuple[Value, bytes]:
        """Return real logits, computed by the agent's own code with the ONNX Runtime of this machine.

        Args:
            job: The job's fields.
            wait: Passes no time, but raises the failure that ends the job.
        """
        self._memory_mb(self._model(job["model"], job["runtime"], job["threads"]))
        wait(0.0)
        timing, runtime = agent.part("timing"), agent.part("runtimes/onnxruntime")
        return timing.predict(runtime, job | {"runtime": "onnxruntime", "threads": 1})

    def _memory_mb(self, model: LoadedModel) -> tuple[float, float | None]:
        """Return the memory (of the process, on the GPU or None) in MB.

        Raises:
            RequestError: The model needs more than the board has.
        """
        board, process_mb = self.board, self.board.runtime_mb + 2 * model.weight_mb
        device_mb = None
        if model.gpu_ms is None or board.gpu is None:
            process_mb += model.working_mb
            needed_mb, there_mb = process_mb, board.free_mb
        else:
            device_mb = round(model.weight_mb + model.working_mb, 3)
            unified = board.gpu.unified
            needed_mb, there_mb = (
                (process_mb + device_mb, board.free_mb) if unified else (device_mb, board.gpu.memory_mb)
            )
        if needed_mb > there_mb:
            raise agent.RequestError("out_of_memory", f"killed for memory: {needed_mb:.0f} MB, {there_mb} MB were free")
        return round(process_mb, 3), device_mb

    def _read(self, path: str, runtime: str, threads: int) -> LoadedModel:
        """Return the model in a file.

        Raises:
            RequestError: The runtime would not load it.
        """
        if runtime not in self.board.runtimes:
            there = ", ".join(self.board.runtimes)
            raise agent.RequestError("no_runtime", f"there is no {runtime} on this board, but {there}")
        graph = importlib.import_module("remote.simulated.graph")  # imported late: onnx takes a third of a second
        data = Path(path).read_bytes()
        try:
            work = graph.work(data)
        except graph.NotAModelError as error:
            raise agent.RequestError("unbuildable", str(error)) from None
        if why := self._refusal(work, runtime):
            raise agent.RequestError("unsupported", why)
        on_gpu = runtime in ON_GPU and self.board.cuda is not None
        unit = self.board.cuda if on_gpu and self.board.cuda else self.board.core
        run_ms = latency_ms(work, unit, 1 if on_gpu else min(threads, self.board.cores))
        # Copies of input and output to the GPU and back, and the call itself.
        around_ms = work.io_bytes / (COPY_SHARE * unit.gbytes_s) / 1e6 + 3 * unit.overhead_us / 1e3 if on_gpu else 0.0
        return LoadedModel(
            digest=hashlib.sha256(data).hexdigest(),
            wall_ms=run_ms + around_ms,
            gpu_ms=run_ms if on_gpu else None,
            layers=sum(layer.kind != "fused" for layer in work.layers),
            weight_mb=work.weight_bytes / 2**20,
            working_mb=(work.activation_bytes + work.io_bytes) / 2**20,
        )

    def _refusal(self, work: GraphWork, runtime: str) -> str:
        """Return why the runtime does not take a graph, in its own words where they are known; empty if it does."""
        name, version = runtime.partition(":")[0], version_of(self.board.runtimes[runtime])
        if work.foreign:
            operator = work.foreign[0]
            is_tensorrt = name == "tensorrt"
            return f"No importer registered for op: {operator}" if is_tensorrt else f"{operator} is not a registered op"
        able = capabilities(reply_parsing.facts(self.facts | telemetry.list_runtimes(self.board)), [runtime])
        if work.opset > able.opset_max:
            return f"{runtime} {self.board.runtimes[runtime]} reads opset {able.opset_max} at most, not {work.opset}"
        if name != "tensorrt":
            return ""
        late = sorted(op for op in work.operators if version < TENSORRT_SINCE.get(op, (0, 0)))
        if late:
            return f"No importer registered for op: {late[0]}"
        if work.quantized and "int8" in able.why_not:
            reason = "Networks with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support"
            return f"{reason}: {able.why_not['int8']}"
        return "Q/DQ zero points other than 0 are not supported" if work.asymmetric else ""


def _columns(ours: LoadedModel, theirs: LoadedModel, rows: Sequence[tuple[float, float]], cores: int) -> Value:
    """Return the lists of a timing. CPU time is a little below wall time, since the host polls the GPU all the time."""
    lists: Value = {}
    for prefix, model, factors in (("", ours, [row[0] for row in rows]), ("reference_", theirs, [r[1] for r in rows])):
        busy = 0.99 * (cores if model is ours else 1)
        lists[f"{prefix}wall_ms"] = [model.wall_ms * factor for factor in factors]
        lists[f"{prefix}cpu_ms"] = [busy * model.wall_ms * factor for factor in factors]
        if model.gpu_ms is not None:
            lists[f"{prefix}gpu_ms"] = [model.gpu_ms * factor for factor in factors]
    return lists
