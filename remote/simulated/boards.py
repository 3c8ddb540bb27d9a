"""The boards that can be simulated: what each says of itself, and how fast it would be at best.

Facts follow what such a board prints. Rates are peaks from public data sheets, in multiply-accumulates (two
operations each); what is reached of them is a rough guess that is right to a factor of about two. No number here
was measured on the board it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor that runs networks: of a CPU one core, of a GPU all of it."""

    gmacs: dict[str, float]  # precision -> 1e9 multiply-accumulates a second at best
    gbytes_s: float  # of memory, the whole board's
    overhead_us: float  # of a layer, however small
    dense_share: float  # of the best rate, reached by ordinary convolutions
    depthwise_share: float


@dataclass(frozen=True)
class GpuFacts:
    """What the board's `hello` says of its GPU."""

    name: str
    sm: str
    memory_mb: int
    unified: bool


@dataclass(frozen=True, kw_only=True)
class SimulatedBoard:
    """One kind of board, as one with everything installed by its maker's image would answer."""

    name: str
    aliases: tuple[str, ...]
    title: str
    machine: str
    cpu: str
    cpu_flags: str
    cores: int
    memory_mb: int
    free_mb: int  # of memory, with the system running and no desktop
    python: str
    kernel: str
    release: str
    compatible: tuple[str, ...]
    runtimes: dict[str, str]
    core: Processor
    cpu_mhz: int
    gpu: GpuFacts | None = None
    cuda: Processor | None = None
    gpu_mhz: int = 0
    build_s_per_layer: float = 0.0  # of an engine builder
    watts: float | None = None  # above idle while a network runs, where the board can tell
    runtime_mb: float = 60.0  # resident size of a process that has loaded the runtime

    @property
    def jetson(self) -> bool:
        """True where GPU and CPU share the memory, and the GPU's clock is a file."""
        return self.gpu is not None and self.gpu.unified

    @property
    def raspberry(self) -> bool:
        """True where the firmware tells what it holds back."""
        return any(name.startswith("raspberrypi,") for name in self.compatible)


A57 = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
A72_RASPBERRY = "fp asimd evtstrm crc32 cpuid"  # without the cryptographic extension
CARMEL = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm dcpop"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"  # also A78AE
TIGER_LAKE = "fma avx avx2 f16c avx512f avx512dq avx512bw avx512vl avx512_vnni"
CASCADE_LAKE = TIGER_LAKE


def _core(ghz: float, macs_a_cycle: float, fp16: float, int8: float, gbytes_s: float, overhead_us: float) -> Processor:
    """One core: fp32 multiply-accumulates a cycle, and how many times as fast fp16 and int8 are."""
    fp32 = ghz * macs_a_cycle
    return Processor(
        gmacs={"fp32": fp32, "fp16": fp32 * fp16, "int8": fp32 * int8},
        gbytes_s=gbytes_s,
        overhead_us=overhead_us,
        dense_share=0.7,
        depthwise_share=0.25,
    )


def _cuda(fp32: float, fp16: float, int8: float, gbytes_s: float, overhead_us: float) -> Processor:
    return Processor(
        gmacs={"fp32": fp32, "fp16": fp16, "int8": int8},
        gbytes_s=gbytes_s,
        overhead_us=overhead_us,
        dense_share=0.6,
        depthwise_share=0.1,
    )


