"""One thing looked at on a device, and the device's survey read with care."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

NOT_SHOWN = "not shown by this device"


@dataclass(frozen=True)
class Check:
    """What was found, how bad it is for timings, and what mends it.

    `mend` is a command or an advice, made of our own words and of numbers only: nothing a device says gets into
    what somebody may paste into a shell.
    """

    name: str
    verdict: Literal["ok", "warn", "bad"]
    found: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class RuntimeTrial:
    """What became of a small model, and of the reference model, in one runtime of a device.

    Attributes:
        ms: Median latency of the reference model, in milliseconds; None where it did not run.
        difference: Largest difference of the device's answer from this machine's, relative to the largest value.
        failed: Why no search can use the runtime, one line; empty where one can.
        mend: What to do about that.
        skipped: Why it was not tried, one line; empty where it was.
        why_not: Precision that is not to be offered -> the reason.
        basis: Precision -> how it is known whether it runs.
    """

    ms: float | None = None
    difference: float | None = None
    failed: str = ""
    mend: str = ""
    skipped: str = ""
    why_not: Mapping[str, str] = field(default_factory=dict)
    basis: Mapping[str, str] = field(default_factory=dict)


NOT_TRIED = RuntimeTrial(skipped="no model was run in it")


def fit(checks: Sequence[Check]) -> bool:
    """True if the device is fit to be measured."""
    return all(check.verdict != "bad" for check in checks)


@dataclass(frozen=True)
class UntrustedReply:
    """A device's reply, of which nothing is believed: what is missing or of the wrong kind is as if not shown."""

    reply: Mapping[str, Any]

    def number(self, name: str, low: float = 0.0, high: float = 1e15) -> float | None:
        """The finite number called `name`, if it lies within the limits."""
        return _number(self.reply.get(name), low, high)

    def flag(self, name: str) -> bool | None:
        value = self.reply.get(name)
        return value if isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """Printable text, cut short; empty if it is not shown."""
        return _text(self.reply.get(name))

    def bits(self, name: str) -> int | None:
        """The hex digits called `name` as a number."""
        digits = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,16})", self.text(name))
        return int(digits[1], 16) if digits else None

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(filter(None, (_text(value) for value in self._list(name))))

    def numbers(self, name: str, low: float = 0.0, high: float = 1e15) -> tuple[float, ...]:
        found = (_number(value, low, high) for value in self._list(name))
        return tuple(value for value in found if value is not None)

    def numbers_of(self, name: str, low: float = 0.0, high: float = 1e15) -> dict[str, float]:
        """The finite numbers of an object, by name."""
        value = self.reply.get(name)
        pairs = list(value.items())[:200] if isinstance(value, dict) else []
        found = {_text(key): _number(number, low, high) for key, number in pairs}
        return {key: number for key, number in found.items() if number is not None}

    def words(self, name: str) -> dict[str, str]:
        """The texts of an object, by name."""
        value = self.reply.get(name)
        pairs = list(value.items())[:200] if isinstance(value, dict) else []
        return {_text(key): _text(word) for key, word in pairs if _text(word)}

    def rows(self, name: str) -> tuple[UntrustedReply, ...]:
        """The objects of a list."""
        return tuple(UntrustedReply(value) for value in self._list(name) if isinstance(value, dict))

    def _list(self, name: str) -> list[Any]:
        value = self.reply.get(name)
        return value[:200] if isinstance(value, list) else []


def _number(value: Any, low: float, high: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None  # NaN is not between any two numbers
    return float(value)


def _text(value: Any) -> str:
    return "".join(letter for letter in value[:100] if letter.isprintable()) if isinstance(value, str) else ""
