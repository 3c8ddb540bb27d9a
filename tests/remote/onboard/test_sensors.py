"""What boards say of themselves, read from trees of files that are named as theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote import agent
from remote.link.transport import texts
from tests.remote.onboard.boards import BOARDS, NANO, NUC, PI_4, PI_5, Tree, build, cooling, cpufreq, zones
from tests.remote.test_agent import old_pythons

agent.PARTS.update(texts())
sensors = agent.part("sensors")


@pytest.fixture
def root(tmp_path: Path):
    """Builds a tree and returns its root."""
    return lambda tree: build(tree, tmp_path)


# ------------------------------------------------ facts


@pytest.mark.parametrize(
    ("board", "name", "release", "compatible", "kernel"),
    [
        ("nano", "NVIDIA Jetson Nano Developer Kit", "L4T 32.7.6", "nvidia,tegra210", "4.9.337-tegra"),
        (
            *("orin-nano", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"),
            *("L4T 36.4.3", "nvidia,tegra234", "5.15.148-tegra"),
        ),
        ("pi-4", "Raspberry Pi 4 Model B Rev 1.5", "Debian GNU/Linux 12 (bookworm)", "brcm,bcm2711", None),
        ("pi-5", "Raspberry Pi 5 Model B Rev 1.0", "Debian GNU/Linux 13 (trixie)", "brcm,bcm2712", None),
        ("nuc", "Intel(R) Client Systems NUC11TNHi5", "Ubuntu 24.04.2 LTS", None, "6.8.0-60-generic"),
    ],
)
def test_facts(root, board, name, release, compatible, kernel):
    found = sensors.facts(root(BOARDS[board]))
    assert (found["board"], found["release"]) == (name, release)
    assert found["compatible"][-1:] == ([compatible] if compatible else [])
    assert kernel is None or found["kernel"] == kernel
    assert found["boot_id"].startswith("5f3f0a1e")


def test_an_arm_boards_name_stands_before_its_processor_a_pcs_does_not(root, tmp_path):
    assert sensors.facts(root(NANO))["cpu"] == "NVIDIA Jetson Nano Developer Kit, implementer 0x41 part 0xd07"
    nuc = build(NUC, tmp_path / "nuc")
    assert sensors.facts(nuc)["cpu"] == "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz"


def test_a_pc_without_a_name_goes_by_its_mainboard(root):
    where = "/sys/class/dmi/id/"
    maker = {where + "sys_vendor": "To Be Filled By O.E.M.", where + "product_name": "To Be Filled By O.E.M."}
    mainboard = {where + "board_vendor": "ASRock", where + "board_name": "N100DC-ITX"}
    assert sensors.board_name(root(maker | mainboard)) == "ASRock N100DC-ITX"


def test_nothing_at_all_to_read(tmp_path):
    found = sensors.facts(str(tmp_path))
    assert (found["board"], found["compatible"], found["release"], found["memory_mb"]) == ("", [], "", 0)
    assert found["cores"] >= 1 and found["kernel"]
    assert set(sensors.state(str(tmp_path))) == {"load_average", "memory_available_mb"}


# ------------------------------------------------ state


def test_state_of_a_nano(root):
    found = sensors.state(root(NANO))
    assert found["cpu_mhz"] == [102] * 4 and found["cpu_mhz_max"] == [1479] * 4
    assert found["governors"] == ["schedutil"]
    assert (found["gpu_mhz"], found["gpu_mhz_min"], found["gpu_mhz_max"]) == (76, 76, 921)
    assert (found["gpu_governor"], found["gpu_load"]) == ("nvhost_podgov", 0.25)
    # neither the PMIC's constant 100 nor the fan's estimate
    assert found["temperature_c"] == {"0 AO-therm": 44.5, "1 CPU-therm": 40.0, "2 GPU-therm": 38.5, "3 PLL-therm": 38.0}
    assert (found["cooling"], found["cooling_active"]) == (0, [])  # the fan at 3 slows nothing down
    assert found["load_average"] == [0.08, 0.12, 0.2] and found["memory_available_mb"] == 3100
    assert found["cpu_busy_s"] == 10.0
    assert not {"throttled_bits", "throttle_count", "oc_events"} & set(found)


def test_state_of_an_orin(root):
    found = sensors.state(root(BOARDS["orin-nano"]))
    assert found["oc_events"] == {"oc1": 0, "oc2": 0, "oc3": 2}
    assert found["gpu_mhz"] == found["gpu_mhz_min"] == 1020
    assert "2 cv0-thermal" not in found["temperature_c"]  # off: -256
    assert found["cooling"] == 0  # neither fan nor devfreq


def test_state_of_the_pis(root, tmp_path):
    assert sensors.state(root(PI_4))["throttled_bits"] == "50005"
    assert sensors.state(build(PI_5, tmp_path / "5"))["throttled_bits"] == "0"
    alarm = {name: text for name, text in PI_4.items() if "get_throttled" not in name}
    assert sensors.state(build(alarm, tmp_path / "alarm"))["throttled_bits"] == "1"


def test_state_of_a_nuc(root):
    found = sensors.state(root(NUC))
    assert found["throttle_count"] == 7
    assert found["temperature_c"] == {"0 acpitz": 27.8, "1 x86_pkg_temp": 46.0, "coretemp": 47.0}
    assert (found["cooling"], found["cooling_active"]) == (0, [])
    assert len(found["cpu_mhz"]) == 8


def test_what_slows_down_is_named(root):
    found = sensors.state(root(cooling(("Processor", 0), ("intel_powerclamp", 25), ("gpu-throttle-alert", 1))))
    assert (found["cooling"], found["cooling_active"]) == (25, ["gpu-throttle-alert", "intel_powerclamp"])


def test_cores_and_zones_are_in_their_own_order(root):
    tree = cpufreq(12, 1000000, 1, 2000000, "x") | zones(*[(f"z{index}", 30000 + index) for index in range(12)])
    tree["/sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq"] = "2000000\n"
    found = sensors.state(root(tree))
    assert found["cpu_mhz"].index(2000) == 2
    assert list(found["temperature_c"])[-1] == "11 z11"


def test_a_number_that_is_none_is_left_out(root):
    tree = {
        "/sys/class/devfreq/17000000.ga10b/cur_freq": "²\n",
        "/sys/class/devfreq/17000000.ga10b/max_freq": "9" * 999,
    }
    tree |= {
        "/proc/device-tree/compatible": "nvidia,tegra234",
        "/proc/loadavg": "nan inf 1e9 1/1 1\n",
        "/proc/stat": "cpu  x 1 2 3 4 5 6 7\n",
    }
    found = sensors.state(root(tree))
    assert not {"gpu_mhz", "gpu_mhz_max", "cpu_busy_s"} & set(found)
    json.dumps(found, allow_nan=False)


def test_a_gpu_that_is_no_jetsons_is_none_of_ours(root):
    gpu = {"/sys/class/devfreq/fb000000.gpu/cur_freq": "300000000\n"}
    assert "gpu_mhz" not in sensors.state(
        root(gpu | {"/proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588"})
    )


def test_a_gauge_reads_the_file_anew_each_time(tmp_path):
    path = tmp_path / "cur_freq"
    path.write_text("1000\n")
    gauge = sensors.Gauge(str(path))
    assert gauge.value() == 1000
    path.write_text("900\n")
    assert gauge.value() == 900
    path.write_text("busy\n")
    assert gauge.value() is None
    gauge.close()
    assert gauge.value() is None
    gauge.close()


def test_a_real_proc_file_can_be_read_again_and_again():
    gauge = sensors.Gauge("/proc/uptime")
    first = [gauge.text() for _ in range(3)]
    assert all(first) and float(first[-1].split()[0]) >= float(first[0].split()[0]) > 0
    gauge.close()


# ------------------------------------------------ anything may be in any file

FILES = [(board, name) for board, tree in BOARDS.items() for name in tree if not name.startswith("/usr/bin/")]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {board: Path(build(tree, tmp_path_factory.mktemp(board))) for board, tree in BOARDS.items()}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(FILES),
    st.one_of(
        st.binary(max_size=200),
        st.integers().map(lambda number: str(number).encode()),
        st.text("0123456789 .-+eE:\n\tcpukB\0x", max_size=60).map(str.encode),
    ),
)
def test_garbage_in_any_file_never_raises(roots, which, content):
    board, name = which
    path = roots[board] / name.lstrip("/")
    path.write_bytes(content)
    try:
        look_at_everything(str(roots[board]))
    finally:
        path.write_text(BOARDS[board][name])


def look_at_everything(root: str) -> None:
    source = sensors.power(root)
    watch = sensors.DeviceMonitor(root, 10.0, source)
    watch.start()
    survey = agent.part("survey")
    for found in (sensors.facts(root), sensors.state(root), watch.stop(), survey.storage(root, root)):
        json.dumps(found, allow_nan=False)
    for found in (survey.power_mode, survey.power_source, survey.processes, survey.desktop, survey.gpu_users):
        json.dumps(found(root), allow_nan=False)
    json.dumps(survey.clock_locks(sensors.state(root), root))
    if source:
        source.close()


def test_files_that_are_folders_or_gone(root, tmp_path):
    for board, tree in BOARDS.items():
        for index, name in enumerate(tree):
            path = tmp_path / board / name.lstrip("/")
            build({name: ""}, tmp_path / board)
            if index % 2:
                path.unlink()
                path.mkdir()
        look_at_everything(str(tmp_path / board))


# ------------------------------------------------ older Pythons say the same

SCRIPT = """
import json, sys, types
parts, loaded = json.load(sys.stdin), {}
def part(name):
    if name not in loaded:
        loaded[name] = types.ModuleType(name)
        loaded[name].part = part
        exec(compile(parts[name], name, "exec"), loaded[name].__dict__)
    return loaded[name]
