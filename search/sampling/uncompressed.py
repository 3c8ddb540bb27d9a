"""Select uncompressed networks, with which a search begins if compressed networks derive from them.

Apart from size and precision they have their parent's accuracy, so their low-fidelity score is the most informative. A
compressed network must be faster than its uncompressed original.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.observations import Observations
from spaces.candidate import Candidate

LEAST_SHARE = 2  # a lower precision is rarely faster by more than this factor
USUAL_SHARE = 0.75  # usual latency with a lower precision relative to fp32: only a first guess
MARGIN = 0.95  # share of the budget that a predicted latency may take
FEW = 4  # candidates timed at a time until one is within the budget


class UncompressedCandidates:
    """Predict which uncompressed candidates keep the budget, from the latencies of the parents.

    Args:
        candidates: All N candidates of the space.
        plain: Parents among them.
        limit_ms: Latency limit in ms.
    """

    def __init__(self, candidates: Sequence[Candidate], plain: Collection[Candidate], limit_ms: float) -> None:
        self._candidates, self._limit_ms = candidates, limit_ms
        self._places = [place for place, candidate in enumerate(candidates) if not candidate.steps]
        self._plain = {(c.variant, c.runtime): place for place, c in enumerate(candidates) if c in plain}

    @property
    def all(self) -> bool:
        """Return True if the space has no compressed candidate."""
        return len(self._places) == len(self._candidates)

    def may_keep(self, known: Observations) -> NDArray[np.bool_]:
        """Return a mask (N,) of uncompressed candidates that may keep the budget by all that is known.

        Latency grows with the input's area, but more slowly than the area itself. A candidate that is larger than one
        over the budget is therefore over the budget as well.
        """
        found = np.zeros(len(self._candidates), dtype=bool)
        slow: dict[Candidate, int] = {}
        for too_slow in self._too_slow(known):
            slow[_scaleless(too_slow)] = min(too_slow.image_px, slow.get(_scaleless(too_slow), too_slow.image_px))
        for place in self._places:
            whole = self._candidates[place]
            found[place] = self._least_ms(whole, known) <= self._limit_ms and whole.image_px < slow.get(
                _scaleless(whole), np.inf
            )
        return found

    def likely_fastest(self, known: Observations) -> NDArray[np.int64]:
        """Return the fastest configuration of up to `FEW` networks, sorted by predicted latency."""
        best: dict[str, int] = {}
        keep = [int(place) for place in np.flatnonzero(self.may_keep(known))]
        for place in sorted(keep, key=lambda place: self._least_ms(self._candidates[place], known)):
            best.setdefault(self._candidates[place].variant, place)
        return np.array(list(best.values())[:FEW], dtype=np.int64)

    def likely_largest(self, known: Observations, bound: float = 1.0) -> NDArray[np.int64]:
        """Return the slowest configuration of each network that is expected to keep the budget, slowest first.

        The slowest configuration is likely the most accurate. A network without a configuration that is expected to
        keep the budget is represented by its fastest one.

        Args:
            known: Observations so far.
            bound: Ratio of a latency's upper confidence bound, which must keep the budget, to its rank.

        Returns:
            Indices of at most `FEW` candidates.
        """
        keep = [int(place) for place in np.flatnonzero(self.may_keep(known))]
        best: dict[str, tuple[bool, float, int]] = {}
        for place in keep:
            whole = self._candidates[place]
            expected_ms = known.latency_ms[place] if known.looks[place] else self._predict_ms(whole, known)
            sure = not (known.beyond[place] or known.unsure[place])
            fits = sure if known.looks[place] else expected_ms * bound <= MARGIN * self._limit_ms
            rank = (fits, expected_ms if fits else -expected_ms, place)
            best[whole.variant] = max(best.get(whole.variant, rank), rank)
        ordered = sorted(best.values(), key=lambda rank: (not rank[0], -rank[1]))
        return np.array([place for _, _, place in ordered[:FEW]], dtype=np.int64)

    def untried_largest(self, known: Observations) -> NDArray[np.int64]:
        """Return the slowest timed candidate of each network that has no accuracy of any fidelity yet, slowest first.

        Its parent is trained at its own size, so that it shows most of the network for the time of the parent.
        """
        tried = np.isfinite(known.brief) | np.isfinite(known.accuracy)
        seen = {self._candidates[place].variant for place in self._places if tried[place]}
        best: dict[str, int] = {}
        waiting = known.waiting()
        timed = [place for place in self._places if waiting[place]]
        for place in sorted(timed, key=lambda place: -known.latency_ms[place]):
            if self._candidates[place].variant not in seen:
                best.setdefault(self._candidates[place].variant, place)
        return np.array(list(best.values()), dtype=np.int64)

    def _predict_ms(self, whole: Candidate, known: Observations) -> float:
        """Return the latency in ms predicted from input area and the usual gain of a lower precision; 0 if unknown."""
        least_ms = self._least_ms(whole, known)
        return least_ms if whole.precision == "fp32" else least_ms * LEAST_SHARE * USUAL_SHARE

    def _too_slow(self, known: Observations) -> list[Candidate]:
        return [self._candidates[place] for place in self._places if known.beyond[place]]

    def _least_ms(self, whole: Candidate, known: Observations) -> float:
        """Return a lower bound of the latency in ms, derived from the parent's latency; 0 if that is unknown."""
        place = self._plain.get((whole.variant, whole.runtime))
        if place is None or not np.isfinite(known.latency_ms[place]):
            return 0.0
        plain = self._candidates[place]
        parts = (1 if whole.precision == plain.precision else LEAST_SHARE) * whole.threads / plain.threads
        return float(known.latency_ms[place]) * (whole.image_px / plain.image_px) ** 2 / parts


def _scaleless(candidate: Candidate) -> Candidate:
    return replace(candidate, image_px=0)
