"""The reference model's time on the calm device, by which every other is ranked, and its moves."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from statistics import median

from evaluators.measurement import Block

SAME = 0.1  # of each other, that the newest times may differ by where the device has changed for good
FASTER, SLOWER = 3, 6  # blocks in a row that show it: other load can make a device slower, nothing makes it faster


class ReferencePace:
    """Milliseconds of the reference model in each runtime, calibrated again when the device has changed for good.

    A device that was busy, hot or throttled while the reference was first timed is faster ever after; one that heats up
    stays slower. Ratios to the reference hold all the while, so that a rank is only given in other milliseconds.
    """

    def __init__(
        self, reference_ms: Mapping[str, float], drift_max: float, on_move: Callable[[str, float, float], None]
    ) -> None:
        """Start with the times of a calibration.

        Args:
            reference_ms: Milliseconds by runtime.
            drift_max: Share by which the reference may differ from its calm time.
            on_move: Called with runtime, old and new milliseconds when the yardstick has moved.
        """
        self._reference_ms, self._drift_max, self._on_move = dict(reference_ms), drift_max, on_move
        self._recent: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SLOWER))

    def of(self, runtime: str) -> float:
        """Return the reference's milliseconds in a runtime."""
        return self._reference_ms[runtime]

    def watch(self, runtime: str, block: Block) -> None:
        """Take note of a block; move if the newest ones agree that the device is another now."""
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
