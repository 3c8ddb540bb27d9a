"""What recorded CPUs, GPUs and runtime versions are said to be able to do."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from remote import agent
from remote.device import ON_CPU, ON_GPU, Capabilities, Facts, Gpu, Int8Recipe, capabilities, version_of
from remote.link.transport import texts

agent.PARTS.update(texts())
parse_cpuinfo = agent.part("sensors").parse_cpuinfo

FACTS = Facts(
    machine="x86_64",
    cpu="cpu",
    cpu_flags=(),
    cores=4,
    memory_mb=4096,
    python="3.11.7",
    boot_id="boot",
    kernel="6.1",
    runtimes={"onnxruntime": "1.31.1"},
)

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
    return facts, capabilities(facts, ["onnxruntime"])


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
    found = capabilities(replace(FACTS, machine="riscv64"), ["onnxruntime"])
    assert found.precisions == ("fp32",) and found.int8 is None
    assert "riscv64" in found.why_not["int8"] and "cpu" in found.why_not["fp16"]


@pytest.mark.parametrize(
    ("runtime", "text", "machine", "precisions", "bits"),
    [
        ("openvino", SKYLAKE, "x86_64", ("fp32", "int8"), 7),
        ("openvino", SAPPHIRE, "x86_64", ("fp32", "fp16", "int8"), 8),
        ("onnxruntime:openvino", ICE_LAKE, "x86_64", ("fp32", "int8"), 8),
        ("openvino", PI_5, "aarch64", ("fp32", "fp16", "int8"), 8),
        ("ncnn", PI_5, "aarch64", ("fp32", "fp16"), None),
        ("ncnn", PI_4, "aarch64", ("fp32",), None),
        ("ncnn", SAPPHIRE, "x86_64", ("fp32",), None),
    ],
)
def test_other_runtimes_of_a_cpu(runtime, text, machine, precisions, bits):
    facts = replace(FACTS, machine=machine, cpu_flags=tuple(parse_cpuinfo(text)[1]))
    found = capabilities(facts, [runtime])
    assert found.precisions == precisions
    assert found.int8 == (Int8Recipe("uint8", symmetric=False, weight_bits=bits) if bits else None)


def gpu_facts(sm: str, name: str = "GPU") -> Facts:
    return replace(FACTS, gpu=Gpu(name, sm, 4096, unified=True))


@pytest.mark.parametrize("runtime", ["tensorrt", "trtexec", "onnxruntime:tensorrt"])
@pytest.mark.parametrize(
    ("sm", "precisions"),
    [
        ("3.7", ("fp32",)),
        ("5.0", ("fp32",)),
        ("5.2", ("fp32",)),
        ("5.3", ("fp32", "fp16")),  # Nano, TX1
        ("6.0", ("fp32", "fp16")),  # P100
        ("6.1", ("fp32", "int8")),  # GTX 10xx
        ("6.2", ("fp32", "fp16")),  # TX2
        ("7.0", ("fp32", "fp16", "int8")),
        ("7.2", ("fp32", "fp16", "int8")),  # Xavier
        ("7.5", ("fp32", "fp16", "int8")),
        ("8.7", ("fp32", "fp16", "int8")),  # Orin
        ("9.0", ("fp32", "fp16", "int8")),
        ("12.0", ("fp32", "fp16", "int8")),
    ],
)
def test_precisions_by_compute_capability(runtime, sm, precisions):
    found = capabilities(gpu_facts(sm), [runtime])
    assert found.precisions == precisions
    assert found.int8 == (Int8Recipe("int8", symmetric=True, weight_bits=8) if "int8" in precisions else None)


def test_what_a_gpu_lacks_is_said_in_one_line():
    found = capabilities(gpu_facts("5.3", "NVIDIA Tegra X1"), ["tensorrt"])
    assert found.why_not == {"int8": "NVIDIA Tegra X1 (sm 5.3) has no int8 arithmetic"}
    found = capabilities(gpu_facts("6.1", "NVIDIA GeForce GTX 1060"), ["tensorrt"])
    assert found.why_not == {"fp16": "NVIDIA GeForce GTX 1060 (sm 6.1) has no fast fp16 arithmetic"}


@pytest.mark.parametrize("runtime", ["tensorrt", "trtexec", "onnxruntime:tensorrt"])
def test_sparse_weights_pay_from_ampere_on(runtime):
    assert capabilities(gpu_facts("8.7"), [runtime]).no_sparsity == ""
    assert "(sm 7.2) has no sparse tensor cores" in capabilities(gpu_facts("7.2"), [runtime]).no_sparsity
    assert "no CUDA GPU" in capabilities(FACTS, [runtime]).no_sparsity
    assert "simulated" in capabilities(replace(gpu_facts("8.7"), simulated=True), [runtime]).no_sparsity


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime:cuda", "openvino", "abacus"])
def test_sparse_weights_pay_with_every_runtime_that_is_used_or_not_at_all(runtime):
    found = capabilities(gpu_facts("8.7"), ["tensorrt", runtime]).no_sparsity
    assert found == capabilities(gpu_facts("8.7"), [runtime]).no_sparsity != ""


def test_the_cuda_provider_has_fp16_but_no_int8():
    found = capabilities(gpu_facts("8.7"), ["onnxruntime:cuda"])
    assert found.precisions == ("fp32", "fp16") and "tensorrt" in found.why_not["int8"]
    assert "arithmetic" in capabilities(gpu_facts("5.3"), ["onnxruntime:cuda"]).why_not["int8"]


@pytest.mark.parametrize("runtime", ON_GPU)
def test_without_a_gpu_there_is_fp32_and_a_reason(runtime):
    found = capabilities(FACTS, [runtime])
    assert found.precisions == ("fp32",) and f"no CUDA GPU, which {runtime} runs on" in found.why_not["fp16"]


def test_several_runtimes_get_what_all_can_do_by_the_strictest_recipe():
    facts = replace(gpu_facts("8.6"), runtimes={"onnxruntime": "1.31.1", "tensorrt": "8.5.2.2"})
    found = capabilities(facts, ["onnxruntime", "tensorrt"])
    assert found.precisions == ("fp32", "int8")  # this CPU has no fp16
    assert found.int8 == Int8Recipe("int8", symmetric=True, weight_bits=7)
    assert (found.opset_max, found.runtimes) == (17, ("onnxruntime", "tensorrt"))
    found = capabilities(facts, ["tensorrt", "ncnn"])
    assert found.precisions == ("fp32",) and found.int8 is None and "ncnn" in found.why_not["int8"]


def test_capabilities_leave_out_what_a_probe_did_not_see_running():
    facts = replace(gpu_facts("8.6"), runtimes={"onnxruntime": "1.31.1", "tensorrt": "8.5.2.2"})
    seen = {"tensorrt": {"fp16": "0 of 4 layers"}, "onnxruntime": {"fp32": "", "int8": "none"}}
    found = capabilities(facts, ["tensorrt"], seen, {"int8": "4 of 4 layers"})
    assert found.precisions == ("fp32", "int8") and found.why_not == {"fp16": "0 of 4 layers"}
    assert found.basis == {"int8": "4 of 4 layers"} and found.int8
    both = capabilities(facts, ["tensorrt", "onnxruntime"], seen)
    assert both.int8 is None and both.why_not["int8"] == "none"


@pytest.mark.parametrize("runtimes", [[], ["abacus"]])
def test_nothing_is_claimed_for_runtimes_that_are_not_known(runtimes):
    found = capabilities(gpu_facts("8.7"), runtimes)
    assert (found.precisions, found.opset_max, set(found.why_not)) == (("fp32",), 13, {"fp16", "int8"})


def test_every_runtime_file_has_its_capabilities_stated():
    from remote.inventory.device_files import RUNTIMES

    names = {path.stem for path in RUNTIMES.glob("[a-z]*.py")}
    assert "onnxruntime" in names and names <= {name.split(":")[0] for name in ON_CPU + ON_GPU}


@pytest.mark.parametrize(
    ("runtime", "version", "opset"),
    [
        *(("onnxruntime", "1.7.0", 13), ("onnxruntime", "1.10.0", 15), ("onnxruntime", "1.13.1", 17)),
        *(("onnxruntime", "1.18.0", 21), ("onnxruntime", "1.31.1", 21), ("onnxruntime", "2.0", 21)),
        *(("onnxruntime", "?", 13), ("onnxruntime:cuda", "1.18.0", 21), ("onnxruntime", "1.18.0rc1", 21)),
        *(("tensorrt", "8.0.1.6", 13), ("tensorrt", "8.2.1.9", 13), ("tensorrt", "8.4.1", 17)),
        *(("tensorrt", "8.5.2.2", 17), ("tensorrt", "8.6.2", 17)),
        *(("tensorrt", "10.3.0", 20), ("tensorrt", "11.4.0", 20), ("tensorrt", "unknown", 13)),
        *(("trtexec", "8.2.1", 13), ("trtexec", "10.11.0", 20), ("openvino", "2026.1.0", 13), ("ncnn", "1.0", 13)),
    ],
)  # fmt: skip
def test_opset_by_version(runtime, version, opset):
    assert capabilities(replace(FACTS, runtimes={runtime: version}), [runtime]).opset_max == opset


def test_opset_is_what_every_runtime_reads():
    facts = replace(FACTS, runtimes={"onnxruntime": "1.31.1", "onnxruntime:tensorrt": "1.31.1", "tensorrt": "8.2.1"})
    assert capabilities(facts, ["onnxruntime"]).opset_max == 21
    assert capabilities(facts, ["onnxruntime", "tensorrt"]).opset_max == 13
    assert capabilities(facts, ["onnxruntime:tensorrt"]).opset_max == 13  # its parser is TensorRT's
    assert capabilities(facts, ["openvino"]).opset_max == 13


@pytest.mark.parametrize(
    ("text", "number"), [("8.2.1.8", (8, 2)), ("10.3", (10, 3)), ("", (0, 0)), ("v8.2", (0, 0)), ("8", (0, 0))]
)
def test_versions(text, number):
    assert version_of(text) == number


def test_a_fingerprint_holds_all_that_timings_depend_on():
    facts = replace(gpu_facts("5.3"), board="NVIDIA Jetson Nano Developer Kit", release="L4T 32.7.6")
    other = {
        "machine": "arm",
        "cpu": "x",
        "cores": 2,
        "kernel": "6.2",
        "runtimes": {},
        "board": "x",
        "release": "L4T 32.7.5",
        "gpu": None,
        "simulated": True,
    }
    changed = [replace(facts, **{name: value}) for name, value in other.items()]
    changed += [replace(facts, gpu=replace(facts.gpu, sm="6.2")), replace(facts, gpu=replace(facts.gpu, name="x"))]
    assert len({one.fingerprint() for one in [facts, *changed]}) == 1 + len(changed)
    same = {"boot_id": "x", "python": "x", "memory_mb": 1, "cpu_flags": ("x",), "compatible": ("x",)}
    assert {replace(facts, **{name: value}).fingerprint() for name, value in same.items()} == {facts.fingerprint()}
    assert {field.name for field in fields(Facts)} == set(other) | set(same)  # a new fact must take its side here
