"""Format numbers and findings as short text, the same in report, picture and terminal."""

from __future__ import annotations

import re
from collections import Counter
from math import isinf

from evaluators import layer_precision
from evaluators.measurement import METRICS, OUTCOMES, TOP1, Interval, Measurement
from remote.errors import DEVICE_KINDS
from reports.classes import class_warnings
from reports.comparison import Saving, saving
from reports.trial_table import same, trials
from search.result import Result

AXES = {"image_px": "image", "prune": "pruning", "precision": "precision", "threads": "threads", "variant": "network"}


def number(value: float) -> str:
    """Format a number with three significant digits and no exponent: 0.0123, 3.14, 31.4, 3140."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".") if value else "0"


def ms(value: float) -> str:
    """Format milliseconds: `3.14 ms`."""
    return f"{number(value)} ms"


def interval(estimate: Interval) -> str:
    """Format an interval: `3.14 [3.02, 3.26]`, or `3.14 [3.02, …]` if the samples give no upper bound."""
    return f"{number(estimate.value)} [{number(estimate.low)}, {format_bound(estimate.high)}]"


def format_bound(high: float | None) -> str:
    """Format the upper end of an interval; `…` stands for none."""
    return "…" if high is None or isinf(high) else number(high)


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction as percentage, `92.1 %`; a dash stands for an unknown value.

    Args:
        fraction: Value in 0..1, or None.
        digits: Digits after the decimal point.
    """
    return "–" if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(fraction: float) -> str:
    """Format a fraction as signed percentage points: `-0.6 points`; a change that rounds to zero is `+0.0 points`."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f} points"


def metric_name(metric: str) -> str:
    """Return a metric's name in a sentence; top-1 is `accuracy`."""
    return "accuracy" if metric == TOP1 else METRICS[metric]


def accuracy_change(lost: float, error: float | None, metric: str = TOP1, split: str = "test") -> str:
    """Return `0.8 ± 2.2 points of test accuracy lost`, or `gained`; all outputs use this sign convention.

    Args:
        lost: Baseline minus choice, as a fraction; a negative value is a gain.
        error: Standard error of `lost`, as a fraction; None leaves it out.
        metric: The compared metric, one of METRICS.
        split: Split of the images, such as `test`.
    """
    size = f"{abs(100 * lost):.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")
    verb = "gained" if lost < 0 and size[:3] != "0.0" else "lost"
    return f"{size} points of {split} {metric_name(metric)} {verb}"


def latency_change(saved: Interval, with_bounds: bool = True) -> str:
    """Return `91.9 % [91.7, 92.2] less`, or `more` if the choice takes longer than the baseline.

    Args:
        saved: Fraction of the baseline's latency that is saved.
        with_bounds: Whether the interval is included.
    """
    ends = (saved.low, saved.high) if saved.value >= 0 else (-saved.high, -saved.low)
    low, high = (f"{100 * end:.1f}" for end in ends)
    bounds = f" [{low}, {high}]" if with_bounds else ""
    return f"{percent(abs(saved.value))}{bounds} {'less' if saved.value >= 0 else 'more'}"


def duration(seconds: float) -> str:
    """Format seconds: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def change(axis: str, before: object, after: object) -> str:
    """Describe a change of one axis: `image 96 -> 64 px`.

    Args:
        axis: Name of the axis.
        before: Value before the change.
        after: Value after the change.
    """
    unit = " px" if axis == "image_px" else ""
    start, end = (f"{value:g}" if isinstance(value, float) else str(value) for value in (before, after))
    return f"{AXES.get(axis, axis)} {start} -> {end}{unit}"


def shorten(text: str, most: int) -> str:
    """Shorten a text to its beginning and an ellipsis if it is too long.

    Args:
        text: The text.
        most: Largest number of characters of the result.
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def headline(result: Result) -> str:
    """Summarise the run in one sentence: choice, latency, cost in accuracy, and whether the budget is kept."""
    if result.choice is None or result.choice.latency is None:
        return f"Nothing measured keeps the budget ({result.budget.describe()})."
    choice, latency = result.choice, result.choice.latency
    runs = f"{choice.candidate.describe()} runs at p{latency.percentile:g} {interval(latency.percentile_ms)} ms"
    return f"{runs}{_against(result, saving(result))}; the budget ({result.budget.describe()}) is kept."


