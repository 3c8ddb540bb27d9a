"""When a device is held to have been held back, and how long it is waited for."""

from __future__ import annotations

import pytest

from evaluators.timing.throttling import COOL_S_MAX, cool_down, describe_throttling, hottest_c


@pytest.mark.parametrize(
    ("during", "words"),
    [
        ({"gpu_mhz_min": 614.0, "gpu_mhz_limit": 921.0}, "GPU ran at 614 of 921"),
        ({"cpu_mhz_min": 600.0, "cpu_mhz_limit": 1500.0}, "CPU ran at 600 of 1500"),
        ({"throttle_count": 3.0, "cpu_mhz_min": 4000.0, "cpu_mhz_limit": 4000.0}, "3 times by heat"),
        ({"oc_events": 1.0}, "over-current"),
        ({"throttled_bits": float(0x50005)}, "under-voltage, throttled"),
        ({"throttled_bits": float(0x20000)}, "clock capped"),
        ({"cooling_max": 2.0}, "slows it down"),
        ({"temperature_c_start": 50.0, "temperature_c_max": 63.0}, "13 C warmer"),
    ],
)
def test_held_back(during, words):
    assert words in describe_throttling(during)


@pytest.mark.parametrize(
    "during",
    [
        {},
        {"gpu_mhz_min": 900.0, "gpu_mhz_limit": 921.0},
        {"cpu_mhz_min": 2000.0, "cpu_mhz_limit": 5000.0, "throttle_count": 0.0},  # turbo comes and goes on x86
        {"throttled_bits": 0.0, "cooling_max": 0.0, "oc_events": 0.0},
        {"temperature_c_start": 50.0, "temperature_c_max": 55.0},
    ],
)
def test_itself(during):
    assert describe_throttling(during) == ""


class Cooling:
    """A device that loses two degrees with each look."""

    def __init__(self, c: float) -> None:
        self.c = c

    def state(self):
        self.c -= 2
        return {"temperature_c": {"cpu": self.c, "odd": "hot"}}


def test_it_is_waited_for_until_it_is_cool():
    slept: list[float] = []
    cool_down(Cooling(80.0), 60.0, slept.append)
    assert 7 <= len(slept) <= 9


def test_but_not_for_ever():
    slept: list[float] = []
    cool_down(Cooling(10000.0), 20.0, slept.append)
    assert sum(slept) == COOL_S_MAX
    cool_down(Cooling(10000.0), None, slept.append)
    assert sum(slept) == COOL_S_MAX


def test_a_device_without_thermometer():
    assert hottest_c({}) is None and hottest_c({"temperature_c": "hot"}) is None
