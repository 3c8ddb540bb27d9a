"""The reference's time moves when the device has changed for good, and only then."""

from __future__ import annotations

import pytest

from evaluators.measurement import Block
from evaluators.timing.reference_pace import FASTER_BLOCKS, SLOWER_BLOCKS, SLOWER_S, ReferencePace

CALM_MS = 1.0


def block(reference_ms, disturbed=""):
    times = (reference_ms,) * 5
    return Block(
        wall_ms=times,
        cpu_ms=times,
        reference_wall_ms=times,
        reference_cpu_ms=times,
        peak_mb=60.0,
        runtime_mb=50.0,
        load_ms=1.0,
        warmup_runs=5,
        load_average=0.0,
        disturbed=disturbed,
    )


class Clock:
    """Tells the seconds that a test sets."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def moves():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pace(moves, clock):
    return ReferencePace({"onnxruntime": CALM_MS}, 0.15, lambda *move: moves.append(move), clock)


def slow_blocks(pace, clock, seconds, reference_ms=1.4, count=2 * SLOWER_BLOCKS):
    """Records slow blocks evenly over a time."""
    for _ in range(count):
        clock.seconds += seconds / (count - 1)
        pace.watch("onnxruntime", block(reference_ms, "drift: the reference took 1.40x its calm time"))


def test_watch_first_timed_in_a_slow_minute_moves_to_the_faster_device(pace, moves):
    for _ in range(FASTER_BLOCKS):
        pace.watch("onnxruntime", block(0.53))
    assert pace.of("onnxruntime") == 0.53 and moves == [("onnxruntime", CALM_MS, 0.53)]


def test_watch_slow_for_less_than_a_minute_stays(pace, moves, clock):
    slow_blocks(pace, clock, 0.9 * SLOWER_S)
    assert pace.of("onnxruntime") == CALM_MS and not moves


def test_watch_one_calm_block_within_a_slow_minute_stays(pace, moves, clock):
    slow_blocks(pace, clock, 0.9 * SLOWER_S)
    pace.watch("onnxruntime", block(CALM_MS))
    slow_blocks(pace, clock, 0.9 * SLOWER_S)
    assert not moves


def test_watch_slow_for_a_minute_moves_to_the_fastest_slow_block(pace, moves, clock):
    slow_blocks(pace, clock, SLOWER_S / 2, 1.6)
    slow_blocks(pace, clock, SLOWER_S / 2 + 1, 1.4)
    slow_blocks(pace, clock, SLOWER_S / 4, 1.7)
    assert pace.of("onnxruntime") == 1.4 and moves == [("onnxruntime", CALM_MS, 1.4)]


def test_watch_throttled_for_a_minute_moves(pace, moves, clock):
    for _ in range(SLOWER_BLOCKS):
        clock.seconds += SLOWER_S / 4
        pace.watch("onnxruntime", block(1.9, "throttled: the clock was lowered"))
    assert pace.of("onnxruntime") == 1.9


def test_watch_few_slow_blocks_in_a_minute_stays(pace, moves, clock):
    slow_blocks(pace, clock, 2 * SLOWER_S, count=SLOWER_BLOCKS - 1)
    assert not moves


def test_watch_other_load_tells_nothing(pace, moves, clock):
    for _ in range(2 * SLOWER_BLOCKS):
        clock.seconds += SLOWER_S
        pace.watch("onnxruntime", block(2.0, "other load: 1.0 cores were busy with something else"))
    assert not moves


def test_watch_times_that_disagree_move_nothing(pace, moves):
    for reference_ms in (0.5, 0.7, 0.5, 0.7):
        pace.watch("onnxruntime", block(reference_ms))
    assert not moves
