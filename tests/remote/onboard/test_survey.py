"""What the doctor is told: boards as file trees, with the programs that are installed there."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remote import agent
from remote.link.transport import texts
from tests.remote.onboard.boards import BOARDS, COMMON, NANO, NUC, ORIN_NANO, PI_5, STAT, build, program

agent.PARTS.update(texts())
survey = agent.part("survey")

# What nvidia-smi 550 and 470 print; a field of the other's makes them print a line of complaint and fail.
SMI = """#!/bin/sh
case "$1" in
  --query-compute-apps=*) printf '4242, /usr/bin/python3\\n4711, /opt/a, b/tool\\n' ;;
  *%s*) echo 'Field "%s" is not a valid field to query.'; exit 2 ;;
  *) printf 'NVIDIA GeForce RTX 4070, 210, 3105, 41, 12.31, 3, 512, Disabled, 0x0000000000000020\\n' ;;
esac
"""
NEWER = SMI % (("clocks_throttle_reasons",) * 2)
OLDER = SMI % (("clocks_event_reasons",) * 2)


def surveyed(tree: dict[str, str], root: Path) -> dict:
    found = survey.survey(build(tree, root), str(root), 0.0)
    json.dumps(found, allow_nan=False)
    return found


def test_a_nano(tmp_path):
    found = surveyed(NANO, tmp_path)
    assert (found["power_mode"], found["power_mode_id"]) == ("MAXN", 0)
    assert found["power_modes"] == {"0": "MAXN", "1": "5W"}
    assert (found["swap_mb"], found["swap_zram_mb"], found["memory_mb"]) == (1978, 4 * 494, 3956)
    assert found["gpu_clock_locked"] is False and found["clocks_locked"] is False
    assert found["power_sensor"] == "INA3221 POM_5V_IN"
    assert found["uptime_s"] == 4242 and found["disk_free_mb"] > 0
    assert abs(found["unix_s"] - time.time()) < 5
    assert found["gpu_mhz_max"] == 921  # the state is in it


def test_an_orin_whose_fastest_mode_is_not_0(tmp_path):
    found = surveyed(ORIN_NANO, tmp_path)
    assert (found["power_mode"], found["power_mode_id"]) == ("25W", 1)
    assert found["power_modes"]["2"] == "MAXN_SUPER"
    assert found["gpu_clock_locked"] and found["cpu_clock_locked"] and found["clocks_locked"]


@pytest.mark.parametrize(
    ("output", "mode", "number"),
    [
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2", "MODE_15W_6CORE", 2),
        ("NVPM VERB: Current mode: NV Power Mode: MAXN\n0", "MAXN", 0),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13", "MAXN", 0),  # then the file itself is read
    ],
)
def test_what_nvpmodel_prints(tmp_path, output, mode, number):
    found = survey.power_mode(build(NANO | {"/usr/bin/nvpmodel": program(output)}, tmp_path))
    assert (found["power_mode"], found["power_mode_id"]) == (mode, number)


def test_a_mode_that_is_listed_nowhere_goes_by_its_number(tmp_path):
    assert survey.power_mode(build({"/var/lib/nvpmodel/status": "pmode:0003 fmode:cool"}, tmp_path)) == {
        "power_mode": "mode 3",
        "power_mode_id": 3,
    }


def test_the_pis(tmp_path):
    assert surveyed(BOARDS["pi-4"], tmp_path / "4")["throttled_boot_bits"] == "0x50005"
    found = surveyed(PI_5, tmp_path / "5")
    assert found["cpu_clock_locked"] is True and found["throttled_boot_bits"] == "0x0"
    assert found["power_sensor"] == "" and found["rapl_is_roots"] is False
    assert "power_mode" not in found and "gpu_clock_locked" not in found


def test_a_nuc(tmp_path):
    found = surveyed(NUC, tmp_path)
    assert found["no_turbo"] is False and found["cpu_clock_locked"] is False
    assert (found["swap_mb"], found["swap_zram_mb"]) == (4095, 0)
    assert found["desktop"] == ["gnome-shell"]
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert survey.power_source(str(tmp_path)) == {"power_sensor": "", "rapl_is_roots": True}


def test_an_amd_says_boost(tmp_path):
    root = build({"/sys/devices/system/cpu/cpufreq/boost": "0\n"}, tmp_path)
    assert survey.clock_locks({}, root) == {"no_turbo": True}


# ------------------------------------------------ GPUs


@pytest.mark.parametrize("smi", [NEWER, OLDER], ids=["newer", "older"])
def test_nvidia_smi_of_both_namings(tmp_path, smi):
    (card,) = surveyed(COMMON | {"/usr/bin/nvidia-smi": smi}, tmp_path)["nvidia"]
    assert card == {
        "name": "NVIDIA GeForce RTX 4070",
        "sm_mhz": 210.0,
        "sm_mhz_max": 3105.0,
        "temperature_c": 41.0,
        "watts": 12.31,
        "load": 0.03,
        "memory_used_mb": 512.0,
        "persistence": False,
        "reasons": "0x0000000000000020",
    }


def test_what_a_gpu_does_not_tell_is_left_out(tmp_path):
    line = "Orin (nvgpu), [N/A], [N/A], [N/A], [Not Supported], [N/A], [N/A], [N/A], [N/A]"
    assert survey.nvidia(build({"/usr/bin/nvidia-smi": program(line)}, tmp_path)) == [{"name": "Orin (nvgpu)"}]


@pytest.mark.parametrize("output", ["", "No devices were found", "a,b", "," * 300, "NVIDIA-SMI has failed because"])
def test_nvidia_smi_that_tells_nothing(tmp_path, output):
    root = build({"/usr/bin/nvidia-smi": program(output)}, tmp_path)
    assert survey.nvidia(root) == [] and survey.gpu_users(root) == []


def test_users_of_a_gpu(tmp_path):
    assert survey.gpu_users(build({"/usr/bin/nvidia-smi": NEWER}, tmp_path)) == [
        {"pid": 4242, "name": "python3", "user": ""},
        {"pid": 4711, "name": "tool", "user": ""},
    ]


@pytest.mark.parametrize(
    ("target", "counts"),
    [
        ("/dev/nvhost-gpu", True),
        ("/dev/nvhost-as-gpu", True),
        ("/dev/nvgpu/igpu0/channel", True),
        ("/dev/nvhost-ctrl", False),
        ("/dev/nvmap", False),
        ("/dev/null", False),
    ],
)
def test_users_of_a_jetsons_gpu(tmp_path, target, counts):
    root = build({"/proc/812/comm": "deepstream-app\n", f"/proc/{os.getpid()}/comm": "we\n"}, tmp_path)
    for pid in (812, os.getpid()):
        (tmp_path / f"proc/{pid}/fd").mkdir()
        (tmp_path / f"proc/{pid}/fd/7").symlink_to(target)
    here = pwd.getpwuid(os.getuid()).pw_name
    assert survey.gpu_users(root) == ([{"pid": 812, "name": "deepstream-app", "user": here}] if counts else [])


# ------------------------------------------------ programs and processes


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nsleep 60 & wait\n", "#!/bin/sh\necho no; exit 3\n", "", "\x7fELF", "#!/nowhere/sh\n"]
)
def test_a_program_that_hangs_fails_or_is_none_says_nothing(tmp_path, script):
    began_s = time.monotonic()
    assert survey.ask(["nvpmodel"], build({"/usr/bin/nvpmodel": script}, tmp_path), 0.3) == ""
    assert time.monotonic() - began_s < 5


def test_programs_of_another_root_are_not_taken_from_this_one(tmp_path):
    assert survey.ask(["ls", "/"]) and survey.ask(["ls", "/"], str(tmp_path)) == ""


def test_process_names_may_be_anything(tmp_path):
    tree = {
        "/proc/5/stat": "5 (a) b (c)) R 1 5 5 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 4 1 1\n",
        "/proc/6/stat": "6 (short) R 1\n",
    }
    assert survey.processes(build(tree, tmp_path)) == [(5, "a) b (c)", 42)]


def test_who_keeps_this_machine_busy():
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            found = survey.busy("/", 0.5)
            if loop.pid in [row["pid"] for row in found["busiest"]]:
                break
        row = next(row for row in found["busiest"] if row["pid"] == loop.pid)
    finally:
        loop.kill()
        loop.wait()
    assert 0.1 <= row["cores"] <= 1.2 and row["name"].startswith("python")
    assert row["user"] == pwd.getpwuid(os.getuid()).pw_name, "whom to ask before anything is ended"
    assert found["busy_cores"] >= 0.1
    assert os.getpid() not in [row["pid"] for row in found["busiest"]]


def test_busy_cores_by_the_clock(tmp_path, monkeypatch):
    """150 ticks of 100 a second in one second."""
    root, clock = build({"/proc/stat": STAT.format(busy=1000, idle=9000)}, tmp_path), [50.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        (tmp_path / "proc/stat").write_text(STAT.format(busy=1150, idle=9050))

    monkeypatch.setattr(survey.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(survey.time, "sleep", sleep)
    monkeypatch.setattr(survey.os, "sysconf", lambda name: 100)
    assert survey.busy(root, 1.0) == {"busiest": [], "busy_cores": 1.5}
