"""Describe which weights of a folder serve a space, as plain data that a process without torch can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightsReport:
    """Describe which weight files of a folder serve the networks of a space.

    Attributes:
        used: By variant, the file whose weights it starts from and their place in the file, or `SCRATCH`.
        digests: By variant, the SHA-256 of that file; variants that start from scratch are left out.
        unused: Names of the folder's weight files that no network of the space starts from.
    """

    used: Mapping[str, str]
    digests: Mapping[str, str]
    unused: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """Return one line per network, and one line for the unused files if there are any."""
        rest = [f"weights not used in this space: {', '.join(self.unused)}"] if self.unused else []
        return (*(f"weights of {variant}: {what}" for variant, what in self.used.items()), *rest)

    def describe(self) -> str:
        """Return the used weights of all networks in one line, for the report."""
        return "; ".join(f"{variant}: {what}" for variant, what in self.used.items())
