"""The reference's time moves when the device has changed for good, and only then."""

from __future__ import annotations

import pytest

from evaluators.measurement import Block
from evaluators.timing.reference_pace import FASTER, SLOWER, ReferencePace

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


@pytest.fixture
def moves():
    return []


@pytest.fixture
def yardstick(moves):
    return ReferencePace({"onnxruntime": CALM_MS}, 0.15, lambda *move: moves.append(move))


def test_yardstick_first_timed_in_a_slow_minute_moves_to_the_faster_device(yardstick, moves):
    for _ in range(FASTER):
        yardstick.watch("onnxruntime", block(0.53))
    assert yardstick.of("onnxruntime") == 0.53 and moves == [("onnxruntime", CALM_MS, 0.53)]


def test_yardstick_slow_for_a_while_stays(yardstick, moves):
    for reference_ms in (*[1.4] * (SLOWER - 1), 1.0, *[1.4] * (SLOWER - 1)):
        yardstick.watch("onnxruntime", block(reference_ms, "drift: the reference took 1.40x its calm time"))
    assert yardstick.of("onnxruntime") == CALM_MS and not moves
    yardstick.watch("onnxruntime", block(1.4))
    assert yardstick.of("onnxruntime") == 1.4


def test_yardstick_other_load_tells_nothing(yardstick, moves):
    for _ in range(2 * SLOWER):
        yardstick.watch("onnxruntime", block(2.0, "other load: 1.0 cores were busy with something else"))
    assert not moves


def test_yardstick_times_that_disagree_move_nothing(yardstick, moves):
    for reference_ms in (0.5, 0.7, 0.5, 0.7):
        yardstick.watch("onnxruntime", block(reference_ms))
    assert not moves
