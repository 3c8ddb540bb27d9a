"""Compare the choice with the greedy baseline, and estimate from this run the effect of each single change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp, hypot, isfinite, log
from statistics import median
from typing import Any

from evaluators.measurement import Accuracy, Interval, Measurement
from reports.trial_table import same, trials
from search.result import Result
from spaces.candidate import Candidate
from spaces.operation_specs import options
from spaces.space import Value

# From slow to fast: a lever is reported in the direction that is expected to save time.
_PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Hold the comparison of choice and baseline. Ratios are choice / baseline, so below 1 is a saving.

    Attributes:
        is_baseline: Whether the choice is the greedy baseline itself.
        latency_ratio: Ratio of `rank_ms`, for which both were timed beside the reference model.
        memory_ratio: Ratio of `peak_mb`.
        size_ratio: Ratio of the sizes of the ONNX files; None if one is unknown.
        test_lost: Test score of the baseline minus that of the choice, as a fraction; None without both.
        test_lost_se: Standard error of `test_lost`, as a fraction.
        test_count: Number of test images.
    """

    is_baseline: bool
    latency_ratio: Interval
    memory_ratio: float
    size_ratio: float | None
    test_lost: float | None
    test_lost_se: float | None
    test_count: int | None

    @property
    def latency_saved(self) -> Interval:
        """Return the fraction of the baseline's latency that the choice saves."""
        ratio = self.latency_ratio
        return Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


@dataclass(frozen=True, kw_only=True)
class Lever:
    """Describe the effect of changing one axis, over all pairs of timed candidates that differ in it alone.

    Attributes:
        axis: `image_px`, `precision`, `threads`, `variant`, or the name of a compression step or option.
        before: Value of the axis before the change.
        after: Value of the axis after the change.
        pairs: Number of pairs.
        time_ratio: Ratio of `rank_ms`, after / before: median, smallest and largest pair.
        memory_ratio: Ratio of `peak_mb`, after / before: median pair.
        accuracy_pairs: Number of pairs whose accuracies are known after the same number of epochs.
        accuracy_change: Validation score after minus before, as a fraction: median pair; None without pairs.
    """

    axis: str
    before: Any
    after: Any
    pairs: int
    time_ratio: Interval
    memory_ratio: float
    accuracy_pairs: int
    accuracy_change: float | None

    def reverse(self) -> Lever:
        """Reverse the direction of the change, with the same pairs."""
        time = self.time_ratio
        return replace(
            self,
            before=self.after,
            after=self.before,
            time_ratio=Interval(1 / time.value, 1 / time.high, 1 / time.low),
            memory_ratio=1 / self.memory_ratio,
            accuracy_change=None if self.accuracy_change is None else -self.accuracy_change,
        )


def saving(result: Result) -> Saving | None:
    """Compare the choice with the baseline; return None if either or its latency is missing.

    Both test accuracies are of the same images. The errors by image are not stored, so the standard error is that of
    two independent samples. It is wider than a paired one as long as the two models fail on the same images.
    """
    choice, baseline = result.choice, result.baseline
    if not (choice and baseline and choice.latency and baseline.latency):
        return None
    is_baseline = same(choice, baseline)
    size = (
        choice.structure.onnx_bytes / baseline.structure.onnx_bytes
        if choice.structure and baseline.structure and baseline.structure.onnx_bytes
        else None
    )
    lost, lost_se, count = _accuracy_change(choice.test, baseline.test)
    return Saving(
        is_baseline=is_baseline,
        latency_ratio=Interval(1.0, 1.0, 1.0)
        if is_baseline
        else _ratio(choice.latency.rank_ms, baseline.latency.rank_ms),
        memory_ratio=_share(choice.latency.peak_mb, baseline.latency.peak_mb),
        size_ratio=size,
        test_lost=lost,
        test_lost_se=0.0 if is_baseline and lost is not None else lost_se,
        test_count=count,
    )


def levers(result: Result) -> tuple[Lever, ...]:
    """Find every change of one axis that at least one pair of timed candidates shows, by axis, most pairs first."""
    found: dict[tuple[str, Value, Value], list[tuple[Measurement, Measurement]]] = defaultdict(list)
    timed = {m.candidate: m for m in trials(result) if m.latency is not None}
    for axis, pair in _pairs(list(timed.values())):
        before, after = _order_pair(axis, pair)
        found[axis, setting(before.candidate, axis), setting(after.candidate, axis)].append((before, after))
    made = [_lever(axis, before, after, pairs) for (axis, before, after), pairs in found.items()]
    turned = [v.reverse() if v.axis == "variant" and v.time_ratio.value > 1 else v for v in made]
    return tuple(sorted(turned, key=lambda v: (v.axis == "variant", v.axis, -v.pairs, v.time_ratio.value)))


