"""What was gained against the greedy baseline, and what each lever did in this very run."""

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

# From dear to cheap: a lever is told in the direction that is meant to save time.
_PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The choice against the baseline. Ratios are choice / baseline: below 1 is saved."""

    is_baseline: bool  # the choice is the greedy one: nothing was given up, nothing saved
    latency_ratio: Interval  # of rank_ms, both timed beside the reference
    memory_ratio: float  # of peak_mb
    size_ratio: float | None  # of the ONNX file
    test_lost: float | None  # baseline minus choice, 0..1
    test_lost_se: float | None
    test_count: int | None

    @property
    def latency_saved(self) -> Interval:
        """Fraction of the baseline's latency that is saved."""
        ratio = self.latency_ratio
        return Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


@dataclass(frozen=True, kw_only=True)
class Lever:
    """What changing one thing alone did, over all pairs of measured candidates that differ in it only."""

    axis: str  # image_px, precision, threads, variant, or the name of a compression step
    before: Any
    after: Any
    pairs: int
    time_ratio: Interval  # of rank_ms, after / before: the median pair, and the smallest and largest
    memory_ratio: float  # of peak_mb, the median pair
    accuracy_pairs: int  # pairs whose accuracy is known after the same number of epochs
    accuracy_change: float | None  # validation score, after - before, the median pair

    def reverse(self) -> Lever:
        """The same pairs told the other way round."""
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
    """The choice against the baseline; None without either or without their timing.

    The two test accuracies are of the same images. Which image each got wrong is not kept, so the standard error is
    that of two independent samples: wider than a paired one as long as the two models err on the same images.
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
    """Every change of one axis that at least one pair of timed candidates shows, by axis, most pairs first."""
    found: dict[tuple[str, Any, Any], list[tuple[Measurement, Measurement]]] = defaultdict(list)
    timed = {m.candidate: m for m in trials(result) if m.latency is not None}
    for axis, pair in _pairs(list(timed.values())):
        before, after = _order_pair(axis, pair)
        found[axis, setting(before.candidate, axis), setting(after.candidate, axis)].append((before, after))
    made = [_lever(axis, before, after, pairs) for (axis, before, after), pairs in found.items()]
    turned = [v.reversed() if v.axis == "variant" and v.time_ratio.value > 1 else v for v in made]
    return tuple(sorted(turned, key=lambda v: (v.axis == "variant", v.axis, -v.pairs, v.time_ratio.value)))


def settings(candidate: Candidate) -> dict[str, Any]:
    """What can be turned on a candidate, by axis. A variant stands for its family."""
    plain: dict[str, Any] = {
        "image_px": candidate.image_px,
        "precision": candidate.precision,
        "threads": candidate.threads,
        "variant": candidate.variant,
    }
    return plain | {name: amount for name, amount in candidate.steps if amount} | dict(candidate.options)


def setting(candidate: Candidate, axis: str) -> Any:
    """What an axis is set to; a step that is not applied is 0.0, an option that is not named its default."""
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
    """The pair from dear to cheap, so that the same two settings always meet in the same order."""

    def cost(measurement: Measurement) -> Any:
        value = setting(measurement.candidate, axis)
        if axis == "image_px":
            return -value
        if axis == "precision":
            return _PRECISIONS.index(value) if value in _PRECISIONS else len(_PRECISIONS), value
        return value

    first, second = sorted(pair, key=cost)
    return first, second


def _lever(axis: str, before: Any, after: Any, pairs: list[tuple[Measurement, Measurement]]) -> Lever:
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
    """The difference at the largest number of epochs both have seen; empty if there is none.

    Before its first epoch a network that was just cut says nothing of what it will be.
    """
    start, end = ({a.epochs: a.score for a in m.accuracies} for m in (before, after))
    shared = start.keys() & end.keys()
    if before.candidate.steps or after.candidate.steps:
        shared -= {0}
    return [end[max(shared)] - start[max(shared)]] if shared else []


def _ratio(top: Interval, bottom: Interval) -> Interval:
    """top / bottom with the interval of two independent estimates, their errors taken as relative ones."""
    value = top.value / bottom.value
    down = hypot(_log(top.value, top.low), _log(bottom.high, bottom.value))
    up = hypot(_log(top.high, top.value), _log(bottom.value, bottom.low))
    return Interval(value, value * exp(-down), value * exp(up))


def _log(large: float, small: float) -> float:
    # an interval that reaches 0, or has no upper end, bounds nothing
    return log(large / small) if small > 0 and isfinite(large) else log(1000.0)


def _accuracy_change(
    choice: Accuracy | None, baseline: Accuracy | None
) -> tuple[float | None, float | None, int | None]:
    if choice is None or baseline is None:
        return None, None, None
    error = hypot(choice.score_error(), baseline.score_error())
    return baseline.score - choice.score, error, choice.count


def _share(after_mb: float, before_mb: float) -> float:
    """After over before; 1 where a table gives no memory."""
    return after_mb / before_mb if before_mb else 1.0
