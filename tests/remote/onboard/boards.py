"""Boards as file trees: the paths and contents that their /proc, /sys and /etc really have.

Names and formats are those of the sources given in docs/measuring.md; the values are of boards at rest.
"""

from __future__ import annotations

from pathlib import Path

Tree = dict[str, str]

STAT = "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 {busy} 0 0 {idle} 0 0 0 0 0 0\nintr 4217 0 12\n"
COMMON: Tree = {
    "/proc/stat": STAT.format(busy=1000, idle=9000),
    "/proc/loadavg": "0.08 0.12 0.20 1/321 4711\n",
    "/proc/uptime": "4242.18 16101.22\n",
    "/proc/sys/kernel/random/boot_id": "5f3f0a1e-7f52-4d0a-9a30-1f5b6c1f2c11\n",
    "/proc/swaps": "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n",
    "/proc/1/stat": "1 (systemd) S 0 1 1 0 -1 4194560 9 9 9 9 120 80 0 0 20 0 1 0 4 1 1\n",
    "/proc/1/comm": "systemd\n",
}


def meminfo(total_mb: int, available_mb: int, swap_mb: int = 0) -> str:
    sizes = {"MemTotal": total_mb, "MemFree": available_mb // 2, "MemAvailable": available_mb, "SwapTotal": swap_mb}
    return "".join(f"{name + ':':<16}{size * 1024:>8} kB\n" for name, size in sizes.items())


def cpufreq(cores: int, now_khz: int, low_khz: int, high_khz: int, governor: str, policies: int = 1) -> Tree:
    """The same numbers by core and by policy, as the kernel shows them."""
    files = {
        "scaling_cur_freq": f"{now_khz}\n",
        "scaling_min_freq": f"{low_khz}\n",
        "scaling_max_freq": f"{high_khz}\n",
        "scaling_governor": f"{governor}\n",
    }
    folders = [f"cpu{core}/cpufreq" for core in range(cores)]
    folders += [f"cpufreq/policy{first}" for first in range(0, cores, cores // policies)]
    cpu = "/sys/devices/system/cpu"
    return {f"{cpu}/{folder}/{name}": text for folder in folders for name, text in files.items()}


def zones(*found: tuple[str, int]) -> Tree:
    """Thermal zones by type and millidegrees."""
    tree = {}
    for index, (kind, millidegrees) in enumerate(found):
        tree[f"/sys/class/thermal/thermal_zone{index}/type"] = f"{kind}\n"
        tree[f"/sys/class/thermal/thermal_zone{index}/temp"] = f"{millidegrees}\n"
    return tree


def cooling(*found: tuple[str, int]) -> Tree:
    """Cooling devices by type and state."""
    tree = {}
    for index, (kind, state) in enumerate(found):
        tree[f"/sys/class/thermal/cooling_device{index}/type"] = f"{kind}\n"
        tree[f"/sys/class/thermal/cooling_device{index}/cur_state"] = f"{state}\n"
    return tree


def program(output: str) -> str:
    return f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n"


NANO: Tree = {  # JetPack 4.6.6, Linux 4.9
    **COMMON,
    "/proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "/proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0",
    "/proc/sys/kernel/osrelease": "4.9.337-tegra\n",
    "/etc/nv_tegra_release": "# R32 (release), REVISION: 7.6, GCID: 38171779, BOARD: t210ref, EABI: aarch64, "
    "DATE: Tue Nov  5 07:46:14 UTC 2024\n",
    "/etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd07\n",
    "/proc/meminfo": meminfo(3956, 3100, 1978),
    "/proc/swaps": COMMON["/proc/swaps"]
    + "".join(f"/dev/zram{index}                              partition\t506500\t0\t5\n" for index in range(4)),
    **cpufreq(4, 102000, 102000, 1479000, "schedutil"),
    "/sys/class/devfreq/57000000.gpu/cur_freq": "76800000\n",
    "/sys/class/devfreq/57000000.gpu/min_freq": "76800000\n",
    "/sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
    "/sys/class/devfreq/57000000.gpu/governor": "nvhost_podgov\n",
    "/sys/class/devfreq/57000000.gpu/device/load": "250\n",
    "/sys/class/devfreq/54080000.vi/cur_freq": "1\n",
    **zones(
        ("AO-therm", 44500),
        ("CPU-therm", 40000),
        ("GPU-therm", 38500),
        ("PLL-therm", 38000),
        ("PMIC-Die", 100000),
        ("thermal-fan-est", 79250),
    ),
    **cooling(("pwm-fan", 3), ("cpu-balanced", 0), ("gpu-balanced", 0), ("gpu-throttle-alert", 0)),
    "/sys/bus/i2c/devices/6-0040/name": "ina3221x\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": "2875\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/rail_name_1": "POM_5V_GPU\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/in_power1_input": "163\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/rail_name_2": "POM_5V_CPU\n",
    "/sys/bus/i2c/devices/6-0040/iio:device0/in_power2_input": "489\n",
    "/etc/nvpmodel.conf": "# MAXN is the NONE power model to release all constraints\n< POWER_MODEL ID=0 NAME=MAXN >\n"
    "CPU_ONLINE CORE_0 1\n\n< POWER_MODEL ID=1 NAME=5W >\nCPU_ONLINE CORE_0 1\n\n< PM_CONFIG DEFAULT=0 >\n",
    "/var/lib/nvpmodel/status": "pmode:0000",
    "/usr/bin/nvpmodel": program("NV Power Mode: MAXN\n0"),
}

OC = "/sys/class/hwmon/hwmon3"
INA = "/sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
ORIN_NANO: Tree = {  # JetPack 6.2, Linux 5.15
    **COMMON,
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "/proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "/proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd fphp asimdhp asimddp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "/proc/meminfo": meminfo(7620, 5900, 3810),
    "/proc/swaps": COMMON["/proc/swaps"] + "/dev/zram0 partition 3901824 0 5\n",
    **cpufreq(6, 1728000, 1728000, 1728000, "schedutil", policies=3),
    "/sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
    "/sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n",
    "/sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "/sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov\n",
    "/sys/class/devfreq/17000000.gpu/device/load": "0\n",
    **zones(("cpu-thermal", 48312), ("gpu-thermal", 49093), ("cv0-thermal", -256000), ("tj-thermal", 49500)),
    **cooling(("pwm-fan", 2), ("cpu-throttle-alert", 0), ("gpu-throttle-alert", 0), ("devfreq-17000000.gpu", 18)),
    "/sys/bus/i2c/devices/1-0040/name": "ina3221\n",
    f"{INA}/in1_label": "VDD_IN\n",
    f"{INA}/in1_input": "4984\n",
    f"{INA}/curr1_input": "1856\n",
    f"{INA}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{INA}/in2_input": "4976\n",
    f"{INA}/curr2_input": "320\n",
    f"{INA}/in3_label": "VDD_SOC\n",
    f"{INA}/in3_input": "4976\n",
    f"{INA}/curr3_input": "400\n",
    f"{INA}/in7_label": "sum of shunt voltages\n",
    f"{INA}/in7_input": "12\n",
    f"{OC}/name": "soctherm_oc\n",
    f"{OC}/oc1_event_cnt": "0\n",
    f"{OC}/oc1_throt_en": "1\n",
    f"{OC}/oc2_event_cnt": "0\n",
    f"{OC}/oc3_event_cnt": "2\n",
    "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n",
    "/var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
    "/usr/bin/nvpmodel": program("NV Power Mode: 25W\n1"),
}

# No total rail; two chips, of which one channel is not connected.
AGX_ORIN_RAILS: Tree = {
    "/sys/bus/i2c/devices/1-0040/name": "ina3221\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/in1_label": "VDD_GPU_SOC\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/in1_input": "12000\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/curr1_input": "500\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/in2_label": "VDD_CPU_CV\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/in2_input": "12000\n",
    "/sys/bus/i2c/devices/1-0040/hwmon/hwmon4/curr2_input": "250\n",
    "/sys/bus/i2c/devices/1-0041/name": "ina3221\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/in1_label": "NC\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/in1_input": "5000\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/curr1_input": "9999\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/in2_label": "VIN_SYS_5V0\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/in2_input": "5000\n",
    "/sys/bus/i2c/devices/1-0041/hwmon/hwmon5/curr2_input": "1000\n",
    "/sys/bus/i2c/devices/0-0050/name": "24c02\n",
}

PI_4: Tree = {  # Raspberry Pi OS 12
    **COMMON,
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "/proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "/proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-v8\n",
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "/proc/cpuinfo": "Features\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
    "/proc/meminfo": meminfo(3792, 3300, 512),
    "/proc/swaps": COMMON["/proc/swaps"] + "/var/swap                               file\t524284\t0\t-2\n",
    **cpufreq(4, 600000, 600000, 1800000, "ondemand"),
    **zones(("cpu-thermal", 81300)),
    **cooling(("cpufreq-cpu0", 0)),
    "/sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "/sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "/sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
    "/usr/bin/vcgencmd": program("throttled=0x50005"),
}

PI_5: Tree = {  # its firmware's node is called after its address
    **COMMON,
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "/proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-2712\n",
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "/proc/cpuinfo": "Features\t: fp asimd fphp asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
    "/proc/meminfo": meminfo(8063, 7400, 2047),
    **cpufreq(4, 2400000, 1500000, 2400000, "performance"),
    **zones(("cpu-thermal", 51800)),
    **cooling(("pwm-fan", 1)),
    "/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",
    "/sys/class/hwmon/hwmon2/name": "rpi_volt\n",
    "/sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n",
    "/usr/bin/vcgencmd": program("throttled=0x0"),
}

NUC: Tree = {
    **COMMON,
    "/sys/class/dmi/id/sys_vendor": "Intel(R) Client Systems\n",
    "/sys/class/dmi/id/product_name": "NUC11TNHi5\n",
    "/proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
    "/etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nNAME="Ubuntu"\n',
    "/proc/cpuinfo": "model name\t: 11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz\nflags\t\t: sse avx2 avx512_vnni\n",
    "/proc/meminfo": meminfo(15775, 12000, 4095),
    "/proc/swaps": COMMON["/proc/swaps"] + "/swap.img                               file\t4194300\t0\t-2\n",
    **cpufreq(8, 2400000, 400000, 4200000, "powersave", policies=8),
    "/sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4\n",
    **zones(("acpitz", 27800), ("x86_pkg_temp", 46000), ("iwlwifi_1", 88000)),
    **cooling(("Processor", 0), ("intel_powerclamp", -1), ("TCC Offset", 3), ("INT3404 Fan", 4), ("LCD", 7)),
    "/sys/class/hwmon/hwmon4/name": "coretemp\n",
    "/sys/class/hwmon/hwmon4/temp1_input": "47000\n",
    "/sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "/sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "/sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "/sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "/sys/class/powercap/intel-rapl:0:0/energy_uj": "2000000\n",
    "/proc/912/stat": "912 (gnome-shell) S 1 912 912 0 -1 4194560 9 9 9 9 50 10 0 0 20 0 1 0 4 1 1\n",
    "/proc/912/comm": "gnome-shell\n",
}

BOARDS: dict[str, Tree] = {"nano": NANO, "orin-nano": ORIN_NANO, "pi-4": PI_4, "pi-5": PI_5, "nuc": NUC}


def build(tree: Tree, root: Path) -> str:
    """The root folder as text, filled with the tree; programs can be run."""
    for name, text in tree.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.startswith("/usr/bin/"):
            path.chmod(0o755)
    return str(root)
