"""Check whether the clocks will stay constant: power mode, locks, governor, temperature, throttling."""

from __future__ import annotations

import re

from remote.checks.check import NOT_SHOWN, Check, UntrustedReply
from remote.device import Facts, Profile

WARM_C, HOT_C = 70.0, 80.0  # °C of an idle board; a Raspberry Pi slows down at 80, a Jetson at 85 to 99
GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
COOL = "let it cool down; add a heat sink or a fan"
FAN = "sudo jetson_clocks --fan  # full speed; without a fan let it cool down, and add one"
JETSON_SUPPLY = "the power supply made for the board, or a power mode with a limit of watts"
SUPPLY = "a stronger power supply and a short cable (5 V 3 A for a Raspberry Pi 4, 5 V 5 A for a 5), then a restart"
# Raspberry Pi firmware: bit -> words; the bit 16 higher says that it has occurred, lately or since boot.
PI_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
# NVML's reasons for a clock below the wanted one that spoil a timing; idleness and a user's own limit do not.
NVIDIA_BITS = {3: "hardware slowdown", 5: "software thermal slowdown", 6: "thermal slowdown", 7: "power brake"}
POWER_CAP = 2
CARD = {
    "sm_mhz": "{:.0f} MHz",
    "sm_mhz_max": "of {:.0f}",
    "temperature_c": "{:.0f} °C",
    "watts": "{:.0f} W",
    "load": "{:.0%} load",
    "memory_used_mb": "{:,.0f} MB used",
}
OVERCURRENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}


def pace(facts: Facts, shown: UntrustedReply, profile: Profile | None) -> list[Check]:
    """Check power mode and GPU clock of a Jetson, the CPU's governor, temperature, throttling, other GPUs.

    Args:
        facts: Facts that the device reported.
        shown: Its survey.
        profile: Its profile; not used here.
    """
    checks = [_power_mode(facts, shown), _gpu_clock(shown), _cpu_clock(shown), _temperature(facts, shown)]
    return [check for check in (*checks, _throttling(facts, shown), *_cards(shown)) if check]


def _power_mode(facts: Facts, shown: UntrustedReply) -> Check | None:
    now, number = shown.text("power_mode"), shown.number("power_mode_id", 0, 9999)
    if not now or number is None:
        return Check("power mode", "ok", NOT_SHOWN) if facts.release.startswith("L4T") else None
    fastest = fastest_mode(shown.words("power_modes"))
    if fastest is None or fastest[0] == int(number):
        return Check("power mode", "ok", f"{now} ({number:.0f})")
    found = f"{now} ({number:.0f}); the fastest is {fastest[1]} ({fastest[0]})"
    return Check("power mode", "warn", found, f"sudo nvpmodel -m {fastest[0]}  # or stay: measure as you will deploy")


def fastest_mode(modes: dict[str, str]) -> tuple[int, str] | None:
    """Return (number, name) of the fastest power mode. It is not always 0: on an Orin Nano mode 0 is 15 W.

    MAXN has no limit; among the others more watts are faster, then more cores (MODE_15W_6CORE).

    Args:
        modes: Number of a mode, as text -> its name.
    """

    def speed(item: tuple[int, str]) -> tuple[bool, bool, int, int, int]:
        number, name = item
        watts, cores = re.search(r"(\d{1,4})W", name), re.search(r"(\d{1,3})_?CORE", name)
        known = [int(found[1]) if found else 0 for found in (watts, cores)]
        return "MAXN_SUPER" in name, "MAXN" in name, known[0], known[1], -number

    listed = [(int(number), name) for number, name in modes.items() if re.fullmatch("[0-9]{1,4}", number)]
    return max(listed, key=speed, default=None)


def _gpu_clock(shown: UntrustedReply) -> Check | None:
    """Check the GPU clock of a Jetson; desktop and server GPUs are checked in `_cards`."""
    low, high = shown.number("gpu_mhz_min"), shown.number("gpu_mhz_max")
    if low is None or high is None:
        return None
    if low == high:
        return Check("gpu clock", "ok", f"locked at {high:.0f} MHz")
    governor = shown.text("gpu_governor")
    found = f"moves between {low:.0f} and {high:.0f} MHz" + (f" ({governor})" if governor else "")
    uptime_s = shown.number("uptime_s")
    early = "  # a minute after the start, not before" if uptime_s is not None and uptime_s < 90 else ""
    return Check("gpu clock", "bad", found, "sudo jetson_clocks" + early)


