"""Checked values from a device's replies. A reply is data from a stranger until it has passed here."""

from __future__ import annotations

from typing import Any

from remote.device import Facts
from remote.errors import CANDIDATE_KINDS, Cancelled, CandidateError, DeviceError

LISTS = ("wall_ms", "cpu_ms", "reference_wall_ms", "reference_cpu_ms")


def facts(reply: dict[str, Any]) -> Facts:
    """The device's answer to `hello`."""
    return Facts(
        machine=text(reply, "machine"),
        cpu=text(reply, "cpu"),
        cpu_flags=tuple(clean(flag) for flag in _typed(reply, "cpu_flags", list)[:2000]),
        cores=int(number(reply, "cores", 1, 4096)),
        memory_mb=int(number(reply, "memory_mb", 0, 1 << 30)),
        python=text(reply, "python"),
        boot_id=text(reply, "boot_id"),
        kernel=text(reply, "kernel"),
        runtimes={clean(name): clean(version) for name, version in _typed(reply, "runtimes", dict).items()},
    )


def block(reply: dict[str, Any], pairs: int) -> dict[str, Any]:
    """One timing: four tuples of equal length, 1 to `pairs` entries each, and what was seen beside them."""
    rows: dict[str, Any] = {name: numbers(reply, name) for name in LISTS}
    lengths = {len(rows[name]) for name in LISTS}
    if len(lengths) != 1 or not 1 <= lengths.pop() <= pairs:
        raise DeviceError("the device sent a timing whose lists do not match")
    if min(*rows["wall_ms"], *rows["reference_wall_ms"]) <= 0:
        raise DeviceError("the device sent a timing that took no time")
    return rows | {
        "peak_mb": number(reply, "peak_mb", 0, 1e8),
        "runtime_mb": number(reply, "runtime_mb", 0, 1e8),
        "load_ms": number(reply, "load_ms", 0, 1e8),
        "warmup_runs": int(number(reply, "warmup_runs", 0, 1e9)),
        "load_average": number(reply, "load_average", 0, 1e6),
    }


def error(reply: dict[str, Any]) -> Exception:
    """The exception an error reply stands for: the candidate's only for the kinds that are."""
    kind, reason = text(reply, "kind", 50), text(reply, "reason", 600)
    if kind in CANDIDATE_KINDS:
        return CandidateError(kind, reason)
    if kind == "cancelled":
        return Cancelled(reason)
    if kind == "no_runtime":
        return DeviceError(f"{reason}; install the runtime for the Python that the device is used with")
    return DeviceError(f"{kind}: {reason}")


def clean(value: Any, length: int = 300) -> str:
    """Printable text, cut short: nothing a device says can move a terminal's cursor."""
    if not isinstance(value, str):
        raise DeviceError("the device sent something that is not text where text is due")
    return "".join(letter for letter in value[:length] if letter.isprintable())


def text(reply: dict[str, Any], name: str, length: int = 300) -> str:
    """The text called `name`."""
    return clean(reply.get(name), length)


def number(reply: dict[str, Any], name: str, low: float, high: float) -> float:
    """The finite number called `name`, within its limits."""
    return _number(reply.get(name), name, low, high)


def numbers(reply: dict[str, Any], name: str) -> tuple[float, ...]:
    """The list of finite times called `name`, none negative."""
    return tuple(_number(value, name, 0, 1e9) for value in _typed(reply, name, list))


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DeviceError(f"the device sent {name} = {str(value)[:40]}, not a number from {low:g} to {high:g}")
    return float(value)  # NaN is not between any two numbers


def _typed(reply: dict[str, Any], name: str, kind: type) -> Any:
    value = reply.get(name)
    if not isinstance(value, kind):
        raise DeviceError(f"the device sent no {kind.__name__} called {name}")
    return value


def have(reply: dict[str, Any]) -> bool:
    """True if the device says that it has the blob."""
    return reply.get("have") is True


def logits(raw: bytes, reply: dict[str, Any], rows: int) -> bytes:
    """float32 (rows, classes), as long as the reply says."""
    shape = _typed(reply, "shape", list)
    if len(shape) != 2 or shape[0] != rows or reply.get("bytes") != len(raw):
        raise DeviceError(f"the device sent logits of shape {str(shape)[:40]} for {rows} rows")
    classes = number({"classes": shape[1]}, "classes", 1, 1e7)
    if len(raw) != 4 * rows * int(classes):
        raise DeviceError(f"the device sent {len(raw)} bytes of logits for {rows} x {classes:g}")
    return raw
