"""Load the boards that can be simulated from `boards.toml` beside this file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Describe a processor that runs networks: one core of a CPU, or a whole GPU.

    Attributes:
        gmacs: Precision -> peak rate in 1e9 multiply-accumulates a second.
        gbytes_s: Memory bandwidth of the whole board in GB/s.
        overhead_us: Microseconds that a layer takes at least, however small.
        dense_share: Share of the peak rate that ordinary convolutions reach.
        depthwise_share: Share of the peak rate that depthwise convolutions reach.
    """

    gmacs: dict[str, float]
    gbytes_s: float
    overhead_us: float
    dense_share: float
    depthwise_share: float


@dataclass(frozen=True)
class GpuFacts:
    """Hold the GPU of the board's answer to `hello`."""

    name: str
    sm: str
    memory_mb: int
    unified: bool


@dataclass(frozen=True, kw_only=True)
class SimulatedBoard:
    """Describe one kind of board, with the software that its maker's image installs.

    Attributes:
        name: Name after `sim:`.
        aliases: Other names after `sim:`.
        title: Description for people.
        machine: Processor architecture.
        cpu: Name of the processor.
        cpu_flags: Instruction sets, separated by spaces.
        cores: Number of CPU cores.
        memory_mb: Memory in MB.
        free_mb: Free memory in MB with the system running and no desktop.
        python: Version of its Python.
        kernel: Version of its Linux kernel.
        release: Name of its system, such as "L4T 32.7.1".
        compatible: Strings of the device tree.
        runtimes: Runtime -> version.
        core: One core of the CPU.
        cpu_mhz: Clock of the CPU in MHz.
        gpu: The GPU's facts; None where there is none.
        cuda: The GPU as a processor; None where there is none.
        gpu_mhz: Clock of the GPU in MHz.
        build_s_per_layer: Seconds that an engine builder takes per layer.
        watts: Power above idle while a network runs; None where the board has no sensor.
        runtime_mb: Resident size in MB of a process that has loaded the runtime.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    machine: str
    cpu: str
    cpu_flags: str
    cores: int
    memory_mb: int
    free_mb: int
    python: str
    kernel: str
    release: str
    compatible: tuple[str, ...]
    runtimes: dict[str, str]
    core: Processor
    cpu_mhz: int
    gpu: GpuFacts | None = None
    cuda: Processor | None = None
    gpu_mhz: int = 0
    build_s_per_layer: float = 0.0
    watts: float | None = None
    runtime_mb: float = 60.0

    @property
    def jetson(self) -> bool:
        """Return whether GPU and CPU share the memory; the GPU's clock is then a file."""
        return self.gpu is not None and self.gpu.unified

    @property
    def raspberry(self) -> bool:
        """Return whether the firmware reports its throttling."""
        return any(name.startswith("raspberrypi,") for name in self.compatible)


def _core(ghz: float, macs_a_cycle: float, fp16: float, int8: float, gbytes_s: float, overhead_us: float) -> Processor:
    """Return one core, from its fp32 multiply-accumulates a cycle and the speed-ups of fp16 and int8."""
    fp32 = ghz * macs_a_cycle
    return Processor(
        gmacs={"fp32": fp32, "fp16": fp32 * fp16, "int8": fp32 * int8},
        gbytes_s=gbytes_s,
        overhead_us=overhead_us,
        dense_share=0.7,
        depthwise_share=0.25,
    )


def _cuda(fp32: float, fp16: float, int8: float, gbytes_s: float, overhead_us: float) -> Processor:
    """Return a whole GPU, from its 1e9 multiply-accumulates a second in each precision."""
    return Processor(
        gmacs={"fp32": fp32, "fp16": fp16, "int8": int8},
        gbytes_s=gbytes_s,
        overhead_us=overhead_us,
        dense_share=0.6,
        depthwise_share=0.1,
    )


def _board(name: str, table: dict[str, Any]) -> SimulatedBoard:
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    parts: dict[str, Any] = {"core": _core(**table["core"])}
    if "gpu" in table:
        parts |= {"gpu": GpuFacts(**table["gpu"]), "cuda": _cuda(**table["cuda"])}
    return SimulatedBoard(name=name, **(table | lists | parts))


def _load() -> tuple[SimulatedBoard, ...]:
    text = Path(__file__).with_name("boards.toml").read_text(encoding="utf-8")
    return tuple(_board(name, table) for name, table in tomllib.loads(text).items())


BOARDS = _load()
