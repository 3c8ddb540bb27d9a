"""Time one graph on one device: blocks in fresh processes, repeated while disturbed, until the interval is narrow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

import numpy

from evaluators.measurement import Block, Interval, Latency
from evaluators.timing.confidence import pool_medians, quantile_interval, samples_needed, scale_interval
from evaluators.timing.throttling import cool_down, describe_throttling
from remote.device import ON_GPU
from remote.link.reply_parsing import BlockFields, parse_sensors
from remote.link.session import Job

WAITED, WAITED_MS = 1.1, 0.02  # factor and ms by which the wall time of a run that waited exceeds its CPU time
OTHER_LOAD, UNSTEADY, DRIFT = "other load", "unsteady", "drift"  # prefixes of `Block.disturbed`


class TimesOnDevice(Protocol):
    """Describe the methods of a device session that timing needs."""

    def time_block(self, model: str, reference: str, job: Job, pairs: int, seconds_max: float) -> BlockFields:
        """Time two models in turn in a fresh process, and return the fields of a Block."""
        ...

    def state(self) -> dict[str, object]:
        """Return the sensor values of the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class TimingRules:
    """Define when a block counts as disturbed and when the blocks suffice. Defaults come from noise on shared machines.

    Attributes:
        pairs: Pairs of candidate and reference runs in a first block, and minimum of any other.
        pairs_max: Maximum number of pairs in a block; with more samples the bound depends less on single slow ones.
        pairs_s: Seconds that the timed runs of these pairs may take; starting a process takes longer.
        blocks_min: Minimum number of blocks; processes differ by more than samples within one do.
        blocks_max: Maximum number of blocks.
        repeats_max: Maximum number of disturbed blocks that are repeated.
        drift_repeats_max: Maximum number of these that are repeated for drift alone, whose samples can be scaled.
        block_seconds_max: Time limit of a block, in s.
        narrow: Relative half width at which the interval of the percentile is narrow enough.
        wall_over_cpu_max: Ratio of wall to CPU time above which the process waited for a core.
        foreign_cores_max: Cores that other processes may keep busy; they cost cache, memory and clock, if not time.
        ratio_spread_max: Maximum distance between the quartiles of the pair ratios, relative to their median.
        reference_drift_max: Maximum relative change of the reference against the calm device.
        seconds_max: Time in s after which one measurement repeats no block, and adds none to narrow the interval.
        undecided_times: Multiple of these seconds for which blocks are added while the interval contains the limit.
        fruitless_max: Consecutive repeats without a calm block after which none is repeated until a block is calm.
    """

    pairs: int = 40
    pairs_max: int = 100
    pairs_s: float = 0.13
    blocks_min: int = 2
    blocks_max: int = 8
    repeats_max: int = 3
    drift_repeats_max: int = 1
    block_seconds_max: float = 20.0
    narrow: float = 0.05
    wall_over_cpu_max: float = 1.3
    foreign_cores_max: float = 0.5
    ratio_spread_max: float = 0.10
    reference_drift_max: float = 0.15
    seconds_max: float = math.inf
    undecided_times: float = 3.0
    fruitless_max: int = 6


@dataclass(frozen=True, kw_only=True)
class TimingTarget:
    """Describe a graph to time and how to time it.

    Attributes:
        model_sha256: SHA-256 of the graph.
        reference_sha256: SHA-256 of the reference model.
        job: Runtime, threads and precision.
        runtime_version: Version of the runtime.
        percentile: Percentile to report, 0..100.
        reference_ms: Median wall time of the reference on the calm device, in ms.
        simulated: Whether the device is simulated.
    """

    model_sha256: str
    reference_sha256: str
    job: Job
    runtime_version: str
    percentile: float
    reference_ms: float
    simulated: bool = False

    @property
    def by_cpu_time(self) -> bool:
        """Return True where CPU time stands for latency: with one thread, and no GPU that the thread waits for."""
        return self.job.threads == 1 and self.job.runtime not in ON_GPU