def settings(candidate: Candidate) -> dict[str, Value]:
    """Return a candidate's values by axis. The variant stands for its family too."""
    plain: dict[str, Value] = {
        "image_px": candidate.image_px,
        "precision": candidate.precision,
        "threads": candidate.threads,
        "variant": candidate.variant,
    }
    return plain | {name: amount for name, amount in candidate.steps if amount} | dict(candidate.options)


def setting(candidate: Candidate, axis: str) -> Value:
    """Return a candidate's value of an axis.

    Args:
        candidate: The candidate.
        axis: Name of the axis; a step that is not applied is 0.0, an unnamed option has its default.
    """
    return settings(candidate).get(axis, options()[axis].default if axis in options() else 0.0)


def _pairs(timed: Sequence[Measurement]) -> Iterator[tuple[str, tuple[Measurement, Measurement]]]:
    for one, other in combinations(timed, 2):
        if one.candidate.runtime != other.candidate.runtime:
            continue
        left, right = settings(one.candidate), settings(other.candidate)
        differing = [axis for axis in left | right if setting(one.candidate, axis) != setting(other.candidate, axis)]
        if len(differing) == 1:
            yield differing[0], (one, other)


def _order_pair(axis: str, pair: tuple[Measurement, Measurement]) -> tuple[Measurement, Measurement]:
    """Order a pair from slow to fast, so that the same two values always come in the same order."""

    def cost(measurement: Measurement) -> Any:
        value: Any = setting(measurement.candidate, axis)  # of one type for an axis
        if axis == "image_px":
            return -value
        if axis == "precision":
            return _PRECISIONS.index(value) if value in _PRECISIONS else len(_PRECISIONS), value
        return value

    first, second = sorted(pair, key=cost)
    return first, second


def _lever(axis: str, before: Value, after: Value, pairs: list[tuple[Measurement, Measurement]]) -> Lever:
    times, memory, accuracy = [], [], []
    for one, other in pairs:
        assert one.latency is not None and other.latency is not None
        times.append(other.latency.rank_ms.value / one.latency.rank_ms.value)
        memory.append(_share(other.latency.peak_mb, one.latency.peak_mb))
        accuracy += _change(one, other)
    return Lever(
        axis=axis,
        before=before,
        after=after,
        pairs=len(pairs),
        time_ratio=Interval(median(times), min(times), max(times)),
        memory_ratio=median(memory),
        accuracy_pairs=len(accuracy),
        accuracy_change=median(accuracy) if accuracy else None,
    )


def _change(before: Measurement, after: Measurement) -> list[float]:
    """Return the accuracy difference at the largest number of epochs that both have; empty if there is none.

    A freshly compressed network's accuracy is not predictive before its first epoch, so epoch 0 does not count for it.
    """
    start, end = ({a.epochs: a.score for a in m.accuracies} for m in (before, after))
    shared = start.keys() & end.keys()
    if before.candidate.steps or after.candidate.steps:
        shared -= {0}
    return [end[max(shared)] - start[max(shared)]] if shared else []


def _ratio(top: Interval, bottom: Interval) -> Interval:
    """Divide two independent estimates; the interval combines their relative errors."""
    value = top.value / bottom.value
    down = hypot(_log(top.value, top.low), _log(bottom.high, bottom.value))
    up = hypot(_log(top.high, top.value), _log(bottom.value, bottom.low))
    return Interval(value, value * exp(-down), value * exp(up))


def _log(large: float, small: float) -> float:
    # An interval that reaches 0 or has no upper end gives no bound.
    return log(large / small) if small > 0 and isfinite(large) else log(1000.0)


def _accuracy_change(
    choice: Accuracy | None, baseline: Accuracy | None
) -> tuple[float | None, float | None, int | None]:
    if choice is None or baseline is None:
        return None, None, None
    error = hypot(choice.score_error(), baseline.score_error())
    return baseline.score - choice.score, error, choice.count


def _share(after_mb: float, before_mb: float) -> float:
    """Divide memory after by memory before; 1 if a table of measurements has no memory."""
    return after_mb / before_mb if before_mb else 1.0