found = {}
for root in sys.argv[1:]:
    facts, state = part("sensors").facts(root), part("survey").survey(root, root, 0.0)
    for name in ("at_s", "unix_s", "disk_free_mb", "is_root", "busy_cores"):
        state.pop(name, None)
    facts.pop("python")
    watch = part("sensors").DeviceMonitor(root, 100.0, part("sensors").power(root))
    watch.start()
    seen = watch.stop()
    found[root] = facts, state, sorted(seen), seen["memory_available_mb_low"]
print(json.dumps(found, sort_keys=True))
"""


def spoken_by(python: str, roots: dict[str, Path]) -> str:
    argv = [python, "-c", SCRIPT, *map(str, roots.values())]
    done = subprocess.run(argv, input=json.dumps(texts()), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("python", old_pythons())
def test_each_python_reads_the_same(roots, python):
    assert spoken_by(python, roots) == spoken_by(sys.executable, roots)


def kinds(value) -> set[type]:
    if isinstance(value, dict):
        return {type(value)}.union(*map(kinds, value.values()))
    return {type(value)}.union(*map(kinds, value)) if isinstance(value, list) else {type(value)}


def test_this_machine():
    found: Tree = sensors.state()
    assert kinds(found) <= {dict, list, str, int, float, bool}
    assert found["memory_available_mb"] > 0 and found["cpu_busy_s"] > 0
    assert sensors.memory_mb("MemTotal") > sensors.memory_mb("MemAvailable")
