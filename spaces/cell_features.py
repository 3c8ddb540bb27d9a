"""Compute features of a cell's wiring: the operations and paths that data flows through.

A cell is a directed graph with an operation on every edge, as in NAS-Bench-201 and DARTS. An axis gives the operation
of an edge but not whether data reaches it. Paths therefore predict accuracy far better than edges do (White et al.,
BANANAS: Bayesian optimization with neural architectures, 2021).
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
    """Describe a cell whose edges are axes of a space.

    Data enters at the first node and leaves at the last; nodes are numbered in topological order.

    Attributes:
        edges: By axis, the nodes that the edge leads from and to.
        absent: Value of an axis that means no edge.
        passes: Value of an axis that means an identity edge.
    """

    edges: Mapping[str, tuple[int, int]]
    absent: object
    passes: object

    def paths(self) -> list[tuple[int, ...]]:
        """List all paths from the first node to the last, each as indices of its edges."""
        last = max(to for _, to in self.edges.values())
        return list(self._onwards(min(start for start, _ in self.edges.values()), last))

    def numbers(self, values: NDArray[Any]) -> list[Array]:
        """Compute the features of N cells; a path with an absent edge does not count.

        The features are the number of paths; the largest and smallest number of computing operations on one path (the
        smallest is the number of edges if there is no path); and for each operation the number of its edges that data
        flows through, the number of paths through it, and its largest number of occurrences on one path.

        Args:
            values: Edge values (N, edges), in the order of `edges`.

        Returns:
            One array (N,) per feature.
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
    """Count the marked edges (N, edges) of each path: (N, paths)."""
    return numpy.stack([marked[:, list(path)].sum(axis=1) for path in paths], axis=1)
