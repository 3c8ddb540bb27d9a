"""One point of the joint space, as plain data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from spaces.family_files import identity, is_fixed

USUAL_RUNTIME = "onnxruntime"  # runs on every device, so that people need not be told of it


class UnbuildableError(ValueError):
    """A candidate that can't be: its own failure, in one line. `kind` is the kind of a `Failure`."""

    kind = "unbuildable"


class NoGainError(UnbuildableError):
    """A compression step that leaves a network as it was, or dearer."""

    kind = "no_gain"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is built, compressed, run and timed.

    `family` is a file in `spaces/families/`, or path and digest of one of the user's (`spaces/family_files.py`).
    `variant` is a row of a family's table (`mobilenet_v2`), unique over all families. `steps` are the
    compression operations in the order they are applied: a name is a file in `spaces/operations/`, an
    amount its strength (for `prune` the fraction of channels removed, 0..1). `options` say how, by axis name
    (`prune_by`), where a step is applied otherwise than by default; sorted, so that equal networks are equal here.
    """

    family: str
    variant: str
    image_px: int
    steps: tuple[tuple[str, float], ...] = ()
    precision: str = "fp32"
    runtime: str = USUAL_RUNTIME
    threads: int = 1
    options: tuple[tuple[str, str], ...] = ()

    def amount(self, operation: str) -> float:
        """Strength of one compression operation; 0.0 where it is not applied."""
        return dict(self.steps).get(operation, 0.0)

    @property
    def compressed(self) -> bool:
        """True if anything but the plain fp32 network runs."""
        return bool(self.steps) or self.precision != "fp32"

    @property
    def fixed(self) -> bool:
        """True for a classifier that was given as it is: never trained, never cut."""
        return is_fixed(self.family)

    def uncut(self) -> Candidate:
        """The same candidate without its compression steps: what a step must be faster than."""
        return replace(self, steps=(), options=())

    def describe(self) -> str:
        """Return `mobilenet_v2 128px prune 0.3 taylor late int8`: a line for people, of no other candidate.

        The runtime stands at the end unless it is the usual one.
        """
        steps = [" ".join([name, f"{amount:g}", *self._options_of(name)]) for name, amount in self.steps]
        threads = [f"{self.threads} threads"] if self.threads > 1 else []
        runtime = [self.runtime] if self.runtime != USUAL_RUNTIME else []
        fixed = ["fixed"] if self.fixed else []
        return " ".join([self.variant, f"{self.image_px}px", *fixed, *steps, self.precision, *threads, *runtime])

    # One training serves every precision and runtime of a structure, one graph every runtime option:
    # so there are three keys, each naming what the work below it depends on.
    def structure_key(self) -> str:
        """12 hex digits naming what is trained."""
        return _digest([identity(self.family), self.variant, self.image_px, self.steps, *self.options])

    def graph_key(self) -> str:
        """12 hex digits naming what is exported."""
        return _digest([self.structure_key(), self.precision])

    def key(self) -> str:
        """12 hex digits naming what is timed: the whole candidate."""
        return _digest([self.graph_key(), self.runtime, self.threads])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is the inverse."""
        return asdict(self) | {"steps": [list(s) for s in self.steps], "options": [list(o) for o in self.options]}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Candidate:
        """The candidate `to_dict` described."""
        steps = tuple((str(name), float(amount)) for name, amount in data["steps"])
        options = tuple((str(name), str(value)) for name, value in data.get("options", ()))
        return Candidate(**(data | {"steps": steps, "options": options}))

    def _options_of(self, operation: str) -> list[str]:
        return [value for name, value in self.options if name.startswith(f"{operation}_")]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
