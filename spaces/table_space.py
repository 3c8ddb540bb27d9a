"""Define a space whose candidates are the rows of a published table of measurements."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from spaces.candidate import Candidate
from spaces.cell_features import Cell
from spaces.space import SpaceError, SuggestsParameters, Value

TABLES = Path(__file__).parent / "tables"
KEYS = {"title", "key", "files", "image_px", "axes", "numbers", "macs", "parameters"}
KEYS |= {"accuracy", "accuracy_unit", "epochs", "low"}
OPTIONAL = {"cell"}


@dataclass(frozen=True)
class Column:
    """Describe a column of the table and its unit.

    Attributes:
        name: Name of the column.
        unit: Size of the column's unit, such as 1e6 for millions.
    """

    name: str
    unit: float


@dataclass(frozen=True, kw_only=True)
class TableSpace:
    """Describe a search space over the rows of a table.

    Attributes:
        name: Name of the table, the stem of its TOML file.
        title: One-line description.
        rows: The rows, indexed by their key as text.
        axes: Categorical columns that together identify a row; empty if only the key does.
        numeric: Columns that are known before any measurement.
        macs: Column of the multiply-accumulates.
        parameters: Column of the parameter counts.
        accuracy: Name of the accuracy column, with a place for `{data}`.
        accuracy_unit: Factor that turns the accuracy column into fractions 0..1.
        epochs: Training epochs of full fidelity.
        low: Accuracy columns of lower fidelity, as (column, epochs).
        image_px: Side of the square input in px, or the name of the column that holds it.
        cell: Wiring of the axes, if they are the edges of a cell.
        left_out: Excluded values; always empty for a table.
    """

    name: str
    title: str
    rows: pandas.DataFrame
    axes: tuple[str, ...]
    numeric: tuple[str, ...]
    macs: Column
    parameters: Column
    accuracy: str
    accuracy_unit: float
    epochs: int
    low: tuple[tuple[str, int], ...]
    image_px: int | str
    cell: Cell | None = None
    left_out: tuple[str, ...] = ()

    def size(self) -> int:
        """Count the candidates."""
        return len(self.rows)

    def params(self) -> Iterator[dict[str, Value]]:
        """Iterate over all rows as the parameters that a trial would suggest."""
        if not self.axes:
            yield from ({"variant": key} for key in self.rows.index)
            return
        columns = [self.rows[axis].tolist() for axis in self.axes]
        yield from (dict(zip(self.axes, values, strict=True)) for values in zip(*columns, strict=True))

    def numbers(self) -> list[tuple[float, ...]]:
        """Return the features known before any measurement, in the order of `params`: columns, then the cell's."""
        columns = [pandas.to_numeric(self.rows[name], errors="coerce").tolist() for name in self.numeric]
        if self.cell:
            columns += [number.tolist() for number in self.cell.numbers(self.rows[list(self.cell.edges)].to_numpy())]
        return list(zip(*columns, strict=True))

    def suggest(self, trial: SuggestsParameters) -> Candidate:
        """Return the candidate that a trial suggests."""
        return self.candidate({axis: trial.suggest_categorical(axis, list(self.values[axis])) for axis in self.values})

    def candidate(self, params: Mapping[str, Value]) -> Candidate:
        """Return the candidate of a trial's parameters.

        Raises:
            SpaceError: No row has these values.
        """
        if not self.axes:
            return self._of(str(params["variant"]))
        key = self._keys.get(tuple(params[axis] for axis in self.axes))
        if key is None:
            raise SpaceError(f"table {self.name} has no row with {dict(params)}")
        return self._of(key)

    def params_of(self, candidate: Candidate) -> dict[str, Value]:
        """Return the trial parameters of a candidate; the inverse of `candidate`."""
        if not self.axes:
            return {"variant": candidate.variant}
        cells: dict[str, Any] = {axis: self.rows.at[candidate.variant, axis] for axis in self.axes}
        return {axis: cell.item() if hasattr(cell, "item") else cell for axis, cell in cells.items()}

    def parents(self) -> tuple[Candidate, ...]:
        """Return the network with the most multiply-accumulates, which is the greedy choice if latency is ignored."""
        return (self._of(str(self.rows[self.macs.name].idxmax())),)

    @cached_property
    def values(self) -> dict[str, tuple[Value, ...]]:
        """Return the values of each parameter."""
        if not self.axes:
            return {"variant": tuple(self.rows.index)}
        return {axis: tuple(sorted(self.rows[axis].unique().tolist())) for axis in self.axes}

    @cached_property
    def _keys(self) -> dict[tuple[Value, ...], str]:
        columns = [self.rows[axis].tolist() for axis in self.axes]
        return dict(zip(zip(*columns, strict=True), self.rows.index, strict=True))

    def _of(self, key: str) -> Candidate:
        px = self.image_px if isinstance(self.image_px, int) else int(str(self.rows.at[key, self.image_px]))
        return Candidate(family=self.name, variant=key, image_px=px, runtime="table")


