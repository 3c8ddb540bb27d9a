"""Describe a device: its entry, the facts it reports, and the capabilities of its runtimes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Highest ONNX opset by ONNX Runtime version, from its table of compatibility. Versions after 1.18 read more, but no
# graph of ours needs more, so no more is claimed.
ONNXRUNTIME_OPSETS = (
    ((1, 18), 21),
    ((1, 17), 20),
    ((1, 15), 19),
    ((1, 14), 18),
    ((1, 12), 17),
    ((1, 11), 16),
    ((1, 9), 15),
    ((1, 8), 14),
)
# Highest ONNX opset by TensorRT version, from docs/operators.md of onnx-tensorrt. TensorRT 11 reads more, which no
# graph of ours needs.
TENSORRT_OPSETS = (((10, 0), 20), ((8, 4), 17))
OPSET_ANYWHERE = 13  # opset that every known runtime reads

# Runtimes by processor, in order of preference where no profile says otherwise.
ON_GPU = ("tensorrt", "trtexec", "onnxruntime:tensorrt", "onnxruntime:cuda")
ON_CPU = ("onnxruntime", "openvino", "onnxruntime:openvino", "ncnn")
# Compute capabilities that do not follow the rule "from 5.3 on fast fp16, from 7.0 on int8 too", from NVIDIA's
# table of hardware and precision: 6.1 (GTX 10xx, P4) computes fp16 at 1/64 of its speed, but has DP4A.
SLOW_FP16 = ((6, 1),)
EARLY_INT8 = ((6, 1),)
SPARSE_SM = (8, 0)  # lowest compute capability with tensor cores that skip two of four weights


@dataclass(frozen=True)
class Layer:
    """Describe one node of the graph that a runtime runs, after its own optimizing and fusing.

    Attributes:
        name: The runtime's name of the node.
        type: Operator in the runtime's own words: QLinearConv, Reorder, CaskConvolution.
        precision: fp32, fp16, bf16 or int8; empty where the runtime does not report it.
        ms: Milliseconds of one run; 0 where the runtime does not report them.
    """

    name: str
    type: str
    precision: str
    ms: float


@dataclass(frozen=True)
class Int8Recipe:
    """Describe how a graph is quantized for one target. Weights are always int8 and per channel.

    A CPU without VNNI multiplies u8 x s8 with VPMADDUBSW. Its 16-bit sums saturate on full-range weights,
    so `weight_bits` is 7 there. TensorRT takes symmetric activations only.

    Attributes:
        activation: Type of activations: uint8 or int8.
        symmetric: Whether activations have zero point 0.
        weight_bits: Bits used of each weight: 7 or 8.
    """

    activation: str
    symmetric: bool
    weight_bits: int


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Hold the limits that a search space is cut to. They are read from the device, never assumed.

    Attributes:
        precisions: Subset of fp32, fp16 and int8 that can pay here.
        why_not: Precision left out -> the reason, one line.
        int8: The recipe for int8 graphs; None where int8 is left out.
        threads_max: Largest useful number of CPU threads.
        opset_max: Highest ONNX opset that all of the runtimes read.
        runtimes: The runtimes that these limits hold for.
        no_sparsity: Why 2:4 sparse weights can't pay here, one line; empty where they can.
        basis: Precision -> how it is known whether it runs, one line.
    """

    precisions: tuple[str, ...]
    why_not: dict[str, str]
    int8: Int8Recipe | None
    threads_max: int
    opset_max: int
    runtimes: tuple[str, ...]
    no_sparsity: str = ""
    basis: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gpu:
    """Describe a CUDA device.

    Attributes:
        name: CUDA's name of it.
        sm: Compute capability, such as "5.3".
        memory_mb: Memory in MB.
        unified: Whether it shares the memory of the CPU, as on every Jetson.
    """

    name: str
    sm: str
    memory_mb: int
    unified: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold the device's own answer to `hello`, checked.

    Attributes:
        machine: Processor architecture: x86_64, aarch64, ...
        cpu: Name of the processor.
        cpu_flags: Instruction sets, as /proc/cpuinfo names them.
        cores: Cores that the agent may use.
        memory_mb: Memory in MB.
        python: Version of the Python that runs the agent.
        boot_id: Identifier of the time since the last boot.
        kernel: Version of the Linux kernel.
        runtimes: Name, such as onnxruntime or onnxruntime:cuda -> version.
        board: The device tree's model, or DMI's product name.
        compatible: Strings of the device tree: ("nvidia,p3450-0000", "nvidia,tegra210").
        release: "L4T 32.7.6", or PRETTY_NAME of os-release.
        gpu: The CUDA device; None where there is none.
        simulated: Whether the device is a simulated board.
    """

    machine: str
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_mb: int
    python: str
    boot_id: str
    kernel: str
    runtimes: dict[str, str]
    board: str = ""
    compatible: tuple[str, ...] = ()
    release: str = ""
    gpu: Gpu | None = None
    simulated: bool = False

    def fingerprint(self) -> str:
        """Return 12 hex digits that change when earlier timings are no longer comparable."""
        gpu = [self.gpu.name, self.gpu.sm] if self.gpu else None
        stable = [
            *(self.machine, self.cpu, self.cores, self.kernel, sorted(self.runtimes.items())),
            *(self.board, gpu, self.release, self.simulated),
        ]
        return hashlib.sha256(json.dumps(stable).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Describe a kind of board before one is connected: a `[profiles.<name>]` table of a devices.toml.

    A device is of the kind when one of `compatible` or `board` fits the facts that it reports (or neither is given),
    and `machine` and `gpu` do. A profile with none of the four is entered by name only, never detected.

    Attributes:
        name: Name of the table.
        title: Description for people.
        aliases: Names that several kinds may share: nano.
        compatible: Shell patterns, of which one fits one device-tree string.
        board: A part of the board's name.
        machine: Processor architecture; empty for any.
        gpu: Whether the kind needs a CUDA device.
        python: The interpreter that finds the board's own packages.
        runtimes: Runtimes in order of preference.
        workspace_mb: Memory that an engine builder may take, in MB.
        prepare: Shell commands that lock the clocks: offered, never run unless entered.
        restore: Shell commands that undo `prepare`.
        install: How to install a runtime, one line.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    board: str = ""
    machine: str = ""
    gpu: bool = False
    python: str | None = None
    runtimes: tuple[str, ...] = ()
    workspace_mb: int = 1024
    prepare: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    install: str = ""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Describe one entry of a `devices.toml`, or a name that ssh is asked about.

    Attributes:
        name: The name that `--device` takes.
        profile: Name or alias of a profile; None: detected from the facts.
        host: Host as ssh knows it; None: this machine.
        python: Interpreter on the device; None: python3, or on this machine the one running now.
        runtime: The runtime to use; None: the first of the profile that the device has.
        ssh_config: File for ssh -F.
        prepare: Shell commands before a search, as the user entered them.
        restore: Shell commands after a search.
        workspace_mb: Memory that an engine builder may take, in MB; None: the profile's.
        simulated: The text after "sim:" of a simulated board.
    """

    name: str
    profile: str | None
    host: str | None
    python: str | None
    runtime: str | None
    ssh_config: str | None = None
    prepare: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    workspace_mb: int | None = None
    simulated: str | None = None


