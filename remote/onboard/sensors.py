# mypy: ignore-errors
"""Read a device's facts, which stay, and its present state, without special rights.

Sent to the device as text: Python 3.6, standard library only. Every path lies below `root`, so that other
boards' files can be read too. Boards differ in the readings they show: one that is missing, or makes no sense,
is left out and never an error. Clocks are in MHz, temperatures in degrees Celsius, shares 0..1.
"""

import glob
import os
import platform
import re
import time

NUMBER = re.compile(r"-?[0-9]{1,18}\Z")
HEX = re.compile(r"(0x)?[0-9a-fA-F]{1,8}\Z")
CPU = "/sys/devices/system/cpu/"
GPUS = ("gpu", "gp10b", "gv11b", "ga10b", "gpc-0")  # ends of the names of Jetsons' devfreq folders
# Cooling devices that slow no processor down, and devfreq: its state does not depend on heat alone, and its effect
# is visible in the GPU's clock itself.
NO_BRAKE = ("fan", "tfn", "lcd", "backlight", "tcc offset", "wifi", "charger", "battery", "usb", "devfreq")
NO_HEAT = ("pmic", "fan-est", "wifi", "battery")  # on a Jetson, the PMIC's zone is a constant 100
COOLEST_C, HOTTEST_C = -40.0, 125.0  # beyond these a sensor is off, not cold or hot


# ---------------------------------------------------------------- reading


def read(path, default="", root="/"):
    """Return a small text file's content, stripped, or `default`."""
    try:
        with open(root.rstrip("/") + path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return default


def integer(path):
    """Return the whole number that a file consists of; None if it is none."""
    text = read(path)
    return int(text) if NUMBER.match(text) else None


def find(pattern, root="/"):
    """Return the paths, `root` included, that match; cpu10 comes after cpu9."""

    def key(path):
        return [int(word) if odd % 2 else word for odd, word in enumerate(re.split("([0-9]+)", path))]

    return sorted(glob.glob(glob.escape(root.rstrip("/")) + pattern), key=key)


class Gauge(object):
    """Hold a small file open, since reading it again then costs one system call."""

    fd = -1

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def text(self, size=64):
        """Return the present content, stripped; empty if it can't be read now (sleeping sensors report "try again")."""
        try:
            return os.pread(self.fd, size, 0).decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            return ""

    def value(self):
        """Return the whole number it shows now, or None."""
        text = self.text()
        return int(text) if NUMBER.match(text) else None

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    __del__ = close


def gauges(paths):
    """Return Gauges on those of the files that may be read."""
    found = []
    for path in paths:
        try:
            found.append(Gauge(path))
        except OSError:
            pass
    return found


# ---------------------------------------------------------------- facts


def parse_cpuinfo(text, board=""):
    """Return (model, flags) from /proc/cpuinfo. ARM names no model there, so the board's own name is put first."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    parts = [board, fields.get("model name") or fields.get("Model", "") if not board else ""]
    if "CPU part" in fields:
        parts.append("implementer %s part %s" % (fields.get("CPU implementer", "?"), fields["CPU part"]))
    model = ", ".join(part for part in parts if part) or "unknown"
    return model, sorted((fields.get("flags") or fields.get("Features") or "").split())


def parse_memory_mb(text, name):
    """Return a line of /proc/meminfo in MB; 0 where there is none."""
    found = re.search(r"^%s:\s+([0-9]{1,18}) kB" % name, text, re.M)
    return int(found.group(1)) // 1024 if found else 0


def memory_mb(name, root="/"):
    """Return a line of /proc/meminfo in MB; 0 where there is none."""
    return parse_memory_mb(read("/proc/meminfo", root=root), name)


def usable_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def board_name(root="/"):
    """Return the device tree's model, else the maker's and product's names of a PC, else an empty text."""
    model = read("/proc/device-tree/model", root=root)
    if model:
        return model
    for names in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        words = [read("/sys/class/dmi/id/" + name, root=root) for name in names]
        if all(words) and not re.search(r"(?i)to be filled|default string|system (manufacturer|product)", words[1]):
            return " ".join(words)
    return ""


def release(root="/"):
    """Return `L4T 32.7.6` on a Jetson, else the distribution's own name for itself."""
    tegra = re.search(r"R([0-9]+) \(release\), REVISION: ([0-9.]+)", read("/etc/nv_tegra_release", root=root))
    if tegra:
        return "L4T %s.%s" % (tegra.group(1), tegra.group(2).rstrip("."))
    named = re.search(r"^PRETTY_NAME=[\"']?(.*?)[\"']?$", read("/etc/os-release", root=root), re.M)
    return named.group(1) if named else ""


def facts(root="/"):
    """Return the facts that hold until the next boot: processor, memory, board, system."""
    tree = read("/proc/device-tree/model", root=root)
    cpu, flags = parse_cpuinfo(read("/proc/cpuinfo", root=root), tree)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu,
        "cpu_flags": flags,
        "cores": usable_cores(),
        "memory_mb": memory_mb("MemTotal", root),
        "boot_id": read("/proc/sys/kernel/random/boot_id", "unknown", root),
        "kernel": read("/proc/sys/kernel/osrelease", root=root) or platform.release(),
        "board": board_name(root),
        "compatible": [name for name in read("/proc/device-tree/compatible", root=root).split("\0") if name],
        "release": release(root),
    }


