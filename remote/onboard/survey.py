# mypy: ignore-errors
"""Collect the readings of the doctor that take longer than the state: disk, swap, power mode, competing processes.

Sent to the device as text: Python 3.6, standard library only. Programs are run only where they are installed,
with a deadline; readings the device does not show are left out.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import time

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"  # a login by SSH may have less
DESKTOPS = set(
    "Xorg Xwayland gnome-shell unity compiz lxsession lxpanel xfce4-session plasmashell kwin_x11 kwin_wayland "
    "cinnamon mate-session weston sway wayfire labwc mutter".split()
)
GPU_FILES = re.compile(r"/dev/(nvhost-(as-|tsg-|dbg-|prof-)?gpu|nvgpu/.+)\Z")  # Jetson: up to JetPack 5, from 6 on
DECIMAL = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?\Z")
NVIDIA = (
    ("name", "name"),
    ("sm_mhz", "clocks.sm"),
    ("sm_mhz_max", "clocks.max.sm"),
    ("temperature_c", "temperature.gpu"),
    ("watts", "power.draw"),
    ("load_percent", "utilization.gpu"),
    ("memory_used_mb", "memory.used"),
    ("persistence", "persistence_mode"),
)
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the newer name, the older name


def ask(argv, root="/", timeout_s=5.0):
    """Return the output of a program; empty where it is not installed, fails or takes too long."""
    path = os.environ.get("PATH", "") + ":" + PATH if root == "/" else root.rstrip("/") + "/usr/bin"
    program = shutil.which(argv[0], path=path)
    if not program:
        return ""
    try:
        asked = subprocess.Popen(
            [program] + argv[1:],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return ""
    try:
        said = asked.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        os.killpg(asked.pid, signal.SIGKILL)  # with its own children, which hold the pipe open too
        asked.communicate()
        return ""
    return said.decode("utf-8", "replace").strip() if asked.returncode == 0 else ""


def survey(root="/", folder=None, window_s=0.5):
    """Return all of the state, and the slower readings. `folder` is the folder of our files."""
    sensors = part("sensors")
    found = dict(sensors.state(root), unix_s=time.time(), is_root=os.getuid() == 0, cores=sensors.usable_cores())
    found.update(storage(root, folder), **power_mode(root))
    found.update(clock_locks(found, root), **power_source(root))
    found.update(busy(root, window_s), desktop=desktop(root), gpu_users=gpu_users(root))
    uptime = re.match(r"[0-9]{1,12}", sensors.read("/proc/uptime", root=root))
    if uptime:
        found["uptime_s"] = int(uptime.group(0))
    boot_bits = ask(["vcgencmd", "get_throttled"], root).replace("throttled=", "")
    if sensors.HEX.match(boot_bits):
        found["throttled_boot_bits"] = boot_bits
    cards = nvidia(root)
    if cards:
        found["nvidia"] = cards
    return found


def storage(root="/", folder=None):
    """Return disk, memory and swap. Swap in compressed memory (zram) adds no room for data beyond the memory."""
    sensors = part("sensors")
    found = {"memory_mb": sensors.memory_mb("MemTotal", root), "swap_mb": sensors.memory_mb("SwapTotal", root)}
    try:
        disk = os.statvfs(folder or os.path.expanduser("~"))
        found["disk_free_mb"] = disk.f_bavail * disk.f_frsize >> 20
    except OSError:
        pass
    lines = [line.split() for line in sensors.read("/proc/swaps", root=root).splitlines()[1:]]
    sizes = [line[2] for line in lines if len(line) > 2 and line[0].startswith("/dev/zram")]
    found["swap_zram_mb"] = sum(int(size) // 1024 for size in sizes if sensors.NUMBER.match(size))
    return found


def power_mode(root="/"):
    """Return a Jetson's power mode by name and number, and all of its modes by number."""
    sensors, found = part("sensors"), {}
    listed = re.findall(
        r"^<\s*POWER_MODEL\s+ID=([0-9]{1,4})\s+NAME=(\S+)\s*>", sensors.read("/etc/nvpmodel.conf", root=root), re.M
    )
    told = re.search(r"NV Power Mode: *(\S+)\s+([0-9]{1,4})\b", ask(["nvpmodel", "-q"], root))
    kept = re.search(r"pmode:([0-9]{1,4})", sensors.read("/var/lib/nvpmodel/status", root=root))
    if listed:
        found["power_modes"] = dict(listed)
    if told:
        found.update(power_mode=told.group(1), power_mode_id=int(told.group(2)))
    elif kept:
        number = int(kept.group(1))
        found.update(power_mode=dict(listed).get(str(number), "mode %d" % number), power_mode_id=number)
    return found