@dataclass(frozen=True)
class RuntimeFit:
    """Hold the limits of one runtime on this device."""

    why_not: dict[str, str]
    int8: Int8Recipe | None
    opset_max: int
    no_sparsity: str


def capabilities(
    facts: Facts,
    runtimes: Sequence[str],
    seen: Mapping[str, Mapping[str, str]] | None = None,
    basis: Mapping[str, str] | None = None,
) -> Capabilities:
    """Return what a device with these facts can do with every one of these runtimes, and why not the rest.

    int8 follows the strictest recipe among them, so that one graph serves all.

    Args:
        facts: Facts that the device reported.
        runtimes: The runtimes to be used.
        seen: Runtime -> precision that did not run in it in a probe -> the reason.
        basis: Precision -> how it is known whether it runs.

    Returns:
        The capabilities common to all of the runtimes.
    """
    fits = [_fit(facts, runtime) for runtime in runtimes] or [_unfit("no runtime is chosen")]
    why_not: dict[str, str] = {}
    for fit in fits:
        why_not = fit.why_not | why_not
    for runtime in runtimes:
        why_not |= {name: why for name, why in ((seen or {}).get(runtime) or {}).items() if name not in why_not}
    recipes = [fit.int8 for fit in fits if fit.int8]
    return Capabilities(
        precisions=tuple(name for name in ("fp32", "fp16", "int8") if name not in why_not),
        why_not=why_not,
        int8=_strictest(recipes) if "int8" not in why_not else None,
        threads_max=1 if runtimes and all(name in ON_GPU for name in runtimes) else facts.cores,
        opset_max=min(fit.opset_max for fit in fits),
        runtimes=tuple(runtimes),
        no_sparsity=next((fit.no_sparsity for fit in fits if fit.no_sparsity), ""),
        basis=basis or {},
    )