def _cpu_clock(shown: UntrustedReply) -> Check:
    locked, governors = shown.flag("cpu_clock_locked"), shown.texts("governors")
    mhz, highest = shown.numbers("cpu_mhz"), shown.numbers("cpu_mhz_max")
    parts = [f"governor {', '.join(governors)}"] if governors else []
    if mhz and highest:
        parts.append(f"now {min(mhz):.0f} to {max(mhz):.0f} of {max(highest):.0f} MHz")
    if shown.flag("no_turbo") is False:
        parts.append("turbo on: faster when cool")
    if locked is False:
        return Check("cpu clock", "warn", "; ".join(parts), GOVERNOR)
    return Check("cpu clock", "ok", "; ".join(parts) or NOT_SHOWN)


def _temperature(facts: Facts, shown: UntrustedReply) -> Check:
    heat = shown.numbers_of("temperature_c", -100, 200)
    if not heat:
        return Check("temperature", "ok", NOT_SHOWN)
    where = max(heat, key=lambda name: heat[name])
    found = f"{heat[where]:.0f} °C at most ({where})"
    if heat[where] < WARM_C:
        return Check("temperature", "ok", found)
    return Check("temperature", "bad" if heat[where] >= HOT_C else "warn", found, _cooling(facts))


def _cooling(facts: Facts) -> str:
    return FAN if facts.release.startswith("L4T") else COOL


def _throttling(facts: Facts, shown: UntrustedReply) -> Check:
    now, past = _list_current_slowdowns(shown), _list_past_slowdowns(shown)
    if now is None and past is None:
        return Check("throttling", "ok", NOT_SHOWN)
    if not now and not past:
        return Check("throttling", "ok", "none")
    told = [f"now: {', '.join(now)}"] if now else []
    told += [f"before: {', '.join(past)}"] if past else []
    mend = "; ".join(_remedies(facts, [*(now or ()), *(past or ())]))
    return Check("throttling", "bad" if now else "warn", "; ".join(told), mend)


def _remedies(facts: Facts, words: list[str]) -> list[str]:
    """Return remedies against too weak a supply, against heat, or both."""
    electric = [word for word in words if "under-voltage" in word or "over-current" in word]
    supply = [JETSON_SUPPLY if facts.release.startswith("L4T") else SUPPLY] if electric else []
    return supply + ([_cooling(facts)] if len(electric) < len(words) else [])


def _list_current_slowdowns(shown: UntrustedReply) -> list[str] | None:
    """Return the causes that hold the clocks down at this moment; None if the device does not report them."""
    bits, cooling = shown.bits("throttled_bits"), shown.number("cooling")
    if bits is None:
        bits = shown.bits("throttled_boot_bits")
    reasons = [value for card in shown.rows("nvidia") if (value := card.bits("reasons")) is not None]
    if bits is None and cooling is None and not reasons:
        return None
    words = [word for bit, word in PI_BITS.items() if (bits or 0) >> bit & 1]
    words += (list(shown.texts("cooling_active")) or ["slowed down by heat"]) if cooling else []
    return words + [word for bit, word in NVIDIA_BITS.items() if any(value >> bit & 1 for value in reasons)]


def _list_past_slowdowns(shown: UntrustedReply) -> list[str] | None:
    """Return the causes that held the clocks down since the start, or within the last seconds; None if not reported."""
    boot, lately = shown.bits("throttled_boot_bits"), shown.bits("throttled_bits")
    count, events = shown.number("throttle_count"), shown.numbers_of("oc_events")
    if boot is None and lately is None and count is None and not events:
        return None
    sticky = (boot or 0) | (lately or 0)
    since = "since the start" if boot is not None else "seconds ago"
    words = [f"{word} {since}" for bit, word in PI_BITS.items() if sticky >> 16 + bit & 1]
    if count:
        words.append(f"{count:.0f} times too hot since the start")
    return words + [f"{number:.0f} times {OVERCURRENTS.get(name, name)}" for name, number in events.items() if number]


def _cards(shown: UntrustedReply) -> list[Check]:
    """Check each desktop or server GPU."""
    return [_card(index, card) for index, card in enumerate(shown.rows("nvidia"))]


def _card(index: int, card: UntrustedReply) -> Check:
    shown = [form.format(value) for name, form in CARD.items() if (value := card.number(name)) is not None]
    found = f"{card.text('name') or 'GPU'}: {', '.join(shown) or NOT_SHOWN}"
    temperature_c, reasons = card.number("temperature_c"), card.bits("reasons") or 0
    if temperature_c is not None and temperature_c >= HOT_C:
        return Check(f"card {index}", "bad", found, COOL)
    if reasons >> POWER_CAP & 1:
        return Check(f"card {index}", "warn", f"{found}; limited by its power cap", "nvidia-smi -q -d POWER")
    if card.flag("persistence") is False:
        return Check(f"card {index}", "warn", f"{found}; starts again for each process", "sudo nvidia-smi -pm 1")
    return Check(f"card {index}", "ok", found)