class RepeatHistory:
    """Tell whether repeating a disturbed block still helps on a device: where load lasts, repeats only cost time."""

    def __init__(self) -> None:
        self.fruitless = 0

    def record(self, block: Block, is_repeat: bool) -> None:
        """Record a block: a calm one starts the count of fruitless repeats anew.

        Args:
            block: Timed block.
            is_repeat: True if it replaced a disturbed block.
        """
        self.fruitless = 0 if not block.disturbed else self.fruitless + is_repeat


def time_model(
    session: TimesOnDevice,
    target: TimingTarget,
    rules: TimingRules,
    limit_ms: float | None,
    blocks_min: int | None = None,
    keep: Callable[[Block], None] = lambda block: None,
    clock: Callable[[], float] = time.monotonic,
    history: RepeatHistory | None = None,
) -> Latency:
    """Return the latency of one graph.

    Blocks are added until the percentile has a confidence interval that is narrow or lies on one side of the limit, or
    until the time of one measurement has passed.

    Args:
        session: Connected device.
        target: Graph to time.
        rules: Limits for disturbed blocks and for the number of blocks.
        limit_ms: Budget in ms; timing stops at once when the graph is surely above it.
        blocks_min: Minimum number of blocks; None takes that of the rules.
        keep: Called with every raw block.
        clock: Returns seconds.
        history: Repeats of earlier measurements on the same device; None for none.

    Raises:
        CandidateError: The graph can't be run.
        DeviceError: The device or the link failed.
    """
    history = history or RepeatHistory()
    blocks: list[Block] = []
    repeated, drifted, is_repeat, began_s, of_block = 0, 0, False, clock(), rules
    while not _enough(blocks, target, rules, limit_ms, blocks_min or rules.blocks_min, clock() - began_s):
        block = time_block(session, target, of_block)
        keep(block)
        history.record(block, is_repeat)
        if limit_ms is not None and min(samples_ms(block, target, rules)) > limit_ms:
            blocks.append(block)  # other load only adds time: even the fastest run exceeds the limit
            break
        is_drift = block.disturbed.startswith(DRIFT)
        may_repeat = repeated < rules.repeats_max and not (is_drift and drifted >= rules.drift_repeats_max)
        in_time = clock() - began_s < rules.seconds_max
        is_repeat = bool(block.disturbed) and may_repeat and in_time and history.fruitless < rules.fruitless_max
        if is_repeat:
            repeated, drifted = repeated + 1, drifted + is_drift
            if describe_throttling(block.during):
                cool_down(session, block.during.get("temperature_c_start"))
            continue
        blocks.append(block)
        of_block = replace(rules, pairs=_pairs(block, rules))
    return reduce_blocks(blocks, target, rules, repeated)


def time_block(session: TimesOnDevice, target: TimingTarget, rules: TimingRules) -> Block:
    """Time one block and judge it.

    Args:
        session: Connected device.
        target: Graph to time.
        rules: Limits for disturbed blocks.

    Returns:
        The block; its `disturbed` gives the reason if it is not trustworthy.
    """
    before = session.state()
    raw = session.time_block(
        target.model_sha256,
        target.reference_sha256,
        target.job,
        rules.pairs,
        rules.block_seconds_max,
    )
    block = Block(**raw)
    if held_back := describe_throttling(block.during):
        return replace(block, disturbed=held_back)
    foreign = foreign_cores(before, session.state(), target.job.threads)
    if foreign is not None and foreign > rules.foreign_cores_max:
        return replace(block, disturbed=f"{OTHER_LOAD}: {foreign:.1f} cores were busy with something else")
    return replace(block, disturbed=disturbance(block, target, rules))


def foreign_cores(before: Mapping[str, object], after: Mapping[str, object], threads: int) -> float | None:
    """Return the number of cores that other processes kept busy between two states; None if the device reports none.

    A block itself keeps `threads` cores busy from beginning to end.

    Args:
        before: Sensor values before the block.
        after: Sensor values after the block.
        threads: Threads of the block.
    """
    names, before, after = ("cpu_busy_s", "at_s"), parse_sensors(before), parse_sensors(after)
    if any(name not in state for state in (before, after) for name in names):
        return None
    busy_s, wall_s = (float(after[name]) - float(before[name]) for name in names)
    return max(0.0, busy_s / wall_s - threads) if wall_s > 0 else None


