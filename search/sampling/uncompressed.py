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
REACH = 1.05  # share of the budget up to which an expected latency is worth a timing: area scaling is pessimistic
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

    def edges(self, known: Observations, bound: float = 1.0) -> NDArray[np.int64]:
        """Return the candidates to time next, to find the largest input of each network and precision in the budget.

        A network and precision is done when the next larger input is over the budget or expected to be. A lower
        precision is left out where the network keeps the budget in fp32 at its largest input.

        Args:
            known: Observations so far.
            bound: Ratio of a latency's upper confidence bound, which must keep the budget, to its rank.

        Returns:
            Indices, of each network and precision at most one, most work first; empty when all are done.
        """
        groups: dict[Candidate, list[int]] = {}
        for place in self._places:
            groups.setdefault(_scaleless(self._candidates[place]), []).append(place)
        found = []
        for group, places in groups.items():
            places.sort(key=lambda place: self._candidates[place].image_px)
            whole = groups.get(replace(group, precision="fp32"), [])
            if group.precision != "fp32" and whole and self._fits(max(whole, key=self._px), known):
                continue
            edge = self._next_edge(places, known, bound)
            if edge is not None:
                found.append(edge)
        return np.array(sorted(found, key=lambda place: -self.work_ms(place, known)), dtype=np.int64)

    def _next_edge(self, places: Sequence[int], known: Observations, bound: float) -> int | None:
        """Return the largest input that may keep the budget, of those between the known ones within it and over it."""
        fitting = [place for place in places if self._fits(place, known)]
        over = [place for place in places if (known.looks[place] or known.failed[place]) and place not in fitting]
        low = max(map(self._px, fitting), default=0)
        high = min((px for px in map(self._px, over) if px > low), default=np.inf)
        between = [place for place in places if low < self._px(place) < high and not known.looks[place]]
        likely = [p for p in between if self._expect_ms(p, places, known) * bound <= REACH * self._limit_ms]
        return max(likely, key=self._px, default=None)

    def _fits(self, place: int, known: Observations) -> bool:
        """Return True if a timing showed that the candidate surely keeps the budget."""
        return bool(known.looks[place] and not (known.beyond[place] or known.unsure[place] or known.failed[place]))

    def _px(self, place: int) -> int:
        return self._candidates[place].image_px

    def _expect_ms(self, place: int, places: Sequence[int], known: Observations) -> float:
        """Return the latency in ms expected from the nearest timed input of the same network and precision."""
        timed = [p for p in places if known.looks[p] and np.isfinite(known.latency_ms[p])]
        if not timed:
            return self._predict_ms(self._candidates[place], known)
        nearest = min(timed, key=lambda p: abs(self._px(p) - self._px(place)))
        return float(known.latency_ms[nearest]) * (self._px(place) / self._px(nearest)) ** 2

    def work_ms(self, place: int, known: Observations) -> float:
        """Return the candidate's size, measured by its expected latency in ms in fp32; 0 if unknown."""
        whole = self._candidates[place]
        plain = self._plain.get((whole.variant, whole.runtime))
        if plain is None or not np.isfinite(known.latency_ms[plain]):
            return 0.0
        return float(known.latency_ms[plain]) * (whole.image_px / self._px(plain)) ** 2

    def work(self, known: Observations) -> NDArray[np.float64]:
        """Return (N,) `work_ms` of each uncompressed candidate, nan for the others."""
        found = np.full(len(self._candidates), np.nan)
        found[self._places] = [self.work_ms(place, known) for place in self._places]
        return found

    def find_untried(self, known: Observations) -> NDArray[np.int64]:
        """Return the largest timed candidate of each network that has no accuracy of any fidelity yet, most work first.

        Those that surely keep the budget precede the others of their network. The parent is trained at the candidate's
        own size, so that it shows most of the network for the time of the parent.
        """
        tried = np.isfinite(known.brief) | np.isfinite(known.accuracy)
        seen = {self._candidates[place].variant for place in self._places if tried[place]}
        best: dict[str, int] = {}
        waiting = known.waiting()
        timed = [place for place in self._places if waiting[place]]
        for place in sorted(timed, key=lambda place: (known.unsure[place], -self.work_ms(place, known))):
            if self._candidates[place].variant not in seen:
                best.setdefault(self._candidates[place].variant, place)
        return np.array(sorted(best.values(), key=lambda place: -self.work_ms(place, known)), dtype=np.int64)

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
