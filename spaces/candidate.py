"""Describe one point of the joint space as plain data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any

from remote.errors import CandidateFaultError, FailureKind
from spaces.family_files import identity, is_fixed

USUAL_RUNTIME = "onnxruntime"  # runs on every device, so descriptions leave it out


class UnbuildableError(CandidateFaultError, ValueError):
    """Raised for a candidate that cannot be built. The message is one line.

    The failure is the candidate's own, neither the device's nor this machine's.

    Attributes:
        kind: Kind of the recorded `Failure`.
    """

    kind = FailureKind.UNBUILDABLE


class NoGainError(UnbuildableError):
    """Raised when a compression step saves no multiply-accumulates, or adds some."""

    kind = FailureKind.NO_GAIN


@dataclass(frozen=True)
class Candidate:
    """Describe a network that is built, compressed, run and timed.

    Attributes:
        family: Name of a module in `spaces/families/`, or path and digest of a user's file (`spaces/family_files.py`).
        variant: Row of the family's table, such as `mobilenet_v2`; unique over all families.
        image_px: Side of the square input, in px.
        steps: Compression operations in the order in which they are applied, as (name, amount). The name is a module
            in `spaces/operations/`, the amount its strength (for `prune` the fraction of channels removed, 0..1).
        precision: `fp32`, `fp16` or `int8`.
        runtime: Name of the runtime on the device.
        threads: Number of CPU threads.
        options: Non-default options of the steps, as (axis name such as `prune_by`, value); sorted, so that equal
            networks compare equal.
    """

    family: str
    variant: str
    image_px: int
    steps: tuple[tuple[str, float], ...] = ()
    _: KW_ONLY
    precision: str = "fp32"
    runtime: str = USUAL_RUNTIME
    threads: int = 1
    options: tuple[tuple[str, str], ...] = ()

    def amount(self, operation: str) -> float:
        """Return the strength of one compression operation, 0.0 if it is not applied."""
        return dict(self.steps).get(operation, 0.0)

    @property
    def compressed(self) -> bool:
        """Return whether the network is not the uncompressed one in fp32."""
        return bool(self.steps) or self.precision != "fp32"

    @property
    def fixed(self) -> bool:
        """Return whether this is a user's fixed classifier, which is neither trained nor compressed."""
        return is_fixed(self.family)

    def uncut(self) -> Candidate:
        """Return the candidate without its compression steps, which a compressed candidate must be faster than."""
        return replace(self, steps=(), options=())

    def describe(self) -> str:
        """Return a unique one-line description, such as `mobilenet_v2 128px prune 0.3 taylor late int8`.

        The runtime stands at the end, unless it is `USUAL_RUNTIME`.
        """
        steps = [" ".join([name, f"{amount:g}", *self._options_of(name)]) for name, amount in self.steps]
        threads = [f"{self.threads} threads"] if self.threads > 1 else []
        runtime = [self.runtime] if self.runtime != USUAL_RUNTIME else []
        fixed = ["fixed"] if self.fixed else []
        return " ".join([self.variant, f"{self.image_px}px", *fixed, *steps, self.precision, *threads, *runtime])

    # One training serves every precision and runtime of a structure, and one graph serves every runtime option.
    # Each of the three keys therefore identifies what one kind of work depends on.
    def structure_key(self) -> str:
        """Return 12 hex digits that identify the trained network."""
        return _digest([identity(self.family), self.variant, self.image_px, self.steps, *self.options])

    def graph_key(self) -> str:
        """Return 12 hex digits that identify the exported graph."""
        return _digest([self.structure_key(), self.precision])

    def key(self) -> str:
        """Return 12 hex digits that identify the timed candidate, all of its fields included."""
        return _digest([self.graph_key(), self.runtime, self.threads])

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values; `from_dict` is the inverse."""
        return asdict(self) | {"steps": [list(s) for s in self.steps], "options": [list(o) for o in self.options]}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Candidate:
        """Build the candidate from the values that `to_dict` returned."""
        steps = tuple((str(name), float(amount)) for name, amount in data["steps"])
        options = tuple((str(name), str(value)) for name, value in data.get("options", ()))
        return Candidate(**(data | {"steps": steps, "options": options}))

    def _options_of(self, operation: str) -> list[str]:
        return [value for name, value in self.options if name.startswith(f"{operation}_")]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