def clock_locks(state, root="/"):
    """Return whether clocks may move: of the GPU, of the CPU, and beyond the clocks the CPU can hold (turbo)."""
    sensors, found = part("sensors"), {}
    if "gpu_mhz_min" in state and "gpu_mhz_max" in state:
        found["gpu_clock_locked"] = state["gpu_mhz_min"] == state["gpu_mhz_max"]
    low, high = sensors.clocks_mhz("scaling_min_freq", root), sensors.clocks_mhz("scaling_max_freq", root)
    if state.get("governors") or (low and high):
        found["cpu_clock_locked"] = state.get("governors") == ["performance"] or (bool(low) and low == high)
    if len(found) == 2 or "cpu_clock_locked" in found:
        found["clocks_locked"] = all(found.values())
    no_turbo = sensors.no_turbo(root)
    return found if no_turbo is None else dict(found, no_turbo=no_turbo)


def power_source(root="/"):
    """Return the kind of power sensor, and whether RAPL is there but readable by root only."""
    source = part("power").power(root)
    if source:
        source.close()
        return {"power_sensor": source.kind}
    return {"power_sensor": "", "rapl_is_roots": bool(part("power").rapl_folders(root))}


# ---------------------------------------------------------------- competing load


def processes(root="/"):
    """Return (pid, name, clock ticks used) of every process."""
    sensors, found = part("sensors"), []
    for path in sensors.find("/proc/[0-9]*/stat", root):
        head, _, rest = sensors.read(path).rpartition(")")
        words = rest.split()[11:13]
        if len(words) == 2 and all(sensors.NUMBER.match(word) for word in words):
            found.append((int(path.split("/")[-2]), head.partition("(")[2], sum(map(int, words))))
    return found


def owner(pid, root="/"):
    """Return the name of a process's user; empty where it has ended."""
    try:
        uid = os.stat("%s/proc/%d" % (root.rstrip("/"), pid)).st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # no such user in this container
        return "user %d" % uid


def busy(root="/", window_s=0.5):
    """Return the number of busy cores, and the processes that keep them busy; this one is left out."""
    sensors = part("sensors")
    per_s = float(os.sysconf("SC_CLK_TCK"))

    def look():
        return time.monotonic(), sensors.parse_ticks(sensors.read("/proc/stat", root=root)), processes(root)

    (began_s, before, first), _ = look(), time.sleep(window_s)
    ended_s, after, second = look()
    had = dict((pid, ticks) for pid, _, ticks in first)
    wall_s = max(ended_s - began_s, 1e-3)
    shares = [(round((ticks - had[pid]) / per_s / wall_s, 2), pid, name) for pid, name, ticks in second if pid in had]
    ours = sum(share for share, pid, _ in shares if pid == os.getpid())
    top = sorted((row for row in shares if row[1] != os.getpid() and row[0] >= 0.1), reverse=True)[:3]
    found = {"busiest": [{"cores": share, "pid": pid, "name": name, "user": owner(pid)} for share, pid, name in top]}
    if before and after:
        found["busy_cores"] = max(0.0, round((after[0] - before[0]) / per_s / wall_s - ours, 2))
    return found


def desktop(root="/"):
    """Return the names of the running programs that draw a desktop: they take memory, and the GPU now and then."""
    sensors = part("sensors")
    names = set(sensors.read(path) for path in sensors.find("/proc/[0-9]*/comm", root))
    return sorted(names & DESKTOPS)


def gpu_users(root="/"):
    """Return the processes that hold the GPU: those that nvidia-smi lists, and on a Jetson those of our own user."""
    sensors, found = part("sensors"), {}
    listed = ask(["nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader"], root)
    for line in listed.splitlines():
        pid, _, name = line.partition(",")
        if sensors.NUMBER.match(pid.strip()):
            found[int(pid)] = os.path.basename(name.strip())
    for path in sensors.find("/proc/[0-9]*/fd/*", root):
        pid = int(path.split("/")[-3])
        try:
            if pid not in found and GPU_FILES.match(os.readlink(path)):
                found[pid] = sensors.read("%s/proc/%d/comm" % (root.rstrip("/"), pid))
        except OSError:
            pass  # the process has closed the file, or ended
    rows = sorted(item for item in found.items() if item[0] != os.getpid())
    return [{"pid": pid, "name": name, "user": owner(pid, root)} for pid, name in rows]


def nvidia(root="/"):
    """Return each desktop or server GPU as nvidia-smi reports it; `reasons` are its clock's limits, a bit each."""
    names, text = [query for _, query in NVIDIA], ""
    for reasons in REASONS:
        argv = ["nvidia-smi", "--query-gpu=" + ",".join(names + [reasons]), "--format=csv,noheader,nounits"]
        text = text or ask(argv, root)
    cards = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != len(NVIDIA) + 1:
            continue
        card = {"name": words[0]}
        for (name, _), word in list(zip(NVIDIA, words))[1:-1]:
            if DECIMAL.match(word):  # else it is [N/A] on this GPU
                card[name] = float(word)
        if "load_percent" in card:
            card["load"] = card.pop("load_percent") / 100.0
        if words[-2] in ("Enabled", "Disabled"):
            card["persistence"] = words[-2] == "Enabled"
        if re.match(r"0x[0-9a-fA-F]{1,16}\Z", words[-1]):
            card["reasons"] = words[-1]
        cards.append(card)
    return cards