BOARDS = (
    SimulatedBoard(
        name="jetson-nano",
        aliases=("nano",),
        title="Jetson Nano",
        machine="aarch64",
        cpu="NVIDIA Jetson Nano Developer Kit, implementer 0x41 part 0xd07",
        cpu_flags=A57,
        cores=4,
        memory_mb=3956,
        free_mb=2900,
        python="3.6.9",
        kernel="4.9.253-tegra",  # JetPack 4.6.1
        release="L4T 32.7.1",
        compatible=("nvidia,p3450-0000", "nvidia,jetson-nano", "nvidia,tegra210"),
        runtimes={"tensorrt": "8.2.1.8"},
        # Cortex-A57 Software Optimization Guide: one 128-bit FMLA a cycle. No fp16 arithmetic, no dot product.
        core=_core(1.479, 4, fp16=0.6, int8=1.4, gbytes_s=25.6, overhead_us=15),
        cpu_mhz=1479,
        gpu=GpuFacts("NVIDIA Tegra X1", "5.3", 3956, True),
        # Jetson Nano data sheet DA-09366: 128 Maxwell cores at 921.6 MHz, 512 GFLOPS fp16 at 1 GHz, so 472; fp32
        # half of it; 25.6 GB/s. int8 has no instruction of its own, and is refused.
        cuda=_cuda(118, 236, 60, 25.6, 40),
        gpu_mhz=921,
        build_s_per_layer=3.0,
        watts=4.5,  # of the 10 W mode
        runtime_mb=420.0,
    ),
    SimulatedBoard(
        name="tx2",
        aliases=(),
        title="Jetson TX2",
        machine="aarch64",
        cpu="quill, implementer 0x41 part 0xd07",
        cpu_flags=A57,
        cores=6,
        memory_mb=7857,
        free_mb=6300,
        python="3.6.9",
        kernel="4.9.253-tegra",
        release="L4T 32.7.1",
        compatible=("nvidia,quill", "nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"),
        runtimes={"tensorrt": "8.2.1.8"},
        core=_core(2.035, 4, fp16=0.6, int8=1.4, gbytes_s=59.7, overhead_us=10),
        cpu_mhz=2035,
        gpu=GpuFacts("NVIDIA Tegra X2", "6.2", 7857, True),
        # Jetson TX2 data sheet DS-08245: 256 Pascal cores at 1.3 GHz, 1.33 TFLOPS fp16, 59.7 GB/s.
        cuda=_cuda(333, 667, 170, 59.7, 25),
        gpu_mhz=1300,
        build_s_per_layer=2.0,
        watts=8.0,
        runtime_mb=450.0,
    ),
    SimulatedBoard(
        name="xavier",
        aliases=(),
        title="Jetson AGX Xavier",
        machine="aarch64",
        cpu="Jetson-AGX, implementer 0x4e part 0x004",
        cpu_flags=CARMEL,
        cores=8,
        memory_mb=31010,
        free_mb=28000,
        python="3.8.10",
        kernel="5.10.120-tegra",  # JetPack 5.1.2
        release="L4T 35.4.1",
        compatible=("nvidia,p2972-0000", "nvidia,tegra194"),
        runtimes={"tensorrt": "8.5.2.2"},
        core=_core(2.265, 8, fp16=2.0, int8=2.0, gbytes_s=136.5, overhead_us=6),
        cpu_mhz=2265,
        gpu=GpuFacts("Xavier", "7.2", 31010, True),
        # Jetson AGX Xavier data sheet DS-09654: 512 Volta cores at 1.377 GHz (1.41 TFLOPS fp32), tensor cores
        # 11 TFLOPS fp16 and 22 TOPS int8 without the accelerators beside the GPU; 136.5 GB/s.
        cuda=_cuda(705, 5500, 11000, 136.5, 15),
        gpu_mhz=1377,
        build_s_per_layer=1.5,
        watts=15.0,
        runtime_mb=600.0,
    ),
    SimulatedBoard(
        name="orin-nano",
        aliases=(),
        title="Jetson Orin Nano",
        machine="aarch64",
        cpu="NVIDIA Jetson Orin Nano Developer Kit, implementer 0x41 part 0xd42",
        cpu_flags=A76,
        cores=6,
        memory_mb=7620,
        free_mb=6200,
        python="3.10.12",
        kernel="5.15.148-tegra",  # JetPack 6.1
        release="L4T 36.4.0",
        compatible=("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"),
        runtimes={"tensorrt": "10.3.0"},
        core=_core(1.51, 8, fp16=2.0, int8=4.0, gbytes_s=68.0, overhead_us=6),
        cpu_mhz=1510,
        gpu=GpuFacts("Orin", "8.7", 7620, True),
        # Jetson Orin Nano data sheet DS-11105: 1024 Ampere cores at 625 MHz (1.28 TFLOPS fp32); 40 TOPS int8 with
        # 2:4 sparsity, so 20 dense, and 10 TFLOPS fp16; 68 GB/s.
        cuda=_cuda(640, 5000, 10000, 68.0, 12),
        gpu_mhz=624,
        build_s_per_layer=1.0,
        watts=7.0,
        runtime_mb=620.0,
    ),
    SimulatedBoard(
        name="orin",
        aliases=(),
        title="Jetson AGX Orin",
        machine="aarch64",
        cpu="NVIDIA Jetson AGX Orin Developer Kit, implementer 0x41 part 0xd42",
        cpu_flags=A76,
        cores=12,
        memory_mb=62830,
        free_mb=59000,
        python="3.10.12",
        kernel="5.15.148-tegra",
        release="L4T 36.4.0",
        compatible=("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
        runtimes={"tensorrt": "10.3.0"},
        core=_core(2.201, 8, fp16=2.0, int8=4.0, gbytes_s=204.8, overhead_us=5),
        cpu_mhz=2201,
        gpu=GpuFacts("Orin", "8.7", 62830, True),
        # Jetson AGX Orin data sheet DS-10662: 2048 Ampere cores at 1.3 GHz (5.3 TFLOPS fp32); 170 TOPS int8 with
        # 2:4 sparsity on the GPU, so 85 dense, and 42.5 TFLOPS fp16; 204.8 GB/s.
        cuda=_cuda(2650, 21250, 42500, 204.8, 10),
        gpu_mhz=1300,
        build_s_per_layer=0.7,
        watts=25.0,
        runtime_mb=650.0,
    ),
    SimulatedBoard(
        name="rpi4",
        aliases=(),
        title="Raspberry Pi 4",
        machine="aarch64",
        cpu="Raspberry Pi 4 Model B Rev 1.4, implementer 0x41 part 0xd08",
        cpu_flags=A72_RASPBERRY,
        cores=4,
        memory_mb=3793,
        free_mb=3300,
        python="3.11.2",
        kernel="6.6.51+rpt-rpi-v8",
        release="Debian GNU/Linux 12 (bookworm)",
        compatible=("raspberrypi,4-model-b", "brcm,bcm2711"),
        runtimes={"onnxruntime": "1.23.2"},
        # Cortex-A72 Software Optimization Guide: one 128-bit FMLA a cycle; BCM2711 at 1.8 GHz, 32-bit LPDDR4-3200
        # (12.8 GB/s, of which networks get about 3). int8 without dot product: 1.4 times fp32, as in
        # ncnn's published benchmark.
        core=_core(1.8, 4, fp16=0.6, int8=1.4, gbytes_s=3.0, overhead_us=12),
        cpu_mhz=1800,
    ),
    SimulatedBoard(
        name="rpi5",
        aliases=(),
        title="Raspberry Pi 5",
        machine="aarch64",
        cpu="Raspberry Pi 5 Model B Rev 1.0, implementer 0x41 part 0xd0b",
        cpu_flags=A76,
        cores=4,
        memory_mb=8063,
        free_mb=7300,
        python="3.11.2",
        kernel="6.6.51+rpt-rpi-2712",
        release="Debian GNU/Linux 12 (bookworm)",
        compatible=("raspberrypi,5-model-b", "brcm,bcm2712"),
        runtimes={"onnxruntime": "1.23.2"},
        # Cortex-A76 Software Optimization Guide: two 128-bit FMLA a cycle, fp16 twice and SDOT four times as many;
        # BCM2712 at 2.4 GHz, 32-bit LPDDR4X-4267 (17 GB/s, of which about 10 are reached).
        core=_core(2.4, 8, fp16=2.0, int8=4.0, gbytes_s=10.0, overhead_us=5),
        cpu_mhz=2400,
    ),
    SimulatedBoard(
        name="nuc",
        aliases=(),
        title="Intel NUC 11 (NUC11PAHi5)",
        machine="x86_64",
        cpu="11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz",
        cpu_flags=TIGER_LAKE,
        cores=8,  # threads, on four cores
        memory_mb=15778,
        free_mb=14500,
        python="3.12.3",
        kernel="6.8.0-45-generic",
        release="Ubuntu 24.04.1 LTS",
        compatible=(),
        runtimes={"onnxruntime": "1.23.2", "openvino": "2025.3.0"},
        # Intel ARK: up to 4.2 GHz, DDR4-3200 in two channels (51.2 GB/s); one 512-bit FMA unit, VNNI four times
        # int8. Taken at 3 GHz, which AVX-512 on all cores leaves of it. It converts fp16, but computes in fp32.
        core=_core(3.0, 16, fp16=0.8, int8=4.0, gbytes_s=40.0, overhead_us=3),
        cpu_mhz=4200,
    ),
    SimulatedBoard(
        name="x86-cuda",
        aliases=(),
        title="server with a Tesla T4",
        machine="x86_64",
        cpu="Intel(R) Xeon(R) CPU @ 2.20GHz",
        cpu_flags=CASCADE_LAKE,
        cores=8,
        memory_mb=32100,
        free_mb=30000,
        python="3.12.3",
        kernel="6.8.0-45-generic",
        release="Ubuntu 24.04.1 LTS",
        compatible=(),
        runtimes={"tensorrt": "10.13.3.9", "onnxruntime": "1.23.2", "onnxruntime:cuda": "1.23.2"},
        core=_core(2.2, 16, fp16=0.8, int8=4.0, gbytes_s=80.0, overhead_us=4),
        cpu_mhz=2200,
        gpu=GpuFacts("Tesla T4", "7.5", 15102, False),
        # T4 data sheet: 8.1 TFLOPS fp32, 65 TFLOPS fp16 and 130 TOPS int8 on tensor cores, 320 GB/s. The 70 W allow
        # about half of the tensor cores' peak for long.
        cuda=_cuda(4050, 16000, 32000, 320.0, 6),
        gpu_mhz=1590,
        build_s_per_layer=0.4,
        runtime_mb=900.0,
    ),
)