def _against(result: Result, saved: Saving | None) -> str:
    if saved is None or result.baseline is None:
        return " with no baseline to compare it to"
    if saved.is_baseline:
        return ", and is itself the greedy choice: nothing had to be given up"
    faster = saved.latency_ratio.value
    pace = f"{1 / faster:.1f}x faster" if faster < 1 else f"{faster:.1f}x slower"
    line = f": {pace} than the greedy choice ({result.baseline.candidate.describe()})"
    if saved.test_lost is None:
        return f"{line}, test accuracy not compared"
    return f"{line}, {accuracy_change(saved.test_lost, saved.test_lost_se, result.budget.metric)}"


def outcomes(result: Result) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Count the trials by outcome and reason; reasons that differ only in numbers count as one.

    Returns:
        (outcome, trials, [(reason, trials)]) in the order of the stages.
    """
    found: list[tuple[str, int, list[tuple[str, int]]]] = []
    for outcome in OUTCOMES:
        ended = [m for m in trials(result) if m.outcome == outcome]
        examples = {_shape(m.reason): m.reason for m in reversed(ended) if m.reason}
        counts = Counter(_shape(m.reason) for m in ended if m.reason)
        reasons = [(examples[shape], count) for shape, count in counts.most_common()]
        found.append((outcome, len(ended), reasons))
    return found


def trust(result: Result) -> list[str]:
    """List the reservations about the run's numbers, one line each; empty for a calm run on a real device."""
    timed = [m.latency for m in trials(result) if m.latency is not None]
    lines = []
    if any(latency.simulated for latency in timed):
        lines.append("Simulated device: the latencies come from a model of a device, none was measured.")
    if disturbed := [latency for latency in timed if latency.disturbed]:
        causes = ", ".join(cause for cause, _ in Counter(latency.disturbed for latency in disturbed).most_common(2))
        lines.append(
            f"Disturbed: {len(disturbed)} of {len(timed)} timings stayed disturbed when repeated ({causes}). "
            "Ranks use pairs timed side by side, which are affected least; the milliseconds may be too high."
        )
    if result.choice is not None and not result.choice.confirmed:
        lines.append("The choice was not timed again with its trained weights.")
    return lines + class_warnings(result)


def finalists(result: Result) -> list[Measurement]:
    """Return choice and front as far as the device was profiled or compared for them, the choice first."""
    shown = [m for m in (result.choice, *result.front) if m is not None and (m.coverage or m.agreement)]
    return [m for place, m in enumerate(shown) if not any(same(m, other) for other in shown[:place])]


def int8_finalists(result: Result) -> list[Measurement]:
    """Return choice and front as far as they are int8 with recorded escalation levels, the choice first."""
    told = [m for m in (result.choice, *result.front) if m is not None and m.accuracy is not None and m.accuracy.rungs]
    return [m for place, m in enumerate(told) if not any(same(m, other) for other in told[:place])]


def runs_as(measurement: Measurement) -> str:
    """Describe the precision that really ran and its effect: `mobilenet_v2 96px int8: int8 pays, ...`."""
    if measurement.coverage is None:
        return ""
    return f"{measurement.candidate.describe()}: {layer_precision.sentence(measurement.coverage)}"


def split(result: Result) -> list[tuple[str, float, float]]:
    """Split the run's wall time by kind of work.

    Returns:
        (kind, seconds, share 0..1 of the wall time) for structure, timing, training, scoring and other.
    """
    seconds = result.seconds
    kinds = ("structure", "timing", "training", "scoring", "other")
    wall = seconds.wall or 1.0
    return [(kind, max(0.0, getattr(seconds, kind)), max(0.0, getattr(seconds, kind)) / wall) for kind in kinds]


def incidents(result: Result) -> list[tuple[str, int]]:
    """Count the device failures that the run survived, and the timings that were repeated because of disturbances.

    Returns:
        (description, count) by kind.
    """
    told = [(DEVICE_KINDS.get(kind, kind.replace("_", " ")), count) for kind, count in result.incidents]
    repeated = sum(m.latency.repeated for m in trials(result) if m.latency is not None)
    return told + ([("disturbed, timed again", repeated)] if repeated else [])


def early(result: Result) -> str:
    """Count in one line the candidates over the budget that ended before any training; empty without any."""
    before, over = result.early_stops
    return f"{before} of {over} candidates over the budget were stopped before any training" if over else ""


def _shape(reason: str) -> str:
    return re.sub(r"\d[\d.,]*", "#", reason)
