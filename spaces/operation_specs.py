"""Read the declarations of compression operations without importing them, since that takes seconds."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

DECLARED = "declared"  # value of a measured option if nothing was measured on the device: the operation's own default
OPERATIONS = Path(__file__).parent / "operations"


@dataclass(frozen=True)
class OperationSpec:
    """Hold the literals `OPTIONS`, `MEASURED`, `EXCLUDED` and `LAST` of a file in `spaces/operations/`.

    Attributes:
        options: Values by option name, the default first. No value occurs twice in an operation, so descriptions can
            leave the option's name out.
        excluded: Reason by (family, value) why the family cannot have this value of an option; an empty value excludes
            the whole operation.
        measured: Default by name of the options that no space names, since a measurement on the device decides them.
        last: Whether no other operation may follow this one.
    """

    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: Mapping[tuple[str, str], str] = field(default_factory=dict)
    measured: Mapping[str, str] = field(default_factory=dict)
    last: bool = False


@dataclass(frozen=True)
class Option:
    """Describe an option as an axis of a space.

    Attributes:
        operation: Name of the compression operation.
        name: Name of the option; the axis is called `<operation>_<name>`.
        values: Accepted values, the default first.
    """

    operation: str
    name: str
    values: tuple[str, ...]

    @property
    def default(self) -> str:
        """Return the value that holds if none is given."""
        return self.values[0]


@cache
def operations() -> Mapping[str, OperationSpec]:
    """Return the declarations of every operation, by the operation's name."""
    files = sorted(path for path in OPERATIONS.glob("*.py") if path.stem != "__init__")
    return {path.stem: _read(path) for path in files}


@cache
def options() -> Mapping[str, Option]:
    """Return the options of every operation, by the name of the axis."""
    return {
        f"{operation}_{name}": Option(operation, name, values)
        for operation, declared in operations().items()
        for name, values in declared.options.items()
    }


def _read(path: Path) -> OperationSpec:
    found: dict[str, Any] = {"OPTIONS": {}, "EXCLUDED": {}, "MEASURED": {}, "LAST": False}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in found:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return OperationSpec(found["OPTIONS"], found["EXCLUDED"], found["MEASURED"], found["LAST"])
