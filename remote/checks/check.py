"""Define the result of one check, and read a device's survey defensively."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

NOT_SHOWN = "not shown by this device"


@dataclass(frozen=True)
class Check:
    """Hold the finding of one check, its severity for timings, and the remedy.

    Attributes:
        name: Subject of the check.
        verdict: ok, warn (timings may be slower or noisier) or bad (timings would be worthless).
        found: The finding, one line.
        mend: A command or an advice, made of our own words and of numbers only: no text of a device gets into a line
            that a user may paste into a shell.
    """

    name: str
    verdict: Literal["ok", "warn", "bad"]
    found: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class RuntimeTrial:
    """Hold the outcome of a small model, and of the reference model, in one runtime of a device.

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
    """Return whether the device is fit to be measured: no check is bad."""
    return all(check.verdict != "bad" for check in checks)


@dataclass(frozen=True)
class UntrustedReply:
    """Read a device's reply without trusting it: a missing field, or one of the wrong kind, counts as not shown."""

    reply: Mapping[str, object]

    def number(self, name: str, low: float = 0.0, high: float = 1e15) -> float | None:
        """Return the finite number called `name`; None where it is not shown or not within the limits.

        Args:
            name: Name of a field.
            low: Smallest value accepted.
            high: Largest value accepted.
        """
        return _number(self.reply.get(name), low, high)

    def flag(self, name: str) -> bool | None:
        """Return the truth value called `name`."""
        value = self.reply.get(name)
        return value if isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """Return the printable characters of a text, cut short; empty if it is not shown."""
        return _text(self.reply.get(name))

    def bits(self, name: str) -> int | None:
        """Return the hex digits called `name` as a number."""
        digits = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,16})", self.text(name))
        return int(digits[1], 16) if digits else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the non-empty texts of a list."""
        return tuple(filter(None, (_text(value) for value in self._list(name))))

    def numbers(self, name: str, low: float = 0.0, high: float = 1e15) -> tuple[float, ...]:
        """Return the finite numbers of a list that lie within the limits.

        Args:
            name: Name of a field.
            low: Smallest value accepted.
            high: Largest value accepted.
        """
        found = (_number(value, low, high) for value in self._list(name))
        return tuple(value for value in found if value is not None)

    def numbers_of(self, name: str, low: float = 0.0, high: float = 1e15) -> dict[str, float]:
        """Return the finite numbers of an object that lie within the limits, by name.

        Args:
            name: Name of a field.
            low: Smallest value accepted.
            high: Largest value accepted.
        """
        value = self.reply.get(name)
        pairs = list(value.items())[:200] if isinstance(value, dict) else []
        found = {_text(key): _number(number, low, high) for key, number in pairs}
        return {key: number for key, number in found.items() if number is not None}

    def words(self, name: str) -> dict[str, str]:
        """Return the texts of an object, by name."""
        value = self.reply.get(name)
        pairs = list(value.items())[:200] if isinstance(value, dict) else []
        return {_text(key): _text(word) for key, word in pairs if _text(word)}

    def rows(self, name: str) -> tuple[UntrustedReply, ...]:
        """Return the objects of a list."""
        return tuple(UntrustedReply(value) for value in self._list(name) if isinstance(value, dict))

    def _list(self, name: str) -> list[object]:
        value = self.reply.get(name)
        return value[:200] if isinstance(value, list) else []


def _number(value: object, low: float, high: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return None  # NaN is not between any two numbers
    return float(value)


def _text(value: object) -> str:
    return "".join(letter for letter in value[:100] if letter.isprintable()) if isinstance(value, str) else ""
