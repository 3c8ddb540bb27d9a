"""What a folder of weights has for a space, as plain data that a process without torch can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightsReport:
    """What a folder of weights has for the networks of a space.

    Attributes:
        used: by variant, the file whose weights it starts from and where in it they lie, or that it has none.
        digests: by variant, the SHA-256 of that file; without those that start from scratch.
        unused: names of the folder's weight files that no network of the space starts from.
    """

    used: Mapping[str, str]
    digests: Mapping[str, str]
    unused: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """Return one line a network, and one for the files that are not used."""
        rest = [f"weights not used in this space: {', '.join(self.unused)}"] if self.unused else []
        return (*(f"weights of {variant}: {what}" for variant, what in self.used.items()), *rest)

    def describe(self) -> str:
        """Return all of it in one line, for the report."""
        return "; ".join(f"{variant}: {what}" for variant, what in self.used.items())
