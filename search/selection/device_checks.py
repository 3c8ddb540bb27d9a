"""What the device shows of finalists beyond time and accuracy: how much of them really runs in the precision asked for,
why that is or isn't faster, and whether the device answers as the host does."""

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
    """Return the finalists, each once, with their coverage and agreement, as far as there is time.

    The choice's fp32 twin is timed for it, where it was not; for the others that would cost more than it tells.
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
    """Latency of the same candidate in fp32, from this run or timed now; None where neither is to be had."""
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
