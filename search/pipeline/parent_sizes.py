"""Choose the input size at which each network's parent is trained."""

from __future__ import annotations

from collections.abc import Callable

from evaluators.measurement import Latency
from search.budget import Budget
from search.storage.cached_evaluator import CachedEvaluator
from search.storage.ledger import Ledger
from spaces.candidate import Candidate
from spaces.space import Space

STAGE = "parent_px"


class ParentSizes:
    """Choose the input size of each network's parent, once per run.

    A network is trained at about the largest size at which its uncompressed form keeps the budget, in fp32 or in the
    precision of the first candidate that needs it, which then is its parent without any loss. Larger sizes are
    rarely chosen, and training at a larger size takes more time without improving the candidates (Touvron et al.,
    Fixing the train-test resolution discrepancy, 2019). The greedy baseline is its own parent at the largest size.
    """

    def __init__(
        self, evaluator: CachedEvaluator, ledger: Ledger, space: Space, budget: Budget, now_s: Callable[[], float]
    ) -> None:
        """Prepare the choice.

        Args:
            evaluator: Evaluator with the timings of the uncompressed networks.
            ledger: Ledger that stores each decision.
            space: Search space.
            budget: Limits of the run.
            now_s: Function that returns the seconds since the session began, which date the decisions.
        """
        self._evaluator, self._ledger, self._space, self._budget, self._now_s = evaluator, ledger, space, budget, now_s
        self._plain = {parent.variant: parent for parent in space.parents()}

    def of(self, candidate: Candidate) -> int:
        """Return the input size in px at which the candidate's parent is trained."""
        plain = self._plain[candidate.variant]
        if candidate == plain:
            return candidate.image_px
        known = self._ledger.get(STAGE, candidate.variant)
        if known is None:
            known = self._ledger.put(STAGE, candidate.variant, self._decide(plain, candidate), {}, self._now_s())
        return int(known.value)

    def _decide(self, plain: Candidate, first: Candidate) -> int:
        if any(entry.key.partition("@")[0] in self._own(plain) for entry in self._ledger.entries("accuracy")):
            return plain.image_px  # the run was begun by a version that trained every parent at the largest size
        if not self._evaluator.is_timed(plain):  # there was too little time to time it
            return first.image_px
        latency = self._evaluator.latency(plain, self._budget.latency_ms)
        if not isinstance(latency, Latency):
            return plain.image_px
        sizes = sorted(int(px) for px in self._space.values(plain.family, "image_px"))
        fitting_px = largest_within(sizes, latency.percentile_ms.value, plain.image_px, self._budget.latency_ms)
        return fitting_px if first.steps else max(fitting_px, first.image_px)

    def _own(self, plain: Candidate) -> set[str]:
        """Return the keys of all candidates of the network except its uncompressed form."""
        points = (self._space.candidate(point) for point in self._space.params())
        return {c.key() for c in points if c.variant == plain.variant and c != plain}


def largest_within(sizes: list[int], latency_ms: float, image_px: int, limit_ms: float) -> int:
    """Return the largest size with a latency within a limit, or the smallest size if none is.

    Latency is assumed to grow with the input's area.

    Args:
        sizes: Input sizes in px, ascending.
        latency_ms: Latency at `image_px` in ms.
        image_px: Timed input size in px.
        limit_ms: Latency limit in ms.
    """
    within = [px for px in sizes if latency_ms * (px / image_px) ** 2 <= limit_ms]
    return max(within, default=sizes[0])
