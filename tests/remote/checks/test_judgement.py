"""What is said of boards: at rest, and with each thing that can be wrong with them, one at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote import agent
from remote.checks.check import NOT_SHOWN, Check, RuntimeTrial, fit
from remote.checks.clocks import fastest_mode
from remote.device import Facts, Gpu
from remote.doctor import judge
from remote.inventory.device_files import device_files
from remote.inventory.resolve import detect
from remote.link.transport import texts
from tests.remote.onboard.boards import BOARDS, build

agent.PARTS.update(texts())
NANO = Facts(
    machine="aarch64",
    cpu="NVIDIA Jetson Nano Developer Kit",
    cpu_flags=("fp", "asimd"),
    cores=4,
    memory_mb=3956,
    python="3.6.9",
    boot_id="5f3f0a1e",
    kernel="4.9.337-tegra",
    runtimes={"tensorrt": "8.2.1", "onnxruntime": "1.10.0"},
    board="NVIDIA Jetson Nano Developer Kit",
    compatible=("nvidia,jetson-nano", "nvidia,tegra210"),
    release="L4T 32.7.6",
    gpu=Gpu("NVIDIA Tegra X1", "5.3", 3956, unified=True),
)
ORIN = replace(
    NANO,
    cores=6,
    python="3.10.12",
    runtimes={"tensorrt": "10.3.0"},
    board="NVIDIA Jetson Orin Nano",
    compatible=("nvidia,p3767-0005", "nvidia,tegra234"),
    release="L4T 36.4.3",
    gpu=Gpu("Orin", "8.7", 7620, unified=True),
)
PI = replace(
    NANO,
    python="3.11.2",
    runtimes={"onnxruntime": "1.31.0"},
    board="Raspberry Pi 4 Model B Rev 1.5",
    compatible=("raspberrypi,4-model-b", "brcm,bcm2711"),
    release="Debian GNU/Linux 12 (bookworm)",
    gpu=None,
)
NUC = replace(
    PI,
    machine="x86_64",
    cpu_flags=("avx2", "avx512_vnni"),
    cores=8,
    board="Intel(R) Client Systems NUC11TNHi5",
    compatible=(),
    release="Ubuntu 24.04.2 LTS",
)
SERVER = replace(NUC, board="ACME", runtimes={"tensorrt": "10.9.0"}, gpu=Gpu("RTX 4070", "8.9", 12000, unified=False))
FACTS = {"nano": NANO, "orin-nano": ORIN, "pi-4": PI, "pi-5": PI, "nuc": NUC}

# A Nano on which nothing is wrong.
CALM = {
    "load_average": [0.1, 0.1, 0.1],
    "busy_cores": 0.05,
    "busiest": [],
    "memory_available_mb": 3100,
    "memory_mb": 3956,
    "disk_free_mb": 20000,
    "swap_mb": 4096,
    "swap_zram_mb": 0,
    "cpu_mhz": [1479] * 4,
    "cpu_mhz_max": [1479] * 4,
    "governors": ["schedutil"],
    "cpu_clock_locked": True,
    "gpu_mhz": 921,
    "gpu_mhz_min": 921,
    "gpu_mhz_max": 921,
    "gpu_clock_locked": True,
    "power_mode": "MAXN",
    "power_mode_id": 0,
    "power_modes": {"0": "MAXN", "1": "5W"},
    "temperature_c": {"1 CPU-therm": 41.0, "2 GPU-therm": 39.5},
    "cooling": 0,
    "cooling_active": [],
    "power_sensor": "INA3221 POM_5V_IN",
    "uptime_s": 4242,
    "is_root": False,
    "holder": "",
    "desktop": [],
    "gpu_users": [],
}
CALM_PI = {key: value for key, value in CALM.items() if not key.startswith(("gpu", "power"))}
CALM_PI |= {"throttled_bits": "0", "throttled_boot_bits": "0x0", "power_sensor": ""}


def named(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def judged(facts: Facts, survey: dict) -> dict[str, Check]:
    tried = {name: RuntimeTrial(ms=1.0, difference=1e-6) for name in facts.runtimes}
    return named(judge(facts, survey, detect(facts, device_files()[2:]), tried))


def test_nothing_wrong():
    assert {check.name for check in judged(NANO, CALM).values() if check.verdict != "ok"} == set()
    assert {check.name for check in judged(PI, CALM_PI).values() if check.verdict != "ok"} == set()


def test_nothing_shown():
    """A device that tells nothing but its facts is fit, as far as anybody knows, and says what it does not show."""
    found = judged(NUC, {})
    assert fit(list(found.values()))
    hidden = {name for name, check in found.items() if check.found == NOT_SHOWN}
    assert hidden == {"disk", "memory", "swap", "cpu clock", "temperature", "throttling", "load", "energy"}


SUPER = {"0": "15W", "1": "25W", "2": "MAXN_SUPER"}
GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
NO_RUNTIME, CPU_ONLY = {"runtimes": {}}, {"runtimes": {"onnxruntime": "1.10.0"}}
# check -> rows of: verdict, facts, what differs from the calm survey, in what was found, in what mends it
PROBLEMS = {
    "runtimes": [
        ("bad", replace(NANO, **NO_RUNTIME), {}, "none", "sudo apt-get install python3-libnvinfer"),
        ("bad", replace(NANO, **NO_RUNTIME), {}, "none", "pip3 install --user onnxruntime==1.10.0 numpy==1.19.5"),
        ("bad", replace(PI, **NO_RUNTIME, python="3.6.9"), {}, "none", "pip3 install --user onnxruntime==1.10.0"),
        ("bad", replace(PI, **NO_RUNTIME), {}, "none", "pip install onnxruntime"),
    ],
    "gpu": [
        ("warn", replace(NANO, **CPU_ONLY), {}, "on the CPU", "sudo apt-get install python3-libnvinfer"),
        ("warn", replace(SERVER, **CPU_ONLY), {}, "no runtime uses it", "pip install --user tensorrt"),
        ("warn", replace(NANO, gpu=None), {}, "CUDA is not usable", ""),
    ],
    "disk": [
        ("bad", NANO, {"disk_free_mb": 90}, "90 MB free", "apt-get clean"),
        ("warn", NANO, {"disk_free_mb": 900}, "900 MB free", "apt-get clean"),
    ],
    "memory": [
        ("bad", NANO, {"memory_available_mb": 700}, "700 MB available of 3,956", "ps axo"),
        ("warn", NANO, {"memory_available_mb": 1200, "desktop": ["gnome-shell"]}, "1,200", "isolate multi-user.target"),
        ("bad", PI, {"memory_available_mb": 150}, "150 MB", "ps axo"),
    ],
    "swap": [
        ("warn", NANO, {"swap_mb": 0}, "may be killed", "fallocate -l 4G /swapfile"),
        ("warn", NANO, {"swap_mb": 1978, "swap_zram_mb": 1978}, "zram", "systemctl disable --now nvzramconfig"),
    ],
    "power mode": [
        ("warn", NANO, {"power_mode": "5W", "power_mode_id": 1}, "5W (1); the fastest is MAXN (0)", "nvpmodel -m 0"),
        ("warn", ORIN, {"power_mode": "15W", "power_modes": SUPER}, "fastest is MAXN_SUPER (2)", "nvpmodel -m 2"),
    ],
    "gpu clock": [
        ("bad", NANO, {"gpu_mhz_min": 76, "gpu_governor": "podgov"}, "76 and 921 MHz (podgov)", "sudo jetson_clocks"),
        ("bad", NANO, {"gpu_mhz_min": 76, "uptime_s": 40}, "moves", "a minute after the start"),
    ],
    "cpu clock": [("warn", PI, {"cpu_clock_locked": False, "governors": ["ondemand"]}, "governor ondemand", GOVERNOR)],
    "temperature": [
        ("warn", NANO, {"temperature_c": {"1 CPU-therm": 72.0, "x": 30.0}}, "72 °C at most (1 CPU-therm)", "--fan"),
        ("bad", PI, {"temperature_c": {"0 cpu-thermal": 82.0}}, "82 °C", "heat sink"),
    ],
    "throttling": [
        ("bad", PI, {"throttled_bits": "1"}, "now: under-voltage", "power supply"),
        ("bad", PI, {"throttled_bits": "4"}, "now: throttled", "heat sink"),
        ("bad", PI, {"throttled_bits": "f000f"}, "now: under-voltage, clock capped, throttled, soft", "heat sink"),
        ("bad", PI, {"throttled_bits": "f000f"}, "before: under-voltage since the start, clock", "power supply"),
        ("warn", PI, {"throttled_boot_bits": "0x10000"}, "before: under-voltage since the start", "power supply"),
        ("warn", PI, {"throttled_boot_bits": None, "throttled_bits": "20000"}, "capped seconds ago", "heat sink"),
        ("bad", NANO, {"cooling": 1, "cooling_active": ["gpu-throttle-alert"]}, "now: gpu-throttle-alert", "--fan"),
        ("warn", NUC, {"throttle_count": 7}, "7 times too hot since the start", "fan"),
        ("warn", ORIN, {"oc_events": {"oc1": 3, "oc2": 0}}, "before: 3 times under-voltage", "power supply"),
        ("warn", ORIN, {"oc_events": {"oc3": 2}}, "2 times instantaneous over-current", "power supply"),
        ("bad", SERVER, {"nvidia": [{"reasons": "0x60"}]}, "software thermal slowdown, thermal slowdown", "cool"),
    ],
    "load": [
        (
            "bad",
            NANO,
            {"busy_cores": 1.3, "busiest": [{"name": "X", "pid": 812, "cores": 1.2}]},
            "1.3 of 4",
            "owner to end them: pid 812",
        ),
        ("bad", NANO, {"busy_cores": 2.0}, "2.0 of 4 cores busy", "top"),
        ("warn", NANO, {"load_average": [3.0, 1.0, 0.5]}, "load average 3.0", "wait a minute"),
    ],
    "gpu users": [
        (
            "bad",
            NANO,
            {"gpu_users": [{"pid": 42, "name": "python3"}]},
            "python3 (pid 42)",
            "ask their owner to end them: pid 42",
        )
    ],
    "desktop": [("warn", NANO, {"desktop": ["Xorg", "gnome-shell"]}, "Xorg, gnome-shell", "isolate multi-user")],
    "lock": [("warn", NANO, {"holder": "ann@lab since 12:00:00 (pid 7)"}, "ann@lab since 12:00:00", "wait")],
    "login": [("warn", NANO, {"is_root": True}, "root", "ordinary user")],
    "uptime": [("warn", NANO, {"uptime_s": 31}, "31 s ago", "60 s")],
    "card 0": [
        ("warn", SERVER, {"nvidia": [{"name": "RTX", "persistence": False}]}, "starts again", "sudo nvidia-smi -pm 1"),
        ("warn", SERVER, {"nvidia": [{"name": "T4", "reasons": "0x4"}]}, "power cap", "nvidia-smi -q -d POWER"),
        ("bad", SERVER, {"nvidia": [{"name": "T4", "temperature_c": 86}]}, "T4: 86 °C", "cool"),
    ],
}


@pytest.mark.parametrize(
    ("name", "verdict", "facts", "differs", "found", "mend"),
    [(name, *row) for name, rows in PROBLEMS.items() for row in rows],
    ids=[f"{name}: {row[3]}" for name, rows in PROBLEMS.items() for row in rows],
)
def test_each_problem_and_what_mends_it(name, verdict, facts, differs, found, mend):
    calm = CALM if facts.release.startswith("L4T") else CALM_PI
    check = judged(facts, calm | differs)[name]
    assert check.verdict == verdict
    assert found in check.found and mend in check.mend
    assert check.found.isprintable() and check.mend.isprintable()


@pytest.mark.parametrize(
    ("facts", "differs", "name"),
    [
        (NANO, {"nvidia": [{"name": "X", "reasons": "0x1"}]}, "throttling"),  # idle
        (NANO, {"gpu_users": [{"pid": 900, "name": "Xorg"}], "desktop": ["Xorg"]}, "gpu users"),  # told as a desktop
        (NANO, {"power_modes": {}, "power_mode": "15W", "power_mode_id": 2}, "power mode"),  # nothing to compare with
        (ORIN, {"memory_mb": 30000, "swap_mb": 0}, "swap"),
        (NUC, {"rapl_is_roots": True}, "energy"),
        (NUC, {"cpu_clock_locked": True, "no_turbo": False}, "cpu clock"),
    ],
)
def test_what_is_no_problem(facts, differs, name):
    assert judged(facts, CALM | differs)[name].verdict == "ok"


def test_precisions_opsets_and_why_not():
    found = judged(NANO, CALM)
    assert found["runtime tensorrt"].found.startswith(
        "8.2.1: opset up to 13, fp32, fp16; not int8: NVIDIA Tegra X1 (sm 5.3)"
    )
    assert found["runtime onnxruntime"].found.startswith("1.10.0: opset up to 15, fp32, int8; not fp16: ")


@pytest.mark.parametrize(
    ("modes", "fastest"),
    [
        ({}, None),
        ({"x": "MAXN"}, None),
        ({"0": "MAXN", "1": "5W"}, (0, "MAXN")),
        ({"0": "15W", "1": "25W", "2": "MAXN_SUPER", "3": "7W"}, (2, "MAXN_SUPER")),
        ({"0": "MAXN", "1": "MODE_15W", "2": "MODE_30W"}, (0, "MAXN")),
        (
            {"0": "MODE_15W_2CORE", "2": "MODE_15W_6CORE", "8": "MODE_20W_6CORE", "7": "MODE_20W_4CORE"},
            (8, "MODE_20W_6CORE"),
        ),
        ({"0": "15W", "1": "7W"}, (0, "15W")),
    ],
)
def test_the_fastest_power_mode(modes, fastest):
    assert fastest_mode(modes) == fastest


# ------------------------------------------------ from the files of a board to the verdict


@pytest.mark.parametrize(
    ("board", "verdicts"),
    [
        ("nano", {"gpu clock": "bad", "cpu clock": "warn", "swap": "warn"}),
        ("orin-nano", {"power mode": "warn", "swap": "warn", "throttling": "warn"}),
        ("pi-4", {"temperature": "bad", "throttling": "bad", "cpu clock": "warn"}),
        ("pi-5", {}),
        ("nuc", {"cpu clock": "warn", "throttling": "warn", "desktop": "warn"}),
    ],
)
def test_boards_as_they_are_set_up(tmp_path: Path, board, verdicts):
    root = build(BOARDS[board], tmp_path)
    survey = json.loads(json.dumps(agent.part("survey").survey(root, str(tmp_path), 0.0)))
    survey |= {"is_root": False, "disk_free_mb": 5000}  # of this machine, not the board's
    said = agent.part("sensors").facts(root)
    facts = replace(FACTS[board], board=said["board"], compatible=tuple(said["compatible"]), release=said["release"])
    found = judged(facts, survey)
    assert {name: check.verdict for name, check in found.items() if check.verdict != "ok"} == verdicts


# ------------------------------------------------ hostile devices

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = sorted({*CALM, *CALM_PI, "nvidia", "throttle_count", "oc_events", "gpu_governor", "rapl_is_roots", "no_turbo"})
HOSTILE = "\x1b]0;owned\x07$(rm -rf ~); `id` <script>"


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=len(KEYS)))
def test_no_survey_can_break_the_judgement(survey):
    for facts in (NANO, PI):
        for check in judged(facts, CALM | survey).values():
            assert check.found.isprintable() and check.mend.isprintable()
            assert len(check.found) < 5000


def test_nothing_a_device_says_gets_into_a_command():
    """What it calls things is shown; what somebody may paste into a shell is ours."""
    ours = {check.mend for check in judged(NANO, {}).values()}
    for key in KEYS:
        for value in (HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}, {"0": HOSTILE}, [{"pid": HOSTILE, "name": HOSTILE}]):
            for check in judged(NANO, CALM | {key: value, "busy_cores": 3.0, "power_mode_id": 5}).values():
                assert not any(word in check.mend for word in ("rm -rf", "owned", "script", "`id`")), (key, ours)