def disturbance(block: Block, target: TimingTarget, rules: TimingRules) -> str:
    """Return one line that says why a block is not trustworthy; empty if it is.

    Args:
        block: Block to judge.
        target: Graph that was timed.
        rules: Limits for disturbed blocks.
    """
    wall, cpu = sum(block.reference_wall_ms), sum(block.reference_cpu_ms)
    if target.by_cpu_time:  # with more threads CPU time adds up and does not show waiting
        wall, cpu = wall + sum(block.wall_ms), cpu + sum(block.cpu_ms)
    if target.job.runtime not in ON_GPU and wall > rules.wall_over_cpu_max * cpu:
        return f"{OTHER_LOAD}: runs took {wall / cpu:.2f}x the CPU time they had"
    low, middle, high = numpy.percentile(pair_ratios(block, target), [25, 50, 75])
    if (high - low) / middle > rules.ratio_spread_max:
        return f"{UNSTEADY}: quartiles of the pair ratio {100 * (high - low) / middle:.0f} % apart"
    drift = median(block.reference_wall_ms) / target.reference_ms
    if drift - 1 > rules.reference_drift_max:  # a device that has become faster is calm
        return f"{DRIFT}: the reference took {drift:.2f}x its calm time"
    return ""


def samples_ms(block: Block, target: TimingTarget, rules: TimingRules) -> Sequence[float]:
    """Return the latency samples of a block in ms, at the pace of the calm device.

    The samples are wall times. Where other load kept the runs waiting for a core, they are CPU times if those stand for
    latency: waiting is no property of the candidate. Pairs in which a run waited are left out then, since what ran
    meanwhile emptied the caches. Where the reference, timed in turn with the candidate, shows that the device ran at
    another pace than the calm one, the samples are scaled by it. The block remains marked as disturbed.

    Args:
        block: One block.
        target: Graph that was timed.
        rules: Limits for disturbed blocks.
    """
    samples: Sequence[float] = block.wall_ms
    reference: Sequence[float] = block.reference_wall_ms
    if block.disturbed.startswith((OTHER_LOAD, UNSTEADY)) and target.by_cpu_time:
        kept = _pairs_without_waiting(block)
        samples, reference = [block.cpu_ms[i] for i in kept], [block.reference_cpu_ms[i] for i in kept]
    pace = median(reference) / target.reference_ms
    return samples if abs(pace - 1) <= rules.reference_drift_max else [sample / pace for sample in samples]


def _pairs_without_waiting(block: Block) -> Sequence[int]:
    """Return the indices of the pairs in which neither run waited for a core; of all pairs where most did."""
    wall, cpu = (
        numpy.array([block.wall_ms, block.reference_wall_ms]),
        numpy.array([block.cpu_ms, block.reference_cpu_ms]),
    )
    waited = (wall > WAITED * cpu + WAITED_MS).any(axis=0)
    kept: list[int] = numpy.flatnonzero(~waited).tolist()
    return kept if len(kept) > len(block.wall_ms) / 2 else range(len(block.wall_ms))