def _fit(facts: Facts, runtime: str) -> RuntimeFit:
    opset_max = _opset(facts, runtime)
    if runtime in ON_GPU:
        why_not = _gpu_refusals(facts.gpu, runtime)
        recipe = None if "int8" in why_not else Int8Recipe("int8", symmetric=True, weight_bits=8)
        return RuntimeFit(why_not, recipe, opset_max, _sparsity_refusal(facts, runtime))
    if runtime not in ON_CPU:
        return _unfit(f"the capabilities of {runtime} are unknown")
    why_not = _cpu_refusals(facts, runtime)
    dense = f"{runtime} computes on a CPU, where zeros cost as much as other weights"
    return RuntimeFit(why_not, None if "int8" in why_not else _cpu_int8(facts), opset_max, dense)


def _unfit(reason: str) -> RuntimeFit:
    return RuntimeFit({"fp16": reason, "int8": reason}, None, OPSET_ANYWHERE, reason)


def _gpu_refusals(gpu: Gpu | None, runtime: str) -> dict[str, str]:
    if gpu is None:
        return dict.fromkeys(("fp16", "int8"), f"the device shows no CUDA GPU, which {runtime} runs on")
    sm, named = version_of(gpu.sm), f"{gpu.name} (sm {gpu.sm})"
    refused = {}
    if sm < (5, 3) or sm in SLOW_FP16:
        refused["fp16"] = f"{named} has no fast fp16 arithmetic"
    if sm < (7, 0) and sm not in EARLY_INT8:
        refused["int8"] = f"{named} has no int8 arithmetic"
    elif runtime == "onnxruntime:cuda":  # no kernel for QLinearConv: such nodes are copied to the CPU and back
        refused["int8"] = "ONNX Runtime's CUDA provider has no int8 convolution; tensorrt and onnxruntime:tensorrt do"
    return refused


def _sparsity_refusal(facts: Facts, runtime: str) -> str:
    if facts.gpu is None:
        return f"the device shows no CUDA GPU, which {runtime} runs on"
    if runtime == "onnxruntime:cuda":
        return "ONNX Runtime's CUDA provider skips no zeros; tensorrt and onnxruntime:tensorrt do"
    if version_of(facts.gpu.sm) < SPARSE_SM:
        return f"{facts.gpu.name} (sm {facts.gpu.sm}) has no sparse tensor cores, which are from sm 8.0 on"
    return "a simulated board computes every zero" if facts.simulated else ""


def _cpu_refusals(facts: Facts, runtime: str) -> dict[str, str]:
    refused = {}
    fast = {"asimdhp"} if runtime == "ncnn" else {"asimdhp", "avx512_fp16"}
    if not fast & set(facts.cpu_flags):
        refused["fp16"] = f"{facts.cpu} has no fp16 arithmetic ({' or '.join(sorted(fast))}) that {runtime} uses"
    if runtime == "ncnn":
        refused["int8"] = "models for ncnn are made in fp32 and fp16 only"
    elif _cpu_int8(facts) is None:
        refused["int8"] = f"no int8 kernels are known for {facts.machine}"
    return refused


def _cpu_int8(facts: Facts) -> Int8Recipe | None:
    if facts.machine.lower() in ("x86_64", "amd64"):
        vnni = set(facts.cpu_flags) & {"avx512_vnni", "avx_vnni", "amx_int8"}
        return Int8Recipe("uint8", symmetric=False, weight_bits=8 if vnni else 7)
    if facts.machine.lower() in ("aarch64", "arm64"):  # 32-bit sums, with the dot product instruction or without
        return Int8Recipe("uint8", symmetric=False, weight_bits=8)
    return None


def _strictest(recipes: Sequence[Int8Recipe]) -> Int8Recipe:
    return Int8Recipe(
        activation="int8" if any(recipe.activation == "int8" for recipe in recipes) else "uint8",
        symmetric=any(recipe.symmetric for recipe in recipes),
        weight_bits=min(recipe.weight_bits for recipe in recipes),
    )


def _opset(facts: Facts, runtime: str) -> int:
    """Return the highest opset that the runtime's installed version reads; for an unknown version, OPSET_ANYWHERE."""
    tables = {"onnxruntime": ONNXRUNTIME_OPSETS, "tensorrt": TENSORRT_OPSETS, "trtexec": TENSORRT_OPSETS}
    number = version_of(facts.runtimes.get(runtime, ""))
    table = tables.get(runtime.split(":")[0], ())
    opset = next((opset for least, opset in table if number >= least), OPSET_ANYWHERE)
    if runtime == "onnxruntime:tensorrt":  # nodes that TensorRT's own parser can't read would silently run elsewhere
        return min(opset, _opset(facts, "tensorrt"))
    return opset


def version_of(text: str) -> tuple[int, int]:
    """Return (major, minor) of a version such as 8.2.1 or 1.10.0rc1; (0, 0) where it is none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
