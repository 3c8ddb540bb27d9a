"""What operation files say of themselves, read without importing them: their libraries take seconds to load."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

DECLARED = "declared"  # what the device decides, where it was not asked: as the operation has it
OPERATIONS = Path(__file__).parent / "operations"


@dataclass(frozen=True)
class OperationSpec:
    """The literals `OPTIONS`, `MEASURED`, `EXCLUDED` and `LAST` of a file in `spaces/operations/`.

    `options`: name -> values, the default first; no value occurs twice in an operation, so that it needs no name
    where people read it. `excluded`: (family, value) -> why this family can't have this value of an option, or, where
    the value is empty, can't have the operation at all. `measured`: name -> default of what no space names, since the
    device decides it. `last`: no other operation may come after it.
    """

    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: Mapping[tuple[str, str], str] = field(default_factory=dict)
    measured: Mapping[str, str] = field(default_factory=dict)
    last: bool = False


@dataclass(frozen=True)
class Option:
    """An option as an axis of a space, where it is called `<operation>_<name>`."""

    operation: str
    name: str
    values: tuple[str, ...]

    @property
    def default(self) -> str:
        """What holds where nothing is said."""
        return self.values[0]


@cache
def operations() -> Mapping[str, OperationSpec]:
    """What each operation declares, by the operation's name."""
    files = sorted(path for path in OPERATIONS.glob("*.py") if path.stem != "__init__")
    return {path.stem: _read(path) for path in files}


@cache
def options() -> Mapping[str, Option]:
    """Every operation's options, by the name of the axis."""
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
