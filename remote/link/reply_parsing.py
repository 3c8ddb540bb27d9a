"""Check the values of a device's replies. A reply is untrusted data until it has passed here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import TypedDict, TypeVar, cast

from remote.device import Facts, Gpu, Layer
from remote.errors import CANDIDATE_KINDS, CancelledError, CandidateError, DeviceError, FailureKind

Kind = TypeVar("Kind")
LISTS = ("wall_ms", "cpu_ms", "reference_wall_ms", "reference_cpu_ms")
GPU_LISTS = ("gpu_ms", "reference_gpu_ms")
LAYERS_MAX = 20_000
# Kind of a device's failure -> what it means and what to do, since a device only sends the kind and a reason.
PLAIN = {
    "no_space": "the device's disk is full: {}; make room there, or remove ~/.cache/edgefront on it",
    "memory_taken": "other processes use the device's memory: {}; `python -m remote.doctor` shows what takes it",
    "wrong_hash": "a file was damaged in transfer to the device: {}",
    "moved": "an upload can't be resumed: {}",
    "reference": "the device can't run the reference model now: {}",
    "no_lock": "the device's lock can't be taken: {}",
    "bad_cache": "the device's cache can't be used: {}",
    "busy": "the device has too many pending requests: {}",
    "failed": "the device failed: {}",
}


class _Optional(TypedDict, total=False):
    gpu_ms: tuple[float, ...]
    reference_gpu_ms: tuple[float, ...]


class BlockFields(_Optional):
    """Hold the fields of a `Block` that a device sends, all but `disturbed`; those of a GPU only where there is one."""

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    reference_wall_ms: tuple[float, ...]
    reference_cpu_ms: tuple[float, ...]
    peak_mb: float
    runtime_mb: float
    device_mb: float | None
    load_ms: float
    build_s: float
    energy_mj: float | None
    warmup_runs: int
    load_average: float
    during: Mapping[str, float]


def facts(reply: dict[str, object]) -> Facts:
    """Return the checked facts of the device's answer to `hello`.

    Raises:
        DeviceError: A value is missing or out of its limits.
    """
    return Facts(
        machine=text(reply, "machine"),
        cpu=text(reply, "cpu"),
        cpu_flags=tuple(clean(flag) for flag in _field(reply, "cpu_flags", list)[:2000]),
        cores=int(number(reply, "cores", 1, 4096)),
        memory_mb=int(number(reply, "memory_mb", 0, 1 << 30)),
        python=text(reply, "python"),
        boot_id=text(reply, "boot_id"),
        kernel=text(reply, "kernel"),
        runtimes={clean(name): clean(version) for name, version in _field(reply, "runtimes", dict).items()},
        board=clean(reply.get("board", "")),
        compatible=tuple(clean(name) for name in _field({"compatible": []} | reply, "compatible", list)[:50]),
        release=clean(reply.get("release", "")),
        gpu=_gpu(reply.get("gpu")),
        simulated=reply.get("simulated") is True,
    )


def _gpu(value: object) -> Gpu | None:
    if not isinstance(value, dict):
        return None
    memory_mb = int(number(value, "memory_mb", 0, 1 << 30))
    return Gpu(text(value, "name"), text(value, "sm", 10), memory_mb, value.get("unified") is True)


def block(reply: dict[str, object], pairs: int) -> BlockFields:
    """Return the checked values of one timing: lists as tuples of equal length, and the readings taken beside them.

    Args:
        reply: The device's answer.
        pairs: Largest number of entries in a list; the smallest is 1.

    Returns:
        Fields of a `Block` by name: times in ms, memory in MB, energy in mJ.

    Raises:
        DeviceError: A value is missing or out of its limits, or the lists do not match.
    """
    rows = {name: numbers(reply, name) for name in LISTS}
    rows |= {name: numbers(reply, name) for name in GPU_LISTS if reply.get(name)}
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1 or not 1 <= lengths.pop() <= pairs:
        raise DeviceError("the device sent a timing whose lists do not match")
    if min(min(row) for name, row in rows.items() if "cpu" not in name) <= 0:
        raise DeviceError("the device sent a timing of no duration")
    return cast(
        "BlockFields",
        rows
        | {
            "peak_mb": number(reply, "peak_mb", 0, 1e8),
            "runtime_mb": number(reply, "runtime_mb", 0, 1e8),
            "device_mb": _maybe(reply, "device_mb", 0, 1e8),
            "load_ms": number(reply, "load_ms", 0, 1e8),
            "build_s": number({"build_s": 0.0} | reply, "build_s", 0, 1e8),
            "energy_mj": _maybe(reply, "energy_mj", 0, 1e9),
            "warmup_runs": int(number(reply, "warmup_runs", 0, 1e9)),
            "load_average": number(reply, "load_average", 0, 1e6),
            "during": parse_sensors(reply.get("during")),
        },
    )


def layers(reply: dict[str, object]) -> tuple[tuple[Layer, ...], str]:
    """Return the nodes that a runtime ran, or none and the reason.

    Raises:
        DeviceError: A value is missing or out of its limits.
    """
    rows = _field(reply, "layers", list)
    if len(rows) > LAYERS_MAX or not all(isinstance(row, dict) for row in rows):
        raise DeviceError(f"the device reported {len(rows)} layers; expected are at most {LAYERS_MAX} valid entries")
    found = [
        Layer(text(row, "name"), text(row, "type", 60), text(row, "precision", 10), number(row, "ms", 0, 1e8))
        for row in rows
    ]
    return tuple(found), text(reply, "why") or ("" if found else "the device reported no layers")


def parse_sensors(value: object) -> dict[str, float]:
    """Return the finite numbers among the sensors' readings, `throttled_bits` read from its hex digits.

    Anything else is left out.
    """
    found = dict(value) if isinstance(value, dict) else {}
    bits = found.get("throttled_bits")
    if isinstance(bits, str) and re.fullmatch(r"[0-9a-f]{1,8}", bits):
        found["throttled_bits"] = int(bits, 16)
    return {
        clean(name): float(reading)
        for name, reading in found.items()
        if isinstance(reading, int | float) and not isinstance(reading, bool) and abs(reading) < 1e15
    }


def _maybe(reply: dict[str, object], name: str, low: float, high: float) -> float | None:
    return None if reply.get(name) is None else number(reply, name, low, high)


def error(reply: dict[str, object]) -> Exception:
    """Return the exception that an error reply stands for: CandidateError only for CANDIDATE_KINDS."""
    kind, reason = text(reply, "kind", 50), text(reply, "reason", 600)
    if kind in CANDIDATE_KINDS:
        return CandidateError(FailureKind(kind), reason)
    if kind == "cancelled":
        return CancelledError(reason)
    if kind == "no_runtime":
        return DeviceError(f"{reason}; install the runtime for the Python that the device is used with", kind)
    return DeviceError(PLAIN.get(kind, kind + ": {}").format(reason), kind)


def clean(value: object, length: int = 300) -> str:
    """Return the printable characters of a text, cut short, so that no reply can move a terminal's cursor.

    Args:
        value: The value of a reply.
        length: Most characters that are kept.

    Raises:
        DeviceError: The value is not text.
    """
    if not isinstance(value, str):
        raise DeviceError("the device sent a value that is not text where text is expected")
    return "".join(letter for letter in value[:length] if letter.isprintable())


def printable(text: str) -> str:
    r"""Return text in a form that is safe to show.

    A character that would move a cursor, turn the direction of writing or break the line, or that is no Unicode at
    all, is written as an escape, such as `\x1b`. Letters of every script, and spaces, stay as they are.
    """
    return "".join(letter if _is_shown(letter) else ascii(letter)[1:-1] for letter in text)


def _is_shown(letter: str) -> bool:
    # Joiners are a part of words in Persian and Hindi, and of emoji.
    return letter.isprintable() or letter in "\u200c\u200d" or unicodedata.category(letter) == "Zs"


def text(reply: dict[str, object], name: str, length: int = 300) -> str:
    """Return the text called `name`, cleaned.

    Args:
        reply: The device's answer.
        name: Name of a field.
        length: Most characters that are kept.

    Raises:
        DeviceError: The field is no text.
    """
    return clean(reply.get(name), length)


def number(reply: dict[str, object], name: str, low: float, high: float) -> float:
    """Return the finite number called `name`, within its limits.

    Args:
        reply: The device's answer.
        name: Name of a field.
        low: Smallest value accepted.
        high: Largest value accepted.

    Raises:
        DeviceError: The field is no number within the limits.
    """
    return _number(reply.get(name), name, low, high)


def numbers(reply: dict[str, object], name: str) -> tuple[float, ...]:
    """Return the list of finite times called `name`, none negative.

    Args:
        reply: The device's answer.
        name: Name of a field.

    Raises:
        DeviceError: The field is no such list.
    """
    return tuple(_number(value, name, 0, 1e9) for value in _field(reply, name, list))


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DeviceError(f"the device sent {name} = {ascii(value)[:40]}, not a number from {low:g} to {high:g}")
    return float(value)  # NaN is not between any two numbers


def _field(reply: dict[str, object], name: str, kind: type[Kind]) -> Kind:
    value = reply.get(name)
    if not isinstance(value, kind):
        raise DeviceError(f"the device sent no {kind.__name__} called {name}")
    return value


def parse_upload_state(reply: dict[str, object], size: int) -> tuple[bool, int]:
    """Return whether the device has a blob, and how many of its bytes it has from an upload cut short.

    Args:
        reply: The device's answer to `stat`.
        size: Bytes of the blob.
    """
    partial = int(number({"partial": 0} | reply, "partial", 0, 1 << 60))
    return reply.get("have") is True, partial if partial <= size else 0


def logits(raw: bytes, reply: dict[str, object], rows: int) -> bytes:
    """Return the raw float32 logits of shape (rows, classes) if they are as long as the reply announces.

    Args:
        raw: The blob that came with the reply.
        reply: The device's answer, with `shape` and `bytes`.
        rows: Number of inputs.

    Raises:
        DeviceError: Shape, announced length and length do not agree.
    """
    shape = _field(reply, "shape", list)
    if len(shape) != 2 or shape[0] != rows or reply.get("bytes") != len(raw):
        raise DeviceError(f"the device sent logits of shape {ascii(shape)[:40]} for {rows} rows")
    classes = number({"classes": shape[1]}, "classes", 1, 1e7)
    if len(raw) != 4 * rows * int(classes):
        raise DeviceError(f"the device sent {len(raw)} bytes of logits for {rows} x {classes:g}")
    return raw
