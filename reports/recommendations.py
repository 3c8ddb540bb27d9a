"""Explain the saved latency by axis, and propose the change that would bring the nearest miss within the budget.

Both rest on measured pairs of candidates only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from evaluators.measurement import Interval, Measurement, Outcome
from reports.comparison import Lever, levers, setting, settings
from reports.formatting import change, duration, ms, points
from reports.trial_table import trials
from search.result import Result
from search.selection.polish import FACTOR, is_worth
from spaces.candidate import Candidate
from spaces.operation_specs import options
from spaces.space import Value


@dataclass(frozen=True)
class AxisChange:
    """Describe one axis in which the choice differs from the baseline.

    Attributes:
        axis: Name of the axis.
        before: Value of the baseline.
        after: Value of the choice.
        lever: Measured effect of this change; None if no pair shows it.
    """

    axis: str
    before: Value
    after: Value
    lever: Lever | None


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """Estimate an unmeasured candidate that is one change away from the nearest miss. It is never a result.

    Attributes:
        lever: The change.
        candidate: Description of the candidate.
        latency_ms: Expected latency at the budget's percentile, in ms.
        latency_high_ms: Expected upper bound of that latency, in ms.
        peak_mb: Expected peak memory, in MB.
        score: Expected validation score by the run's metric, 0..1; None if it is unknown.
        closes: Whether every limit of the budget would be kept.
    """

    lever: Lever
    candidate: str
    latency_ms: float
    latency_high_ms: float
    peak_mb: float
    score: float | None
    closes: bool


def explain_saving(result: Result) -> tuple[AxisChange, ...]:
    """Explain the way from baseline to choice axis by axis; empty without either."""
    if result.choice is None or result.baseline is None:
        return ()
    start, end = result.baseline.candidate, result.choice.candidate
    known = {(v.axis, v.before, v.after): v for lever in levers(result) for v in (lever, lever.reverse())}
    axes = [axis for axis in settings(start) | settings(end) if setting(start, axis) != setting(end, axis)]
    turns = [(axis, setting(start, axis), setting(end, axis)) for axis in axes]
    return tuple(AxisChange(*turn, known.get(turn)) for turn in turns)


def best_prospect(result: Result) -> Prospect | None:
    """Find the change most likely to close the gap of the nearest miss; None if no measured pair narrows the gap."""
    if result.miss is None or result.miss.measurement.latency is None:
        return None
    missed, limit = result.miss.measurement, _limit(result)
    tried = {m.candidate for m in trials(result)}
    prospects = []
    for lever in (v for one in levers(result) for v in (one, one.reverse())):
        candidate = _turn_lever(missed.candidate, lever, result) if _narrows(lever, limit) else None
        # a candidate that was tried and is not the choice will not become it
        if candidate is not None and candidate not in tried:
            prospects.append(_prospect(result, missed, lever, candidate))
    return min(prospects, key=lambda p: _order(result, limit, p), default=None)


def nearest(result: Result) -> str:
    """Describe the nearest miss and its lever in one line: `mobilenet_v2 96px int8: p95 6.2 ms, 1.2 ms over; ...`."""
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
        line += f"; {what} took {share:.2f} of the time {pairs}; the predicted latency is about {reached}"
        if lever.accuracy_change is not None:
            line += f" for {points(lever.accuracy_change)} of validation accuracy"
    elif limit == "memory":
        line += (
            f"; {what} took {lever.memory_ratio:.2f} of the memory {pairs}; "
            f"the predicted memory is about {prospect.peak_mb:.0f} MB"
        )
    else:
        gain = points(lever.accuracy_change or 0.0)
        line += (
            f"; {what} gained {gain} of validation accuracy {pairs}; "
            f"the predicted latency is about {ms(prospect.latency_ms)}"
        )
    return line if prospect.closes else f"{line}, which alone is not enough"


def more_time(result: Result) -> str:
    """Say in one line what a longer time limit would be spent on; empty without a limit, for a table, or if nothing is.

    Counted are candidates that surely keep the budget and were timed, but not trained to the end.
    """
    if result.time_limit_s is None or not result.classes:  # a table trains nothing
        return ""
    screened = [m for m in result.screened if m.outcome == Outcome.KEPT and m.latency]
    waiting = [m for m in screened if m.latency and result.budget.keeps(m.latency)]
    waiting += [m for m in result.measurements if m.outcome == Outcome.UNFINISHED and m is not result.choice]
    parts = []
    if waiting:
        trained = sum(1 for m in result.measurements if m.accuracies)
        each_s = (result.seconds.training + result.seconds.scoring) / max(trained, 1)
        each = f", about {duration(each_s)} each" if trained else ""
        parts.append(f"{_count(len(waiting), 'timed candidate')} within the budget{each}")
    accuracy = result.choice.accuracy if result.choice else None
    most = FACTOR * max(result.rungs, default=0)
    if accuracy is not None and accuracy.epochs < most and is_worth(result.choice):
        parts.append(f"the choice for more than its {_count(accuracy.epochs, 'epoch')}, up to {most}")
    if result.choice is not None and result.baseline is None:
        parts.append("the greedy baseline, to compare with")
    return f"would train {'; '.join(parts)}" if parts else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _limit(result: Result) -> str:
    """Return the limit that the nearest miss exceeds: latency, memory or accuracy, in this order."""
    latency = result.miss.measurement.latency if result.miss else None
    if latency is None or result.budget.excess_ms(latency) > 0:
        return "latency"
    return "memory" if result.budget.excess_mb(latency) > 0 else "accuracy"


def _narrows(lever: Lever, limit: str) -> bool:
    """Return whether a lever narrows the gap by at least 1 % (accuracy: 0.1 points); a smaller effect is noise."""
    if limit == "latency":
        return lever.time_ratio.value < 0.99
    return lever.memory_ratio < 0.99 if limit == "memory" else (lever.accuracy_change or 0.0) > 0.001


def _upper(interval: Interval) -> float:
    """Return the upper bound, or the estimate itself if a timing ended before it had a bound."""
    return interval.high if isfinite(interval.high) else interval.value


def _how_far(result: Result, missed: Measurement) -> str:
    """Describe the excess of latency; empty if another limit is exceeded."""
    latency = missed.latency
    if latency is None or _limit(result) != "latency":
        return ""
    interval, limit = latency.percentile_ms, result.budget.latency_ms
    name = f"p{latency.percentile:g} {ms(interval.value)}"
    if interval.value <= limit:  # the upper bound decides
        if not isfinite(interval.high):
            return f"{name}, on too few samples for a bound"
        return f"{name}, but up to {ms(interval.high)}, {ms(interval.high - limit)} over"
    return f"{name}, {ms(interval.value - limit)} over"


def _turn_lever(candidate: Candidate, lever: Lever, result: Result) -> Candidate | None:
    """Return the candidate with one change applied; None if it does not have the lever's first value."""
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
    # an unknown accuracy does not rule a candidate out, unless the nearest miss exceeds the accuracy limit itself
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
    """Return the sort key: prospects that close the gap come first, then the least accuracy cost, then most pairs."""
    lever = prospect.lever
    gain = lever.accuracy_change
    if prospect.closes:
        return 0.0, float(gain is None), -(gain or 0.0), -lever.pairs, prospect.latency_ms
    left = {"latency": prospect.latency_ms, "memory": prospect.peak_mb, "accuracy": -(gain or 0.0)}[limit]
    # a change that keeps one limit by exceeding another comes last
    breaks = limit != "latency" and prospect.latency_high_ms > result.budget.latency_ms
    return 1.0, float(breaks), left, -lever.pairs