def pair_ratios(block: Block, target: TimingTarget) -> list[float]:
    """Return candidate over reference for each pair: by GPU events, by CPU time where it stands for latency, else wall.

    Args:
        block: One block.
        target: Graph that was timed.
    """
    if block.gpu_ms:
        ours, theirs = block.gpu_ms, block.reference_gpu_ms
    elif target.by_cpu_time:
        ours, theirs = block.cpu_ms, block.reference_cpu_ms
    else:
        ours, theirs = block.wall_ms, block.reference_wall_ms
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def reduce_blocks(blocks: Sequence[Block], target: TimingTarget, rules: TimingRules, repeated: int) -> Latency:
    """Reduce blocks to one latency.

    Args:
        blocks: At least one block.
        target: Graph that was timed.
        rules: Limits for disturbed blocks.
        repeated: Number of blocks that were timed again because they were disturbed.
    """
    ratio = pool_medians([pair_ratios(block, target) for block in blocks])
    taken = [samples_ms(block, target, rules) for block in blocks]
    wall = [value for samples in taken for value in samples]
    energies = [block.energy_mj for block in blocks if block.energy_mj is not None]
    return Latency(
        percentile=target.percentile,
        percentile_ms=quantile_interval(wall, target.percentile),
        median_ms=pool_medians(taken),
        rank_ms=scale_interval(ratio, target.reference_ms),
        peak_mb=max(block.peak_mb + (block.device_mb or 0.0) for block in blocks),
        runtime_mb=min(block.runtime_mb for block in blocks),
        load_ms=median(block.load_ms for block in blocks),
        samples=len(wall),
        blocks=len(blocks),
        repeated=repeated,
        disturbed=next((block.disturbed for block in blocks if block.disturbed), ""),
        model_sha256=target.model_sha256,
        runtime_version=target.runtime_version,
        simulated=target.simulated,
        runtime=target.job.runtime,
        reference_ms=target.reference_ms,
        gpu_ms=pool_medians([block.gpu_ms for block in blocks]) if all(block.gpu_ms for block in blocks) else None,
        build_s=max(block.build_s for block in blocks),
        energy_mj=median(energies) if energies else None,
    )


def calibrate(
    session: TimesOnDevice,
    reference_sha256: str,
    job: Job,
    rules: TimingRules,
    keep: Callable[[Block], None] = lambda block: None,
) -> tuple[float, str]:
    """Measure the reference on the calm device.

    The fastest of several blocks counts, because other load only adds time.

    Args:
        session: Connected device.
        reference_sha256: SHA-256 of the reference model.
        job: Runtime, threads and precision.
        rules: Limits for disturbed blocks.
        keep: Called with every raw block.

    Returns:
        (median wall time of the reference in ms, reason why the device may not have been calm or "").
    """
    target = TimingTarget(
        model_sha256=reference_sha256,
        reference_sha256=reference_sha256,
        job=job,
        runtime_version="",
        percentile=50.0,
        reference_ms=1.0,
    )
    blocks = []
    for _ in range(5):
        blocks.append(time_block(session, target, replace(rules, reference_drift_max=float("inf"))))
        keep(blocks[-1])
    calm = min(blocks, key=lambda block: median(block.reference_wall_ms))
    disturbed = [block.disturbed for block in blocks if block.disturbed]
    return median(calm.reference_wall_ms), disturbed[0] if len(disturbed) > len(blocks) / 2 else ""


def _pairs(block: Block, rules: TimingRules) -> int:
    """Return the number of pairs of the next block, by the time that a pair took in this one."""
    pair_ms = median(block.wall_ms) + median(block.reference_wall_ms)
    return max(rules.pairs, min(rules.pairs_max, int(1e3 * rules.pairs_s / pair_ms)))


def _enough(
    blocks: Sequence[Block],
    target: TimingTarget,
    rules: TimingRules,
    limit_ms: float | None,
    blocks_min: int,
    spent_s: float,
) -> bool:
    if not blocks:
        return False
    wall = [value for block in blocks for value in samples_ms(block, target, rules)]
    interval = quantile_interval(wall, target.percentile)
    if limit_ms is not None and interval.low > limit_ms:
        return True
    if len(blocks) >= rules.blocks_max:
        return True
    if len(blocks) < blocks_min or len(wall) < samples_needed(target.percentile):
        return False
    undecided = limit_ms is not None and interval.low <= limit_ms < interval.high
    if spent_s >= (rules.undecided_times if undecided else 1.0) * rules.seconds_max:
        return True
    return _narrow(interval, rules) or (limit_ms is not None and interval.high < 0.8 * limit_ms)


def _narrow(interval: Interval, rules: TimingRules) -> bool:
    return (interval.high - interval.low) / 2 <= rules.narrow * interval.value
