"""A named target: how to reach it, what it says of itself, what it can do."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.errors import UnknownDevice

# Highest ONNX opset by ONNX Runtime version, from its table of compatibility. It grew after 1.18, but no
# graph of ours needs more, so no more is claimed.
ONNXRUNTIME_OPSETS = (
    ((1, 18), 21),
    ((1, 17), 20),
    ((1, 15), 19),
    ((1, 14), 18),
    ((1, 12), 17),
    ((1, 11), 16),
    ((1, 9), 15),
    ((1, 8), 14),
)
OPSET_ANYWHERE = 13  # read by every runtime we know of


@dataclass(frozen=True)
class Int8Recipe:
    """How a graph is quantized for one target. Weights are always int8 and per channel.

    A CPU without VNNI multiplies u8 x s8 with VPMADDUBSW, whose 16-bit sums saturate on full-range weights,
    so there `weight_bits` is 7. TensorRT takes symmetric activations only.
    """

    activation: str  # uint8 | int8
    symmetric: bool  # activations with zero point 0
    weight_bits: int  # 7 | 8


@dataclass(frozen=True)
class Capabilities:
    """What the space is cut to. Read from the device, never assumed."""

    precisions: tuple[str, ...]  # subset of fp32, fp16, int8: the ones that can pay here
    why_not: dict[str, str]  # precision left out -> the reason, one line
    int8: Int8Recipe | None
    threads_max: int
    opset_max: int
    runtimes: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """The device's own answer to `hello`, checked."""

    machine: str  # x86_64 | aarch64 | ...
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_mb: int
    python: str
    boot_id: str
    kernel: str
    runtimes: dict[str, str]  # name -> version

    def fingerprint(self) -> str:
        """12 hex digits that change when timings taken before are no longer comparable."""
        stable = [self.machine, self.cpu, self.cores, self.kernel, sorted(self.runtimes.items())]
        return hashlib.sha256(json.dumps(stable).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Device:
    """One entry of a `devices.toml`."""

    name: str
    profile: str
    host: str | None  # None: this machine
    python: str | None  # interpreter there; None: the one running now
    runtime: str

    @staticmethod
    def from_table(name: str, table: dict[str, Any]) -> Device:
        """The device a `[name]` table describes."""
        return Device(
            name=name,
            profile=str(table.get("profile", name)),
            host=table.get("host"),
            python=table.get("python"),
            runtime=str(table.get("runtime", "onnxruntime")),
        )


def device_files() -> tuple[Path, ...]:
    """Where devices are looked up, the first that names one wins: the folder's, the user's, the shipped."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path("devices.toml"), home / "edgefront" / "devices.toml", Path(__file__).with_name("devices.toml")


def load_device(name: str, files: Sequence[Path] | None = None) -> Device:
    """The device called `name`. Raises UnknownDevice, which lists the known ones, or says what is wrong."""
    tables: dict[str, tuple[Path, Any]] = {}
    for path in reversed(device_files() if files is None else files):
        tables |= {known: (path, table) for known, table in _read(path).items()}
    if name not in tables:
        raise UnknownDevice(f"no device called {name}; there are {', '.join(sorted(tables)) or 'none'}")
    path, table = tables[name]
    allowed = {"profile", "host", "python", "runtime"}
    if not isinstance(table, dict) or not set(table) <= allowed:
        raise UnknownDevice(f"{path}: [{name}] may only have the keys {', '.join(sorted(allowed))}")
    if wrong := [key for key, value in table.items() if not isinstance(value, str) or not value]:
        raise UnknownDevice(f"{path}: [{name}] {wrong[0]} must be text")
    return Device.from_table(name, table)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnknownDevice(f"{path} cannot be read: {error}") from None


def capabilities(facts: Facts) -> Capabilities:
    """What a device with these facts can do, and why not the rest."""
    flags = set(facts.cpu_flags)
    why_not = {}
    if not flags & {"asimdhp", "avx512_fp16"}:
        why_not["fp16"] = f"{facts.cpu} has no fp16 arithmetic (asimdhp or avx512_fp16)"
    recipe = _int8(facts.machine, flags)
    if recipe is None:
        why_not["int8"] = f"no int8 kernels are known for {facts.machine}"
    return Capabilities(
        precisions=tuple(name for name in ("fp32", "fp16", "int8") if name not in why_not),
        why_not=why_not,
        int8=recipe,
        threads_max=facts.cores,
        opset_max=min((_opset(*runtime) for runtime in facts.runtimes.items()), default=OPSET_ANYWHERE),
        runtimes=tuple(sorted(facts.runtimes)),
    )


def _int8(machine: str, flags: set[str]) -> Int8Recipe | None:
    if machine.lower() in ("x86_64", "amd64"):
        vnni = flags & {"avx512_vnni", "avx_vnni", "amx_int8"}
        return Int8Recipe("uint8", symmetric=False, weight_bits=8 if vnni else 7)
    if machine.lower() in ("aarch64", "arm64"):  # sums in 32 bits, with the dot product or without
        return Int8Recipe("uint8", symmetric=False, weight_bits=8)
    return None


def _opset(runtime: str, version: str) -> int:
    if runtime != "onnxruntime":
        return OPSET_ANYWHERE
    digits = version.split(".")[:2]
    if len(digits) < 2 or not all(part.isdigit() for part in digits):
        return OPSET_ANYWHERE
    number = (int(digits[0]), int(digits[1]))
    return next((opset for least, opset in ONNXRUNTIME_OPSETS if number >= least), OPSET_ANYWHERE)
