"""What is seen on a board while it is timed: boards whose files change under the watch."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from remote import agent
from remote.link.transport import texts
from tests.remote.onboard.boards import NANO, NUC, ORIN_NANO, PI_4, STAT, build, cpufreq, meminfo

agent.PARTS.update(texts())
sensors = agent.part("sensors")
watching = agent.part("monitor")
CPU = "sys/devices/system/cpu"
NANO_GPU = "sys/class/devfreq/57000000.gpu"


class Board:
    """A tree whose files are changed in place, as a kernel's are."""

    def __init__(self, tree: dict[str, str], root: Path) -> None:
        self.root = build(tree, root)
        self.path = root

    def set(self, name: str, text: object) -> None:
        with (self.path / name).open("r+") as file:
            file.truncate(file.write(f"{text}\n"))

    def watch(self) -> object:
        """A watch that looks only when it is told to."""
        return watching.DeviceMonitor(self.root, 0.001)


def look(watch) -> None:
    watch.sample_fast()
    watch.sample_slow()


@pytest.fixture
def nano(tmp_path: Path) -> Board:
    return Board(NANO, tmp_path)


def test_clocks_and_their_limits(nano):
    watch = nano.watch()
    watch.start()
    for cpu_khz, gpu_hz in ((1479000, 921600000), (1326000, 844800000), (1479000, 921600000)):
        nano.set(f"{CPU}/cpufreq/policy0/scaling_cur_freq", cpu_khz)
        nano.set(f"{NANO_GPU}/cur_freq", gpu_hz)
        look(watch)
    seen = watch.stop()
    assert (seen["gpu_mhz_min"], seen["gpu_mhz_max"], seen["gpu_mhz_limit"]) == (76, 921, 921)
    assert (seen["cpu_mhz_min"], seen["cpu_mhz_max"], seen["cpu_mhz_limit"]) == (102, 1479, 1479)
    assert seen["samples"] == 5


def test_only_what_was_seen_between_two_times(nano):
    """Loading and warming up do not count: clocks are low then without being throttled."""
    watch = nano.watch()
    watch.start()
    time.sleep(0.02)
    from_s = time.monotonic()
    for gpu_hz in (921600000, 844800000, 921600000):
        nano.set(f"{NANO_GPU}/cur_freq", gpu_hz)
        look(watch)
    to_s = time.monotonic()
    time.sleep(0.02)
    nano.set(f"{NANO_GPU}/cur_freq", 76800000)
    assert watch.stop()["gpu_mhz_min"] == 76
    inside = watch.stop(from_s, to_s)
    assert (inside["gpu_mhz_min"], inside["gpu_mhz_max"], inside["samples"]) == (844, 921, 3)
    assert watch.stop(to_s + 1, to_s + 2)["samples"] == 0


def test_a_limit_lowered_by_heat_is_not_the_limit(nano):
    watch = nano.watch()
    watch.start()
    for name in ("scaling_max_freq", "scaling_cur_freq"):
        nano.set(f"{CPU}/cpufreq/policy0/{name}", 1036800)
    look(watch)
    assert watch.stop()["cpu_mhz_limit"] == 1479


@pytest.mark.parametrize(
    ("cpuinfo", "files", "limit"),
    [
        ("flags\t\t: sse avx2\n", {"intel_pstate/no_turbo": "0\n"}, None),
        ("flags\t\t: sse avx2\n", {"intel_pstate/no_turbo": "1\n"}, 3000),
        ("flags\t\t: sse avx2\n", {"cpufreq/boost": "1\n"}, None),
        ("flags\t\t: sse avx2\n", {"cpufreq/boost": "0\n"}, 3000),
        ("flags\t\t: sse avx2\n", {}, None),  # it may have turbo and not say so
        ("Features\t: fp asimd\n", {}, 3000),
    ],
)
def test_turbo_has_no_limit(tmp_path, cpuinfo, files, limit):
    tree = cpufreq(2, 2000000, 800000, 3000000, "powersave") | {"/proc/cpuinfo": cpuinfo}
    watch = watching.DeviceMonitor(build(tree | {f"/{CPU}/{name}": text for name, text in files.items()}, tmp_path))
    watch.start()
    assert watch.stop().get("cpu_mhz_limit") == limit


def test_the_fastest_core_stands_for_the_one_that_works(tmp_path):
    board = Board(NUC, tmp_path)
    watch = board.watch()
    board.set(f"{CPU}/cpufreq/policy5/scaling_cur_freq", 4100000)
    for core in (0, 1, 2, 3, 4, 6, 7):
        board.set(f"{CPU}/cpufreq/policy{core}/scaling_cur_freq", 400000)
    watch.start()
    assert watch.stop()["cpu_mhz_min"] == 4100


def test_heat_and_brakes(nano):
    watch = nano.watch()
    watch.start()
    nano.set("sys/class/thermal/thermal_zone2/temp", 71500)
    nano.set("sys/class/thermal/thermal_zone4/temp", 120000)  # the PMIC's
    nano.set("sys/class/thermal/cooling_device0/cur_state", 9)  # the fan's
    look(watch)
    seen = watch.stop()
    assert (seen["temperature_c_start"], seen["temperature_c_max"]) == (44.5, 71.5)
    assert (seen["cooling_start"], seen["cooling_max"]) == (0, 0)
    watch = nano.watch()
    watch.start()
    nano.set("sys/class/thermal/cooling_device2/cur_state", 4)
    look(watch)
    assert watch.stop()["cooling_max"] == 4


