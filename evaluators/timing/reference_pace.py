"""Track the reference model's time on the calm device, which scales the rank of every candidate."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from statistics import median

from evaluators.measurement import Block

SAME = 0.1  # relative spread of the newest times up to which they show a lasting change of the device
FASTER, SLOWER = 3, 6  # consecutive blocks that prove a change: load makes a device slower, nothing makes it faster


class ReferencePace:
    """Hold the milliseconds of the reference model by runtime, recalibrated after a lasting change of the device.

    A device that was busy, hot or throttled when the reference was first timed stays faster afterwards; one that heats
    up stays slower. Ratios to the reference hold throughout, so only the scale of a rank changes.
    """

    def __init__(
        self, reference_ms: Mapping[str, float], drift_max: float, on_move: Callable[[str, float, float], None]
    ) -> None:
        """Start with the times of a calibration.

        Args:
            reference_ms: Milliseconds by runtime.
            drift_max: Share by which the reference may differ from its calm time.
            on_move: Called with the runtime, the old and the new milliseconds after a recalibration.
        """
        self._reference_ms, self._drift_max, self._on_move = dict(reference_ms), drift_max, on_move
        self._recent: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SLOWER))

    def of(self, runtime: str) -> float:
        """Return the reference's milliseconds in a runtime."""
        return self._reference_ms[runtime]

    def watch(self, runtime: str, block: Block) -> None:
        """Record a block, and recalibrate if the newest blocks agree that the device has changed.

        Args:
            runtime: Runtime in which the block was timed.
            block: Timed block; a disturbed one counts only if drift is the disturbance.
        """
        if block.disturbed and not block.disturbed.startswith("drift"):
            return
        recent, known = self._recent[runtime], self._reference_ms[runtime]
        recent.append(median(block.reference_wall_ms))
        for count, is_off in ((FASTER, _is_faster), (SLOWER, _is_slower)):
            newest = list(recent)[-count:]
            if len(newest) < count or not all(is_off(ms, known, self._drift_max) for ms in newest):
                continue
            if max(newest) <= (1 + SAME) * min(newest):
                self._reference_ms[runtime] = median(newest)
                recent.clear()
                self._on_move(runtime, known, self._reference_ms[runtime])
                return


def _is_faster(ms: float, known_ms: float, drift_max: float) -> bool:
    return ms < (1 - drift_max) * known_ms


def _is_slower(ms: float, known_ms: float, drift_max: float) -> bool:
    return ms > (1 + drift_max) * known_ms
