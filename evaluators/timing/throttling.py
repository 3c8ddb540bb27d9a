"""Heat, power and clocks while something was timed: whether the device was itself, and waiting until it is again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

CLOCK_SHARE_MIN = 0.97  # of the highest clock allowed, below which a locked clock does not fall by itself
WARMER_C_MAX = 10.0  # within one block; more, and its end ran on another device than its beginning
COOL_WITHIN_C = 3.0
COOL_S_MAX = 180.0
RASPBERRY = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}  # bit + 16: since


class ShowsDeviceState(Protocol):
    """The part of a device session that waiting needs."""

    def state(self) -> dict[str, Any]: ...


def describe_throttling(during: Mapping[str, float]) -> str:
    """Why the device was held back while it was timed, one line; empty if it was not, or does not show it.

    A clock is judged only where it should not move: a GPU's, and a CPU's that counts no throttling of its own (on
    x86, where turbo comes and goes, the counters tell).
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
    """Waits, three minutes at most, until the device is within 3 C of `calm_c`."""
    waited_s = 0.0
    while calm_c is not None and waited_s < COOL_S_MAX:
        now_c = hottest_c(session.state())
        if now_c is None or now_c <= calm_c + COOL_WITHIN_C:
            return
        sleep(5.0)
        waited_s += 5.0


def hottest_c(state: Mapping[str, Any]) -> float | None:
    """The highest temperature a device shows, None if it shows none."""
    zones = state.get("temperature_c")
    shown = [value for value in zones.values() if isinstance(value, int | float)] if isinstance(zones, dict) else []
    return max(shown, default=None)
