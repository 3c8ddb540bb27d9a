"""What bought the latency, and which lever would bring a near miss within the budget. Only what was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from evaluators.measurement import Interval, Measurement
from reports.comparison import Lever, levers, setting, settings
from reports.formatting import change, ms, points
from reports.trial_table import trials
from search.result import Result
from spaces.candidate import Candidate
from spaces.operation_specs import options


@dataclass(frozen=True)
class AxisChange:
    """One axis in which the choice differs from the baseline, and the lever measured for it, if any."""

    axis: str
    before: Any
    after: Any
    lever: Lever | None


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """A candidate that was not measured: one lever away from the nearest miss. An estimate, never a result."""

    lever: Lever
    candidate: str
    latency_ms: float
    latency_high_ms: float
    peak_mb: float
    score: float | None  # validation accuracy by the run's metric
    closes: bool  # every limit would be kept


def explain_saving(result: Result) -> tuple[AxisChange, ...]:
    """From baseline to choice, axis by axis; empty without either."""
    if result.choice is None or result.baseline is None:
        return ()
    start, end = result.baseline.candidate, result.choice.candidate
    known = {(v.axis, v.before, v.after): v for lever in levers(result) for v in (lever, lever.reversed())}
    axes = [axis for axis in settings(start) | settings(end) if setting(start, axis) != setting(end, axis)]
    turns = [(axis, setting(start, axis), setting(end, axis)) for axis in axes]
    return tuple(AxisChange(*turn, known.get(turn)) for turn in turns)


def best_prospect(result: Result) -> Prospect | None:
    """The lever most likely to close the gap of the nearest miss; None if no measured pair narrows it."""
    if result.miss is None or result.miss.measurement.latency is None:
        return None
    missed, limit = result.miss.measurement, _limit(result)
    tried = {m.candidate for m in trials(result)}
    prospects = []
    for lever in (v for one in levers(result) for v in (one, one.reversed())):
        candidate = _turn_lever(missed.candidate, lever, result) if _narrows(lever, limit) else None
        # what was tried and did not become the choice will not become it now
        if candidate is not None and candidate not in tried:
            prospects.append(_prospect(result, missed, lever, candidate))
    return min(prospects, key=lambda p: _order(result, limit, p), default=None)


def nearest(result: Result) -> str:
    """`mobilenet_v2 96px int8: p95 6.2 ms, 1.2 ms over; ...`: the nearest miss and its lever, for people."""
    miss = result.miss
    if miss is None:
        return ""
    line = f"{miss.measurement.candidate.describe()}: {_how_far(result, miss.measurement) or miss.over}"
    prospect = best_prospect(result)
    if prospect is None:
        return f"{line}; no measured pair of candidates shows a lever that would narrow the gap"
    lever, limit = prospect.lever, _limit(result)
    what = change(lever.axis, lever.before, lever.after)
    pairs = f"on {lever.pairs} measured pair{'s' if lever.pairs != 1 else ''}"
    if limit == "latency":
        share, reached = lever.time_ratio.value, ms(prospect.latency_ms)
        line += f"; {what} took {share:.2f} of the time {pairs}: would bring about {reached}"
        if lever.accuracy_change is not None:
            line += f" for {points(lever.accuracy_change)} of validation accuracy"
    elif limit == "memory":
        line += (
            f"; {what} took {lever.memory_ratio:.2f} of the memory {pairs}: would bring about {prospect.peak_mb:.0f} MB"
        )
    else:
        gain = points(lever.accuracy_change or 0.0)
        line += (
            f"; {what} brought {gain} of validation accuracy {pairs}, and would run at about {ms(prospect.latency_ms)}"
        )
    return line if prospect.closes else f"{line}, which alone is not enough"


def _limit(result: Result) -> str:
    """The limit the nearest miss misses: latency, memory or accuracy, in this order."""
    latency = result.miss.measurement.latency if result.miss else None
    if latency is None or result.budget.excess_ms(latency) > 0:
        return "latency"
    return "memory" if result.budget.excess_mb(latency) > 0 else "accuracy"


def _narrows(lever: Lever, limit: str) -> bool:
    """By at least 1 % (a tenth of a point): less is no lever but noise."""
    if limit == "latency":
        return lever.time_ratio.value < 0.99
    return lever.memory_ratio < 0.99 if limit == "memory" else (lever.accuracy_change or 0.0) > 0.001


def _upper(interval: Interval) -> float:
    """The upper bound; the estimate itself where a timing stopped before it had one."""
    return interval.high if isfinite(interval.high) else interval.value


def _how_far(result: Result, missed: Measurement) -> str:
    """By how much latency is missed; empty if it is another limit that is."""
    latency = missed.latency
    if latency is None or _limit(result) != "latency":
        return ""
    interval, limit = latency.percentile_ms, result.budget.latency_ms
    name = f"p{latency.percentile:g} {ms(interval.value)}"
    if interval.value <= limit:  # judged on the upper bound
        if not isfinite(interval.high):
            return f"{name}, on too few samples for a bound"
        return f"{name}, but up to {ms(interval.high)}, {ms(interval.high - limit)} over"
    return f"{name}, {ms(interval.value - limit)} over"


def _turn_lever(candidate: Candidate, lever: Lever, result: Result) -> Candidate | None:
    """The candidate with one lever turned; None if it is not set where the lever starts."""
    if setting(candidate, lever.axis) != lever.before:
        return None
    if lever.axis == "variant":
        family = next(m.candidate.family for m in trials(result) if m.candidate.variant == lever.after)
        return replace(candidate, family=family, variant=lever.after)
    if lever.axis in ("image_px", "precision", "threads"):
        return replace(candidate, **{lever.axis: lever.after})
    if lever.axis in options():
        others = [(name, value) for name, value in candidate.options if name != lever.axis]
        named = [] if lever.after == options()[lever.axis].default else [(lever.axis, lever.after)]
        return replace(candidate, options=tuple(sorted([*others, *named])))
    kept = [(name, amount) for name, amount in candidate.steps if name != lever.axis]
    added = [(lever.axis, lever.after)] if lever.after else []
    left = [(name, value) for name, value in candidate.options if added or options()[name].operation != lever.axis]
    return replace(candidate, steps=(*kept, *added), options=tuple(left))


def _prospect(result: Result, missed: Measurement, lever: Lever, candidate: Candidate) -> Prospect:
    latency, budget = missed.latency, result.budget
    assert latency is not None
    times = lever.time_ratio.value
    peak_mb = latency.peak_mb * lever.memory_ratio
    score = None
    if missed.accuracy is not None and lever.accuracy_change is not None:
        score = min(1.0, max(0.0, missed.accuracy.score + lever.accuracy_change))
    closes = _upper(latency.percentile_ms) * times <= budget.latency_ms
    closes = closes and (budget.peak_mb is None or peak_mb <= budget.peak_mb)
    # an unknown accuracy does not rule a candidate out, unless accuracy is the very limit that was missed
    if budget.max_drop is not None and result.baseline is not None and result.baseline.accuracy is not None:
        floor = result.baseline.accuracy.score - budget.max_drop
        closes = closes and (score >= floor if score is not None else missed.accuracy is None)
    return Prospect(
        lever=lever,
        candidate=candidate.describe(),
        latency_ms=latency.percentile_ms.value * times,
        latency_high_ms=_upper(latency.percentile_ms) * times,
        peak_mb=peak_mb,
        score=score,
        closes=closes,
    )


def _order(result: Result, limit: str, prospect: Prospect) -> tuple[float, ...]:
    """What closes the gap first; of these the one that costs least accuracy and rests on most pairs."""
    lever = prospect.lever
    gain = lever.accuracy_change
    if prospect.closes:
        return 0.0, float(gain is None), -(gain or 0.0), -lever.pairs, prospect.latency_ms
    left = {"latency": prospect.latency_ms, "memory": prospect.peak_mb, "accuracy": -(gain or 0.0)}[limit]
    # what mends one limit by breaking another comes last
    breaks = limit != "latency" and prospect.latency_high_ms > result.budget.latency_ms
    return 1.0, float(breaks), left, -lever.pairs
