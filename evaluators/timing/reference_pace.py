"""Track the reference model's time on the calm device, which scales the latencies of every candidate."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from statistics import median

from evaluators.measurement import Block
from evaluators.timing.latency import OTHER_LOAD, UNSTEADY

SAME = 0.1  # relative spread of the newest times up to which they show that the device has become faster
FASTER_BLOCKS = 3  # consecutive blocks that prove a faster device: load makes it slower, nothing makes it faster
SLOWER_BLOCKS, SLOWER_S = 6, 60.0  # least number of consecutive slow blocks, and least seconds between first and last


class ReferencePace:
    """Hold the milliseconds of the reference model by runtime, recalibrated after a lasting change of the device.

    A device that was busy, hot or throttled when the reference was first timed stays faster afterwards; one that heats
    up stays slower. Ratios to the reference hold throughout, so only the scale of a latency changes.
    """

    def __init__(
        self,
        reference_ms: Mapping[str, float],
        drift_max: float,
        on_move: Callable[[str, float, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with the times of a calibration.

        Args:
            reference_ms: Milliseconds by runtime.
            drift_max: Share by which the reference may differ from its calm time.
            on_move: Called with the runtime, the old and the new milliseconds after a recalibration.
            clock: Returns seconds.
        """
        self._reference_ms, self._drift_max, self._on_move = dict(reference_ms), drift_max, on_move
        self._clock = clock
        self._fast: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=FASTER_BLOCKS))
        self._slow: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # (seconds, milliseconds)

    def of(self, runtime: str) -> float:
        """Return the reference's milliseconds in a runtime."""
        return self._reference_ms[runtime]

    def watch(self, runtime: str, block: Block) -> None:
        """Record a block, and recalibrate if the newest blocks agree that the device has changed.

        The device counts as slower only after a minute without one block at its earlier pace, and then by the fastest
        of that minute's blocks: load of a few seconds must not move the scale to and fro.

        Args:
            runtime: Runtime in which the block was timed.
            block: Timed block; one that other load disturbed does not count.
        """
        if block.disturbed.startswith((OTHER_LOAD, UNSTEADY)):
            return
        known, now = self._reference_ms[runtime], median(block.reference_wall_ms)
        fast, slow = self._fast[runtime], self._slow[runtime]
        if now < (1 - self._drift_max) * known:
            fast.append(now)
        else:
            fast.clear()
        if now > (1 + self._drift_max) * known:
            slow.append((self._clock(), now))
        else:
            slow.clear()
        if len(fast) == FASTER_BLOCKS and max(fast) <= (1 + SAME) * min(fast):
            self._move(runtime, median(fast))
        elif len(slow) >= SLOWER_BLOCKS and slow[-1][0] - slow[0][0] >= SLOWER_S:
            self._move(runtime, min(ms for _, ms in slow))

    def _move(self, runtime: str, reference_ms: float) -> None:
        known, self._reference_ms[runtime] = self._reference_ms[runtime], reference_ms
        self._fast[runtime].clear()
        self._slow[runtime].clear()
        self._on_move(runtime, known, reference_ms)
