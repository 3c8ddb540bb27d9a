"""Whole networks: what a search begins with where others are cut from them.

They have their parent's accuracy but for size and precision, so their first look tells most, and what is cut of them
must be faster than they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search.bayesopt.observations import Observations
from spaces.candidate import Candidate

LEAST_SHARE = 2  # a lower precision rarely leaves less than one part in so many of the latency
USUAL_SHARE = 0.75  # of the latency, that a lower precision leaves as a rule: no more than a first guess
MARGIN = 0.95  # of the budget, that an expected latency may take
FEW = 4  # timed at a time until one is within the budget


class UncompressedCandidates:
    """The whole ones among a space's candidates, and how slow they may be by what is known of the plain ones."""

    def __init__(self, candidates: Sequence[Candidate], plain: Collection[Candidate], limit_ms: float) -> None:
        self._candidates, self._limit_ms = candidates, limit_ms
        self._places = [place for place, candidate in enumerate(candidates) if not candidate.steps]
        self._plain = {(c.variant, c.runtime): place for place, c in enumerate(candidates) if c in plain}

    @property
    def all(self) -> bool:
        """True where nothing is cut anywhere."""
        return len(self._places) == len(self._candidates)

    def may_keep(self, known: Observations) -> NDArray[np.bool_]:
        """(N,) whole, and within the budget for all that is known.

        Latency grows with the input's area, by less than the area itself: what is larger than one that was too slow is
        too slow as well.
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
        """Return of each network the form that may be fastest, the fastest first, of so many networks as `FEW`."""
        best: dict[str, int] = {}
        keep = [int(place) for place in np.flatnonzero(self.may_keep(known))]
        for place in sorted(keep, key=lambda place: self._least_ms(self._candidates[place], known)):
            best.setdefault(self._candidates[place].variant, place)
        return np.array(list(best.values())[:FEW], dtype=np.int64)

    def likely_largest(self, known: Observations, bound: float = 1.0) -> NDArray[np.int64]:
        """Return of each network the slowest uncompressed form that is expected to keep the budget, slowest first.

        The slowest is likely the most accurate. A network none of whose forms is expected to keep it is given in the
        form that may be fastest.

        Args:
            known: What was measured so far.
            bound: How many times its rank the upper bound of a latency is, which is what must keep the budget.

        Returns:
            Places of `FEW` candidates at most.
        """
        keep = [int(place) for place in np.flatnonzero(self.may_keep(known))]
        best: dict[str, tuple[bool, float, int]] = {}
        for place in keep:
            whole = self._candidates[place]
            expected_ms = known.latency_ms[place] if known.looks[place] else self._predict_ms(whole, known)
            fits = not known.beyond[place] if known.looks[place] else expected_ms * bound <= MARGIN * self._limit_ms
            rank = (fits, expected_ms if fits else -expected_ms, place)
            best[whole.variant] = max(best.get(whole.variant, rank), rank)
        ordered = sorted(best.values(), key=lambda rank: (not rank[0], -rank[1]))
        return np.array([place for _, _, place in ordered[:FEW]], dtype=np.int64)

    def _predict_ms(self, whole: Candidate, known: Observations) -> float:
        """Return the latency by area and by what a lower precision leaves as a rule; 0 where nothing is known."""
        least_ms = self._least_ms(whole, known)
        return least_ms if whole.precision == "fp32" else least_ms * LEAST_SHARE * USUAL_SHARE

    def _too_slow(self, known: Observations) -> list[Candidate]:
        return [self._candidates[place] for place in self._places if known.beyond[place]]

    def _least_ms(self, whole: Candidate, known: Observations) -> float:
        """By the plain network; 0 where that is not known."""
        place = self._plain.get((whole.variant, whole.runtime))
        if place is None or not np.isfinite(known.latency_ms[place]):
            return 0.0
        plain = self._candidates[place]
        parts = (1 if whole.precision == plain.precision else LEAST_SHARE) * whole.threads / plain.threads
        return float(known.latency_ms[place]) * (whole.image_px / plain.image_px) ** 2 / parts


def _scaleless(candidate: Candidate) -> Candidate:
    return replace(candidate, image_px=0)