def tables() -> tuple[str, ...]:
    """Return the names of the tables that `load_table` accepts."""
    return tuple(sorted(path.stem for path in TABLES.glob("*.toml")))


def load_table(name: str, folder: Path) -> TableSpace:
    """Load a table of measurements.

    Args:
        name: Name of a file in `spaces/tables/`, or path of a TOML file with the same keys.
        folder: Folder that holds the table's data files.

    Raises:
        SpaceError: The description or a data file is missing, unreadable or incomplete.
    """
    path = TABLES / f"{name}.toml" if name in tables() else Path(name)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpaceError(f"no table {name!r}: name one of {', '.join(tables())}, or a TOML file like them") from None
    except (OSError, ValueError) as error:
        raise SpaceError(f"{path} can't be read as TOML: {error}") from None
    if odd_keys := (set(told) - OPTIONAL) ^ KEYS:
        odd = ", ".join(sorted(odd_keys))
        raise SpaceError(f"{path}: a table has the keys {', '.join(sorted(KEYS))}; here these differ: {odd}")
    return _space(path, told, _join_files(path, told, folder))


def _space(path: Path, told: Mapping[str, Any], rows: pandas.DataFrame) -> TableSpace:
    wanted = [*told["axes"], *told["numbers"], told["macs"]["column"], told["parameters"]["column"]]
    if missing := [column for column in wanted if column not in rows]:
        raise SpaceError(f"{path}: unknown column {missing[0]!r}; accepted: {', '.join(map(str, rows.columns))}")
    return TableSpace(
        name=path.stem,
        title=str(told["title"]),
        rows=rows,
        axes=tuple(told["axes"]),
        numeric=tuple(told["numbers"]),
        macs=Column(told["macs"]["column"], float(told["macs"]["unit"])),
        parameters=Column(told["parameters"]["column"], float(told["parameters"]["unit"])),
        accuracy=str(told["accuracy"]),
        accuracy_unit=float(told["accuracy_unit"]),
        epochs=int(told["epochs"]),
        low=tuple((str(one["column"]), int(one["epochs"])) for one in told["low"]),
        image_px=told["image_px"],
        cell=_cell(path, told["cell"], told["axes"]) if "cell" in told else None,
    )


def _cell(path: Path, told: Any, axes: Sequence[str]) -> Cell:
    """Return the wiring of these axes; each edge must lead from a node to one of a higher number."""
    try:
        edges = {axis: (int(start), int(to)) for axis, (start, to) in told["edges"].items()}
        cell = Cell(edges, told["absent"], told["passes"])
        right = set(edges) <= set(axes) and all(start < to for start, to in edges.values()) and bool(cell.paths())
    except (KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise SpaceError(
            f"{path}: `cell` has `absent` and `passes`, two values of the axes, and `edges` with axis = [from, to], "
            f"from < to, for some of the axes {', '.join(axes)}; here it is {told}"
        )
    return cell


def _join_files(path: Path, told: Mapping[str, Any], folder: Path) -> pandas.DataFrame:
    """Join the files by key: one row per key, with the columns of every file."""
    parts, keys = [], [told["key"]] if isinstance(told["key"], str) else list(told["key"])
    for file in told["files"]:
        try:
            part = pandas.read_csv(folder / file, dtype=dict.fromkeys(keys, str))
        except FileNotFoundError:
            raise SpaceError(
                f"no {folder / file}: --table takes the folder that holds {', '.join(told['files'])}"
            ) from None
        except (OSError, ValueError) as error:
            raise SpaceError(f"{folder / file} can't be read as a table: {error}") from None
        if missing := [key for key in keys if key not in part]:
            raise SpaceError(f"{folder / file} has no column {missing[0]!r}, a key of {path.name}")
        part.index = pandas.Index(["@".join(row) for row in zip(*(part[key] for key in keys), strict=True)])
        parts.append(part[~part.index.duplicated()])
    rows = parts[0]
    for part in parts[1:]:
        rows = rows.join(part[[column for column in part if column not in rows]])
    return rows
