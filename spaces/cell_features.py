"""What the wiring of a cell tells of a network: the operations that data flows through, and the ways it takes.

A cell is a directed graph with an operation on every edge, as in NAS-Bench-201, DARTS and their like. An axis says
which operation an edge has, not whether anything reaches it: accuracy is told from paths far better than from edges
(White et al., BANANAS: Bayesian optimization with neural architectures, 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

Array = NDArray[numpy.float64]


@dataclass(frozen=True)
class Cell:
    """Axes as edges. Data enters at the first node and leaves at the last; nodes are numbered along its way."""

    edges: Mapping[str, tuple[int, int]]  # axis -> the nodes it leads from and to
    absent: Any  # the value of an edge that is not there
    passes: Any  # the value of an edge that hands on what it gets

    def paths(self) -> list[tuple[int, ...]]:
        """Ways from the first node to the last, as places among the edges."""
        last = max(to for _, to in self.edges.values())
        return list(self._onwards(min(start for start, _ in self.edges.values()), last))

    def numbers(self, values: NDArray[Any]) -> list[Array]:
        """Of cells (N, edges), the values of their edges, one array (N,) a number; paths with an absent edge are none.

        How many paths; the most and fewest operations that compute along one (fewest: all edges, where there is no
        path); and for each operation, edges it is on that data flows through, paths through it, and how often the
        path that has it most has it.
        """
        paths = self.paths()
        there = values != self.absent
        whole = numpy.stack([there[:, list(path)].all(axis=1) for path in paths], axis=1)  # (N, paths)
        flows = numpy.zeros(values.shape, dtype=bool)
        for path, open_ in zip(paths, whole.T, strict=True):
            flows[:, list(path)] |= open_[:, None]
        computing = _along(paths, there & (values != self.passes))
        fewest = numpy.where(whole, computing, values.shape[1]).min(axis=1)
        numbers = [whole.sum(axis=1), (computing * whole).max(axis=1), fewest]
        for operation in sorted(set(values.flat) - {self.absent}):
            had = _along(paths, values == operation) * whole
            numbers += [(flows & (values == operation)).sum(axis=1), (had > 0).sum(axis=1), had.max(axis=1)]
        return [number.astype(float) for number in numbers]

    def _onwards(self, node: int, last: int) -> Iterator[tuple[int, ...]]:
        if node == last:
            yield ()
        for place, (start, to) in enumerate(self.edges.values()):
            if start == node:
                yield from ((place, *rest) for rest in self._onwards(to, last))


def _along(paths: Sequence[tuple[int, ...]], marked: NDArray[numpy.bool_]) -> NDArray[numpy.int64]:
    """(N, paths) how many edges of each path are marked (N, edges)."""
    return numpy.stack([marked[:, list(path)].sum(axis=1) for path in paths], axis=1)
