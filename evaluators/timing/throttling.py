"""Detect throttling while a model was timed, and wait until the device has cooled down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

CLOCK_SHARE_MIN = 0.97  # share of the highest allowed clock; a locked clock does not fall below it by itself
WARMER_C_MAX = 10.0  # warming within one block; more than that makes its beginning and end incomparable
COOL_WITHIN_C = 3.0
COOL_S_MAX = 180.0
RASPBERRY = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}  # bit + 16: since boot


class ShowsDeviceState(Protocol):
    """Describe the method of a device session that waiting needs."""

    def state(self) -> dict[str, object]:
        """Return the sensor values of the device."""
        ...


def describe_throttling(during: Mapping[str, float]) -> str:
    """Return one line that says how the device was throttled during a timing; empty if no throttling was reported.

    A clock is checked only where it should be constant: a GPU's, and a CPU's without a throttling counter (on x86,
    where turbo varies the clock, the counters are used).

    Args:
        during: Sensor values of the timing, by name.
    """
    for name in ("gpu_mhz", *([] if "throttle_count" in during else ["cpu_mhz"])):
        low, limit = during.get(f"{name}_min"), during.get(f"{name}_limit")
        if low is not None and limit and low < CLOCK_SHARE_MIN * limit:
            return f"throttled: the {name[:3].upper()} ran at {low:.0f} of {limit:.0f} MHz"
    if during.get("throttle_count", 0) > 0:
        return f"throttled: {during['throttle_count']:.0f} times by heat"
    if during.get("oc_events", 0) > 0:
        return f"throttled: {during['oc_events']:.0f} times by over-current"
    bits = int(during.get("throttled_bits", 0))
    if said := [text for bit, text in RASPBERRY.items() if bits & (1 << bit | 1 << (bit + 16))]:
        return f"throttled: {', '.join(said)}"
    if during.get("cooling_max", 0) > 0:
        return "throttled: the kernel slows it down to cool it"
    warmer = during.get("temperature_c_max", 0.0) - during.get(
        "temperature_c_start", during.get("temperature_c_max", 0)
    )
    if warmer > WARMER_C_MAX:
        return f"throttled: {warmer:.0f} C warmer at the end than at the beginning"
    return ""


def cool_down(session: ShowsDeviceState, calm_c: float | None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait, three minutes at most, until the device is within 3 C of its calm temperature.

    Args:
        session: Connected device.
        calm_c: Temperature in C before the timing; None does not wait.
        sleep: Called with seconds.
    """
    waited_s = 0.0
    while calm_c is not None and waited_s < COOL_S_MAX:
        now_c = hottest_c(session.state())
        if now_c is None or now_c <= calm_c + COOL_WITHIN_C:
            return
        sleep(5.0)
        waited_s += 5.0


def hottest_c(state: Mapping[str, object]) -> float | None:
    """Return the highest temperature that a device reports in C; None if it reports none."""
    zones = state.get("temperature_c")
    shown = [value for value in zones.values() if isinstance(value, int | float)] if isinstance(zones, dict) else []
    return max(shown, default=None)