def test_new_events_only(tmp_path):
    board = Board(ORIN_NANO, tmp_path / "orin")
    watch = board.watch()
    watch.start()
    board.set("sys/class/hwmon/hwmon3/oc3_event_cnt", 9)
    assert watch.stop()["oc_events"] == 7
    board = Board(NUC, tmp_path / "nuc")
    watch = board.watch()
    watch.start()
    board.set(f"{CPU}/cpu0/thermal_throttle/core_throttle_count", 5)
    seen = watch.stop()
    assert seen["throttle_count"] == 2 and "oc_events" not in seen


@pytest.mark.parametrize(
    ("texts_", "bits"),
    [
        (["0", "0"], 0),
        (["50000", "50000"], 0),  # has occurred, but before
        (["0", "50000"], 0x50000),
        (["0", "4", "0"], 4),
        (["50005", "50005"], 5),  # now, all the time
        (["50000", "0", "50000"], 0),
        (["10000", "d000d", "10000"], 0xC000D),
    ],
)
def test_new_bits_of_a_pi(tmp_path, texts_, bits):
    board = Board(PI_4 | {"/sys/devices/platform/soc/soc:firmware/get_throttled": texts_[0]}, tmp_path)
    watch = board.watch()
    watch.start()
    for text in texts_[1:]:
        board.set("sys/devices/platform/soc/soc:firmware/get_throttled", text)
        look(watch)
    assert watch.stop()["throttled_bits"] == bits


def test_memory_and_load(nano):
    watch = nano.watch()
    watch.start()
    nano.set("proc/meminfo", meminfo(3956, 700))
    nano.set("proc/stat", STAT.format(busy=1300, idle=9100))  # 300 of 400 ticks busy
    look(watch)
    nano.set("proc/meminfo", meminfo(3956, 3000))
    seen = watch.stop()
    assert (seen["memory_available_mb_start"], seen["memory_available_mb_low"]) == (3100, 700)
    assert seen["cpu_busy"] == pytest.approx(0.75)


def test_power_is_kept_with_its_time(nano):
    source = sensors.power(nano.root)
    watch = sensors.DeviceMonitor(nano.root, 100.0, source)
    from_s = time.monotonic()
    watch.start()
    nano.set("sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input", 8875)
    time.sleep(0.3)
    seen = watch.stop()
    times = [at_s for at_s, _ in watch.watts]
    assert times == sorted(times) and from_s <= times[0] and times[-1] <= time.monotonic()
    assert watch.watts[0][1] == 2.875 and watch.watts[-1][1] == 8.875
    assert seen["watts_max"] == 8.875 and 2.875 < seen["watts_mean"] < 8.875
    assert sensors.energy(watch.watts, times[1], times[-1], 10) == pytest.approx(
        8875 * (times[-1] - times[1]) / 10, rel=0.2
    )
    source.close()


def test_what_is_not_shown_is_left_out(tmp_path):
    watch = watching.DeviceMonitor(str(tmp_path), 10.0)
    watch.start()
    assert set(watch.stop()) == {"samples", "seconds"}


def test_everything_seen_is_a_number(tmp_path):
    """Replies keep nothing else of it."""
    for index, tree in enumerate((NANO, ORIN_NANO, PI_4, NUC)):
        watch = watching.DeviceMonitor(
            build(tree, tmp_path / str(index)), 50.0, sensors.power(str(tmp_path / str(index)))
        )
        watch.start()
        time.sleep(0.06)
        assert all(type(value) in (int, float) for value in watch.stop().values())


def test_it_looks_at_its_rate_in_a_thread_of_its_own():
    watch = watching.DeviceMonitor("/", 50.0)
    watch.start()
    time.sleep(1.0)
    seen = watch.stop()
    assert 25 <= seen["samples"] <= 60 and 0.9 <= seen["seconds"] < 2
    assert not watch.thread.is_alive()
    assert 0 <= seen["cpu_busy"] <= 1 and seen["memory_available_mb_low"] > 0


def test_files_are_closed_at_the_end(nano):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    sensors.power(nano.root)  # dropped
    for _ in range(5):
        watch = nano.watch()
        watch.start()
        assert open_files() > before
        watch.stop()
    assert open_files() == before


@pytest.mark.parametrize("tree", [NANO, NUC], ids=["nano", "nuc"])
def test_it_costs_less_than_a_hundredth_of_a_core(tree, tmp_path):
    """At 10 Hz, by the CPU time of what one look costs: five fast ones to each slow one."""
    root = build(tree, tmp_path)
    watch = watching.DeviceMonitor(root, 0.001, sensors.power(root))
    watch.start()
    began_s = time.process_time()
    for _ in range(100):
        for _ in range(5):
            watch.sample_fast()
        watch.sample_slow()
    per_half_second = (time.process_time() - began_s) / 100
    watch.stop()
    print(f"{100 * per_half_second / 0.5:.3f} % of a core")
    assert per_half_second / 0.5 < 0.01