# ---------------------------------------------------------------- state


def clocks_mhz(name, root="/"):
    """Return one of cpufreq's clocks, of every core that shows it."""
    speeds = [integer(path) for path in find(CPU + "cpu[0-9]*/cpufreq/" + name, root)]
    return [khz // 1000 for khz in speeds if khz is not None]


def governors(root="/"):
    """Return the names of the CPU governors in use, each once."""
    names = [read(path) for path in find(CPU + "cpu[0-9]*/cpufreq/scaling_governor", root)]
    return sorted(set(name for name in names if name))


def no_turbo(root="/"):
    """Return whether the CPU keeps to clocks that it can hold for ever; None where that is not shown."""
    off = integer(root.rstrip("/") + CPU + "intel_pstate/no_turbo")
    boost = integer(root.rstrip("/") + CPU + "cpufreq/boost")
    if off is not None:
        return off == 1
    return None if boost is None else boost == 0


def clock_holds(root="/"):
    """Return whether the highest allowed clock is one the CPU should keep; False where turbo comes and goes."""
    known = no_turbo(root)
    return known if known is not None else not re.search(r"^flags\s*:", read("/proc/cpuinfo", root=root), re.M)  # x86


def gpu_folder(root="/"):
    """Return the devfreq folder of a Jetson's GPU, else an empty text. Other boards' GPUs run no model of ours."""
    if "nvidia," not in read("/proc/device-tree/compatible", root=root):
        return ""
    found = [path for path in find("/sys/class/devfreq/*", root) if path.endswith(GPUS)]
    return found[0] if found else ""


def gpu_state(root="/"):
    """Return clock, its limits, governor and load of a Jetson's GPU."""
    folder, found = gpu_folder(root), {}
    if not folder:
        return found
    for name, file in (("gpu_mhz", "cur_freq"), ("gpu_mhz_min", "min_freq"), ("gpu_mhz_max", "max_freq")):
        hertz = integer(folder + "/" + file)
        if hertz is not None:
            found[name] = hertz // 1000000
    governor = read(folder + "/governor")
    if governor:
        found["gpu_governor"] = governor
    for path in [folder + "/device/load"] + find("/sys/devices/gpu.0/load", root):
        permille = integer(path)
        if permille is not None and 0 <= permille <= 1000:
            found["gpu_load"] = permille / 1000.0
            break
    return found


def celsius(millidegrees):
    """Return degrees Celsius, or None where the sensor is off."""
    if millidegrees is None or not COOLEST_C < millidegrees / 1000.0 < HOTTEST_C:
        return None
    return millidegrees / 1000.0


def thermometers(root="/"):
    """Return (name, file of millidegrees) of each temperature sensor of the processors."""
    found = []
    for zone in find("/sys/class/thermal/thermal_zone*", root):
        kind = read(zone + "/type")
        if not any(word in kind.lower() for word in NO_HEAT):
            found.append((os.path.basename(zone)[12:] + " " + kind, zone + "/temp"))
    for path in find("/sys/class/hwmon/hwmon*/name", root):
        if read(path) in ("coretemp", "k10temp", "zenpower"):  # input 1 is the whole package's
            found.append((read(path), os.path.dirname(path) + "/temp1_input"))
    return found


def brakes(root="/"):
    """Return (type, file of its state) of each cooling device that slows a processor down when its state is not 0."""
    found = [(read(path + "/type"), path + "/cur_state") for path in find("/sys/class/thermal/cooling_device*", root)]
    return [(kind, path) for kind, path in found if not any(word in kind.lower() for word in NO_BRAKE)]


def throttle_counters(root="/"):
    """Return the files that count how often an x86 core or package was slowed down by its heat."""
    return find(CPU + "cpu[0-9]*/thermal_throttle/*_throttle_count", root)


def overcurrent_counters(root="/"):
    """Return (name, file) of an Orin's counters: oc1 under-voltage, oc2 average and oc3 instantaneous over-current."""
    return [(os.path.basename(path)[:-10], path) for path in find("/sys/class/hwmon/hwmon*/oc*_event_cnt", root)]


def throttled_files(root="/"):
    """Return (whether it is an alarm of one bit, file) of a Raspberry Pi's firmware; the first one is the better.

    The kernel asks the firmware every 2 s and then clears the "has occurred" bits, so they stand for the last
    2 s, not for the time since boot.
    """
    found = [(False, path) for path in find("/sys/devices/platform/soc*/soc*:firmware/get_throttled", root)]
    for path in find("/sys/class/hwmon/hwmon*/name", root):
        if read(path) == "rpi_volt":
            found.append((True, os.path.dirname(path) + "/in0_lcrit_alarm"))
    return found


def parse_throttled(alarm, text):
    """Return hex digits of the firmware's bits, empty if there are none. The alarm is under-voltage, bit 0."""
    if alarm:
        return text if text in ("0", "1") else ""
    return text if HEX.match(text) else ""


def throttled_bits(root="/"):
    """Return hex digits of a Raspberry Pi's throttle bits, empty where they are not shown."""
    shown = [parse_throttled(alarm, read(path)) for alarm, path in throttled_files(root)]
    return next((bits for bits in shown if bits), "")


def parse_ticks(text):
    """Return (busy, stolen, all) clock ticks of all cores together from /proc/stat; None if the text is another."""
    words = text.split("\n")[0].split()
    ticks = [int(word) for word in words[1:9] if NUMBER.match(word)]
    if words[:1] != ["cpu"] or len(ticks) < 8:
        return None
    return sum(ticks) - ticks[3] - ticks[4], ticks[7], sum(ticks)  # all but idle and iowait


def load_average(root="/"):
    """Return the load averages of the last 1, 5 and 15 minutes."""
    words = read("/proc/loadavg", root=root).split()[:3]
    if len(words) == 3 and all(re.match(r"[0-9]{1,9}\.[0-9]{1,9}\Z", word) for word in words):
        return [float(word) for word in words]
    return list(os.getloadavg())


def state(root="/"):
    """Return the present readings that may disturb a timing. Readings the device does not show are left out."""
    found = {"load_average": load_average(root), "memory_available_mb": memory_mb("MemAvailable", root)}
    found.update(gpu_state(root))
    shown = {
        "cpu_mhz": clocks_mhz("scaling_cur_freq", root),
        "cpu_mhz_max": clocks_mhz("scaling_max_freq", root),
        "governors": governors(root),
        "throttled_bits": throttled_bits(root),
    }
    found.update((name, value) for name, value in shown.items() if value)
    counts = [integer(path) for path in throttle_counters(root)]
    if any(count is not None for count in counts):
        found["throttle_count"] = sum(count for count in counts if count)
    events = [(name, integer(path)) for name, path in overcurrent_counters(root)]
    if events:
        found["oc_events"] = dict((name, count) for name, count in events if count is not None)
    slowed = [(kind, integer(path)) for kind, path in brakes(root)]
    if slowed:
        found["cooling"] = max([0] + [level for _, level in slowed if level is not None])
        found["cooling_active"] = sorted(set(kind for kind, level in slowed if level is not None and level > 0))
    heat = dict((name, celsius(integer(path))) for name, path in thermometers(root))
    if any(value is not None for value in heat.values()):
        found["temperature_c"] = dict((name, value) for name, value in heat.items() if value is not None)
    ticks = parse_ticks(read("/proc/stat", root=root))
    if ticks:
        per_s = float(os.sysconf("SC_CLK_TCK"))
        found["cpu_busy_s"] = round(ticks[0] / per_s, 2)
        found["cpu_stolen_s"] = ticks[1] / per_s
        found["at_s"] = time.monotonic()
    return found


# ---------------------------------------------------------------- parts in files of their own


def survey(root="/", folder=None):
    """Return all of `state`, and the further readings that the doctor needs."""
    return part("survey").survey(root, folder)


def power(root="/"):
    """Return the power sensor; None where there is none."""
    return part("power").power(root)


def energy(samples, from_s, to_s, runs, idle_w=0.0):
    """Return the millijoules of one run."""
    return part("power").energy(samples, from_s, to_s, runs, idle_w)


def DeviceMonitor(root="/", hz=10.0, power=None):
    """Return a thread that samples the device while it is timed."""
    return part("monitor").DeviceMonitor(root, hz, power)
