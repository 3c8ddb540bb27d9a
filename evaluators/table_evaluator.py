"""Evaluate candidates by lookup in a table of published measurements, and count the lookups."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import pandas

from evaluators.measurement import Accuracy, Failure, Interval, Latency, Structure
from remote.errors import FailureKind
from spaces.candidate import Candidate
from spaces.space import SpaceError
from spaces.table_space import TableSpace

IMAGES = 10_000  # assumed number of images behind an accuracy of a table, for its standard error


class TableEvaluator:
    """Evaluate candidates by one latency column and one data set of a table.

    Attributes:
        columns: Accuracy column of each fidelity, by epochs.
        looked_up: Number of lookups by stage.
    """

    def __init__(self, space: TableSpace, device: str, data: str, percentile: float = 95.0) -> None:
        """Select the columns.

        Args:
            space: Space with the rows of the table.
            device: Name of the latency column.
            data: Name of the data set, which completes the names of the accuracy columns.
            percentile: Percentile that latencies are reported as, 0..100.

        Raises:
            SpaceError: The table has no such column, or it is not numeric.
        """
        self._space, self._percentile = space, percentile
        self.columns = {space.epochs: space.accuracy.format(data=data)}
        self.columns |= {epochs: column.format(data=data) for column, epochs in space.low}
        for what, column in [("device", device), *(("data", name) for name in self.columns.values())]:
            if column not in space.rows or not pandas.api.types.is_numeric_dtype(space.rows[column]):
                there = ", ".join(str(name) for name in space.rows.select_dtypes("number").columns)
                raise SpaceError(f"table {space.name} has no {what} column {column!r}; accepted: {there}")
        self._device = device
        self.looked_up: Counter[str] = Counter()

    @property
    def rungs(self) -> tuple[int, ...]:
        """Return the available fidelities, in epochs, lowest first."""
        return tuple(sorted(self.columns))

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the parameters and multiply-accumulates that the table lists for a network."""
        columns = self._space.parameters, self._space.macs
        sizes = [self._number(candidate, column.name) * column.unit for column in columns]
        if not all(map(math.isfinite, sizes)):
            return Failure("structure", FailureKind.UNBUILDABLE, f"the table gives no size of {candidate.variant}")
        return Structure(
            parameters=int(sizes[0]),
            macs=int(sizes[1]),
            onnx_bytes=4 * int(sizes[0]),
            parity_max_abs=0.0,
            exporter="table",
            opset=0,
        )

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Return the latency in the table; an empty cell, or one not above 0, is a network that could not run.

        Args:
            candidate: Its variant names the row.
            limit_ms: Has no effect.
        """
        self.looked_up["latency"] += 1
        return self._latency(candidate)

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Return the latency in the table again."""
        self.looked_up["confirm"] += 1
        return self._latency(candidate)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the accuracy in the column of that many epochs."""
        self.looked_up[f"accuracy@{epochs}"] += 1
        return self._accuracy(candidate, epochs, "validation")

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the same accuracy: a table has no separate test images."""
        return self._accuracy(candidate, epochs, "test")

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Return "", since there is no file."""
        return ""

    def _number(self, candidate: Candidate, column: str) -> float:
        """Return one cell; NaN if it is empty."""
        cell: Any = self._space.rows.at[candidate.variant, column]
        return float(cell)

    def _latency(self, candidate: Candidate) -> Latency | Failure:
        value = self._number(candidate, self._device)
        if not value > 0:
            return Failure("latency", FailureKind.UNBUILDABLE, f"the table has no latency of {candidate.variant}")
        exactly = Interval(value, value, value)
        return Latency(
            percentile=self._percentile,
            percentile_ms=exactly,
            median_ms=exactly,
            rank_ms=exactly,
            peak_mb=0.0,
            runtime_mb=0.0,
            load_ms=0.0,
            samples=1,
            blocks=1,
            repeated=0,
            disturbed="",
            model_sha256=hashlib.sha256(candidate.variant.encode()).hexdigest(),
            runtime_version="table",
        )

    def _accuracy(self, candidate: Candidate, epochs: int, split: str) -> Accuracy | Failure:
        value = self._number(candidate, self.columns[epochs]) * self._space.accuracy_unit
        if not 0 <= value <= 1:
            return Failure("accuracy", FailureKind.UNBUILDABLE, f"the table has no accuracy of {candidate.variant}")
        return Accuracy(
            top1=value,
            correct=round(value * IMAGES),
            count=IMAGES,
            epochs=epochs,
            split=split,
            model_sha256=candidate.variant,
        )
