"""Devices from files, and what recorded CPUs are said to be able to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from remote.agent import parse_cpuinfo
from remote.device import Capabilities, Facts, Int8Recipe, capabilities, device_files, load_device
from remote.errors import UnknownDevice

FACTS = Facts("x86_64", "cpu", (), 4, 4096, "3.11.7", "boot", "6.1", {"onnxruntime": "1.31.1"})

SKYLAKE = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz
flags\t\t: fpu vme sse sse2 ssse3 fma avx f16c avx2 avx512f avx512dq avx512cd avx512bw avx512vl
bugs\t\t: spectre_v1

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz
flags\t\t: fpu vme sse sse2
"""
ICE_LAKE = SKYLAKE.replace("avx512vl", "avx512vl avx512_vnni").replace("8175M", "8375C")
SAPPHIRE = ICE_LAKE.replace("avx512_vnni", "avx512_vnni avx512_fp16 amx_int8")
ALDER_LAKE = """model name\t: 12th Gen Intel(R) Core(TM) i5-1240P
flags\t\t: fpu sse avx avx2 fma avx_vnni
"""
PI_4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

Revision\t: c03115
Model\t\t: Raspberry Pi 4 Model B Rev 1.5
"""
PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def recorded(text: str, machine: str, board: str = "") -> tuple[Facts, Capabilities]:
    cpu, flags = parse_cpuinfo(text, board)
    facts = replace(FACTS, machine=machine, cpu=cpu, cpu_flags=tuple(flags))
    return facts, capabilities(facts)


@pytest.mark.parametrize(
    ("text", "machine", "cpu", "precisions", "bits"),
    [
        (SKYLAKE, "x86_64", "Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz", ("fp32", "int8"), 7),
        (ICE_LAKE, "x86_64", "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.50GHz", ("fp32", "int8"), 8),
        (SAPPHIRE, "x86_64", "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.50GHz", ("fp32", "fp16", "int8"), 8),
        (ALDER_LAKE, "x86_64", "12th Gen Intel(R) Core(TM) i5-1240P", ("fp32", "int8"), 8),
        (
            PI_4,
            "aarch64",
            "Raspberry Pi 4 Model B Rev 1.5, implementer 0x41 part 0xd08",
            ("fp32", "int8"),
            8,
        ),
        (
            PI_5,
            "aarch64",
            "Raspberry Pi 5 Model B Rev 1.0, implementer 0x41 part 0xd0b",
            ("fp32", "fp16", "int8"),
            8,
        ),
    ],
    ids=["skylake", "ice lake", "sapphire", "alder lake", "pi 4", "pi 5"],
)
def test_capabilities_of_recorded_cpus(text, machine, cpu, precisions, bits):
    facts, found = recorded(text, machine)
    assert facts.cpu == cpu
    assert found.precisions == precisions
    assert found.int8 == Int8Recipe("uint8", symmetric=False, weight_bits=bits)
    assert set(found.why_not) == {"fp32", "fp16", "int8"} - set(precisions)
    assert found.threads_max == 4 and found.runtimes == ("onnxruntime",)


def test_the_boards_own_name_comes_first():
    assert recorded("CPU part\t: 0xd07\n", "aarch64", "NVIDIA Jetson Nano")[0].cpu.startswith("NVIDIA Jetson Nano,")
    assert parse_cpuinfo("") == ("unknown", [])


def test_a_machine_we_know_nothing_of_gets_fp32_and_a_reason():
    found = capabilities(replace(FACTS, machine="riscv64"))
    assert found.precisions == ("fp32",) and found.int8 is None
    assert "riscv64" in found.why_not["int8"] and "cpu" in found.why_not["fp16"]


@pytest.mark.parametrize(
    ("version", "opset"),
    [("1.7.0", 13), ("1.10.0", 15), ("1.13.1", 17), ("1.18.0", 21), ("1.31.1", 21), ("2.0", 21), ("?", 13)],
)
def test_opset_by_version(version, opset):
    assert capabilities(replace(FACTS, runtimes={"onnxruntime": version})).opset_max == opset


def test_opset_is_what_every_runtime_reads():
    assert capabilities(replace(FACTS, runtimes={"onnxruntime": "1.31.1", "tensorrt": "8.2.1"})).opset_max == 13
    assert capabilities(replace(FACTS, runtimes={})).opset_max == 13


def test_local_is_shipped():
    device = load_device("local", [device_files()[-1]])
    assert (device.host, device.python, device.runtime) == (None, None, "onnxruntime")


def test_the_first_file_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "edgefront").mkdir(parents=True)
    (tmp_path / "config" / "edgefront" / "devices.toml").write_text('[local]\npython = "theirs"\n[box]\npython = "p"\n')
    assert load_device("local").python == "theirs"
    Path("devices.toml").write_text('[local]\npython = "here"\n')
    assert load_device("local").python == "here"
    assert load_device("box").profile == "box"


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(UnknownDevice, match="no device called nano; there are local"):
        load_device("nano", [device_files()[-1]])
    with pytest.raises(UnknownDevice, match="there are none"):
        load_device("nano", [tmp_path / "devices.toml"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[box", "cannot be read"),
        ("box = 3", "may only have the keys"),
        ("[box]\nhots = 'a'", "may only have the keys host, profile, python, runtime"),
        ("[box]\nhost = 7", "host must be text"),
        ("[box]\npython = ''", "python must be text"),
    ],
)
def test_a_broken_file_says_so(tmp_path, text, word):
    path = tmp_path / "devices.toml"
    path.write_text(text)
    with pytest.raises(UnknownDevice, match=word) as caught:
        load_device("box", [path])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
