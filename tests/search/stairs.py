"""An evaluator whose latency steps over channel counts, as kernels that compute so many at a time make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import ceil

from evaluators.measurement import Failure, Interval, Latency, Structure
from spaces.candidate import Candidate
from spaces.channel_rounding import round_width, rounding
from spaces.operation_specs import DECLARED
from tests.search.analytic import Analytic

STEP, WIDTHS = 8, (64, 128, 256)
FULL = sum(a * b for a, b in pairwise(WIDTHS))


class Stairs(Analytic):
    """Three layers; `blocks` are the channels that are computed at a time, by precision. `built` are the widths."""

    def __init__(self, blocks: Mapping[str, int] | None = None, noise: float = 0.004, disturbed: str = "") -> None:
        super().__init__()
        self.blocks, self.noise, self.disturbed = blocks or {}, noise, disturbed
        self.built: dict[Candidate, tuple[int, ...]] = {}

    def widths(self, c: Candidate) -> tuple[int, ...]:
        amount, to = c.amount("prune"), dict(c.options).get("prune_to", DECLARED)
        if to == DECLARED:
            return tuple(round_width(width, amount, STEP) for width in WIDTHS)
        return tuple(rounding(to).left(width, amount) for width in WIDTHS)

    def cost(self, c: Candidate) -> float:
        block = self.blocks.get(c.precision, 1)
        paid = [block * ceil(width / block) for width in self.widths(c)]
        whole = super().cost(Candidate(family=c.family, variant=c.variant, image_px=c.image_px, precision=c.precision))
        return whole * sum(a * b for a, b in pairwise(paid)) / FULL

    def structure(self, candidate: Candidate) -> Structure | Failure:
        found = super().structure(candidate)
        if isinstance(found, Failure):
            return found
        self.built[candidate] = self.widths(candidate)
        to = dict(candidate.options).get("prune_to", "")
        macs = sum(a * b for a, b in pairwise(self.built[candidate]))
        return Structure(
            parameters=macs,
            macs=macs,
            onnx_bytes=1000,
            parity_max_abs=0.0,
            exporter="none",
            opset=13,
            granularity=STEP,
            rounded_to=to,
        )

    def _latency(self, candidate: Candidate, factor: float) -> Latency:
        found = super()._latency(candidate, factor)
        ms = found.rank_ms.value
        return replace(
            found, rank_ms=Interval(ms, ms * (1 - self.noise), ms * (1 + self.noise)), disturbed=self.disturbed
        )
