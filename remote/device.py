"""A named target: how it is entered, what it says of itself, what it can do with its runtimes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Highest ONNX opset by ONNX Runtime version, from its table of compatibility. It grew after 1.18, but no
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
# Of TensorRT's ONNX parser, from docs/operators.md of onnx-tensorrt. 11 reads more, which no graph of ours needs.
TENSORRT_OPSETS = (((10, 0), 20), ((8, 4), 17))
OPSET_ANYWHERE = 13  # read by every runtime we know of

# Which runtimes compute where, by preference where no profile says otherwise.
ON_GPU = ("tensorrt", "trtexec", "onnxruntime:tensorrt", "onnxruntime:cuda")
ON_CPU = ("onnxruntime", "openvino", "onnxruntime:openvino", "ncnn")
# Compute capabilities that do not follow the rule "from 5.3 on fast fp16, from 7.0 on int8 too", from NVIDIA's
# table of hardware and precision: 6.1 (GTX 10xx, P4) computes fp16 at 1/64 of its speed, but has DP4A.
SLOW_FP16 = ((6, 1),)
EARLY_INT8 = ((6, 1),)
SPARSE_SM = (8, 0)  # whose tensor cores skip two of four weights, and all after it


@dataclass(frozen=True)
class Layer:
    """One node of what a runtime runs, after its own optimizing and fusing."""

    name: str
    type: str  # in the runtime's own words: QLinearConv, Reorder, CaskConvolution
    precision: str  # fp32 | fp16 | bf16 | int8; empty where it is not told
    ms: float  # of one run; 0 where it is not told


@dataclass(frozen=True)
class Int8Recipe:
    """How a graph is quantized for one target. Weights are always int8 and per channel.

    A CPU without VNNI multiplies u8 x s8 with VPMADDUBSW, whose 16-bit sums saturate on full-range weights,
    so there `weight_bits` is 7. TensorRT takes symmetric activations only.
    """

    activation: str  # uint8 | int8
    symmetric: bool  # activations with zero point 0
    weight_bits: int  # 7 | 8


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What the space is cut to. Read from the device, never assumed."""

    precisions: tuple[str, ...]  # subset of fp32, fp16, int8: the ones that can pay here
    why_not: dict[str, str]  # precision left out -> the reason, one line
    int8: Int8Recipe | None
    threads_max: int
    opset_max: int
    runtimes: tuple[str, ...]  # the ones this holds for
    no_sparsity: str = ""  # why 2:4 sparse weights can't pay here, one line; empty where they can
    basis: Mapping[str, str] = field(default_factory=dict)  # precision -> how it is known whether it runs, one line


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    sm: str  # compute capability, "5.3"
    memory_mb: int
    unified: bool  # shares the memory of the CPU, as on every Jetson


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The device's own answer to `hello`, checked."""

    machine: str  # x86_64 | aarch64 | ...
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_mb: int
    python: str
    boot_id: str
    kernel: str
    runtimes: dict[str, str]  # name, such as onnxruntime or onnxruntime:cuda -> version
    board: str = ""  # the device tree's model, or DMI's product name
    compatible: tuple[str, ...] = ()  # of the device tree: ("nvidia,p3450-0000", "nvidia,tegra210")
    release: str = ""  # "L4T 32.7.6", or PRETTY_NAME of os-release
    gpu: Gpu | None = None
    simulated: bool = False

    def fingerprint(self) -> str:
        """12 hex digits that change when timings taken before are no longer comparable."""
        gpu = [self.gpu.name, self.gpu.sm] if self.gpu else None
        stable = [
            *(self.machine, self.cpu, self.cores, self.kernel, sorted(self.runtimes.items())),
            *(self.board, gpu, self.release, self.simulated),
        ]
        return hashlib.sha256(json.dumps(stable).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is known of a kind of board before one is seen: a `[profiles.<name>]` table of a devices.toml.

    A device is of the kind when one of `compatible` or `board` fits what it says of itself (or neither is given),
    and `machine` and `gpu` do. A profile with none of the four is entered by name only, never detected.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()  # names that several kinds may share: nano
    compatible: tuple[str, ...] = ()  # shell patterns, of which one fits one device-tree string
    board: str = ""  # a part of the board's name
    machine: str = ""
    gpu: bool = False  # needs a CUDA device
    python: str | None = None  # the interpreter that sees the board's own packages
    runtimes: tuple[str, ...] = ()  # by preference
    workspace_mb: int = 1024  # that an engine builder may take
    prepare: tuple[str, ...] = ()  # shell commands that lock the clocks: offered, never run unless entered
    restore: tuple[str, ...] = ()  # and that undo it
    install: str = ""  # how to get a runtime there, one line


@dataclass(frozen=True, kw_only=True)
class Device:
    """One entry of a `devices.toml`, or a name that ssh is asked about."""

    name: str
    profile: str | None  # None: whatever it says it is
    host: str | None  # as ssh knows it; None: this machine
    python: str | None  # interpreter there; None: python3, or the one running now
    runtime: str | None  # None: the profile's first that the device has
    ssh_config: str | None = None  # file for ssh -F
    prepare: tuple[str, ...] = ()  # shell commands before a search, as the user entered them
    restore: tuple[str, ...] = ()  # and after it
    workspace_mb: int | None = None
    simulated: str | None = None  # what came after "sim:"


@dataclass(frozen=True)
class RuntimeFit:
    """What one runtime makes of this device."""

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
    """What a device with these facts can do with every one of these runtimes, and why not the rest.

    int8 follows the strictest recipe among them, so that one graph serves all.

    Args:
        facts: What the device says of itself.
        runtimes: Those that are to be used.
        seen: Runtime -> precision that a probe did not see running in it -> the reason.
        basis: Precision -> how it is known whether it runs.
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
        return _unfit(f"what {runtime} can do is not known")
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
    elif runtime == "onnxruntime:cuda":  # it has no kernel for QLinearConv: such nodes go to the CPU and back
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
    if facts.machine.lower() in ("aarch64", "arm64"):  # sums in 32 bits, with the dot product or without
        return Int8Recipe("uint8", symmetric=False, weight_bits=8)
    return None


def _strictest(recipes: Sequence[Int8Recipe]) -> Int8Recipe:
    return Int8Recipe(
        activation="int8" if any(recipe.activation == "int8" for recipe in recipes) else "uint8",
        symmetric=any(recipe.symmetric for recipe in recipes),
        weight_bits=min(recipe.weight_bits for recipe in recipes),
    )


def _opset(facts: Facts, runtime: str) -> int:
    """The highest opset the runtime's installed version reads; a version that is not known reads the least."""
    tables = {"onnxruntime": ONNXRUNTIME_OPSETS, "tensorrt": TENSORRT_OPSETS, "trtexec": TENSORRT_OPSETS}
    number = version_of(facts.runtimes.get(runtime, ""))
    table = tables.get(runtime.split(":")[0], ())
    opset = next((opset for least, opset in table if number >= least), OPSET_ANYWHERE)
    if runtime == "onnxruntime:tensorrt":  # what TensorRT's own parser can't read would run elsewhere, unasked
        return min(opset, _opset(facts, "tensorrt"))
    return opset


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of a version such as 8.2.1 or 1.10.0rc1; (0, 0) where it is none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
