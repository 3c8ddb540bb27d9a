"""Inspect finalists on the device, beyond latency and accuracy.

The checks cover how much of a network really runs in the requested precision, why that is or isn't faster than fp32,
and whether the device's outputs agree with the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evaluators.evaluator import DeviceInspector, Evaluator
from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import Agreement, Failure, Latency, Measurement
from spaces.candidate import Candidate

PLAIN = "fp32"


def look(
    measurements: Sequence[Measurement],
    finalists: Sequence[Measurement],
    choice: Measurement | None,
    evaluator: Evaluator,
    sees: DeviceInspector,
    tell: Callable[[str], None],
    has_time: Callable[[], bool] = lambda: True,
) -> list[Measurement]:
    """Return the finalists, each once, with their layer precision and agreement, as far as time allows.

    The choice's fp32 twin is timed for the comparison if it was not timed before. For the others, a timing would cost
    more than the comparison is worth.

    Args:
        measurements: Measurements of all trials, to find fp32 twins.
        finalists: Measurements to inspect; duplicates are skipped.
        choice: Choice of the search; None without one.
        evaluator: Evaluator that times the choice's twin.
        sees: Inspector of the device.
        tell: Callback that receives one progress line before each step.
        has_time: Function that returns whether there is time for another finalist.
    """
    found = []
    for measurement in {m.trial: m for m in finalists}.values():
        if not has_time():
            break
        tell(f"what the device really runs for {measurement.candidate.describe()}")
        seen = _inspect(measurement, sees)
        if seen.coverage is not None:
            chosen = choice is not None and measurement.trial == choice.trial
            twin = _twin(seen.candidate, measurements, evaluator if chosen else None)
            seen = replace(seen, coverage=_compare_with_fp32(seen.coverage, seen.latency, twin))
        found.append(seen)
    return found


def _inspect(measurement: Measurement, sees: DeviceInspector) -> Measurement:
    if measurement.accuracy is None:
        return measurement
    candidate, epochs = measurement.candidate, measurement.accuracy.epochs
    agreement = sees.agreement(candidate, epochs)
    if isinstance(agreement, Agreement):
        measurement = replace(measurement, agreement=agreement)
    if candidate.precision == PLAIN:
        return measurement
    coverage = sees.coverage(candidate, epochs)
    if isinstance(coverage, Failure):
        why = f"{coverage.kind}: {coverage.reason}"
        coverage = LayerPrecision(
            precision=candidate.precision,
            layers=(),
            others=(),
            reformats=0,
            reformat_share=None,
            other_share=None,
            untold=why,
        )
    return replace(measurement, coverage=coverage)


def _twin(candidate: Candidate, measurements: Sequence[Measurement], evaluator: Evaluator | None) -> Latency | None:
    """Return the latency of the same candidate in fp32, from this run or timed now; None if unavailable."""
    twin = replace(candidate, precision=PLAIN)
    known = next((m.latency for m in measurements if m.candidate == twin and m.latency), None)
    if known is not None or evaluator is None:
        return known
    timed = evaluator.latency(twin, None)
    return timed if isinstance(timed, Latency) else None


def _compare_with_fp32(coverage: LayerPrecision, latency: Latency | None, twin: Latency | None) -> LayerPrecision:
    if latency is None or twin is None:
        return coverage
    return replace(coverage, fp32_ratio=latency.rank_ms.value / twin.rank_ms.value)
