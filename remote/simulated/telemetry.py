"""Return the facts and readings of a simulated board, under the names that remote/onboard/ uses for a real one."""

from __future__ import annotations

import time
from dataclasses import asdict

from remote.simulated.boards import SimulatedBoard

CALM_C, HOT_C = 45.0, 83.0
Value = dict[str, object]


def facts(board: SimulatedBoard, boot_id: str) -> Value:
    """Return the fields of `sensors.facts`, and `simulated`.

    Args:
        board: The kind of board.
        boot_id: Identifier of the time since its last boot.
    """
    return {
        "python": board.python,
        "machine": board.machine,
        "cpu": board.cpu,
        "cpu_flags": board.cpu_flags.split(),
        "cores": board.cores,
        "memory_mb": board.memory_mb,
        "boot_id": boot_id,
        "kernel": board.kernel,
        "board": f"SIMULATED {board.title}",
        "compatible": list(board.compatible),
        "release": board.release,
        "simulated": True,
    }


def list_runtimes(board: SimulatedBoard) -> Value:
    """Return the installed runtimes and the GPU, with the fields of the agent's `look`."""
    return {"runtimes": dict(board.runtimes), "gpu": asdict(board.gpu) if board.gpu else None}


def state(board: SimulatedBoard, at_s: float, busy_s: float, temperature_c: float) -> Value:
    """Return the fields of `sensors.state`: clocks locked, and no competing load.

    Args:
        board: The kind of board.
        at_s: The board's clock in seconds.
        busy_s: Busy seconds of all cores so far.
        temperature_c: Temperature of the CPU in °C.
    """
    shown: Value = {
        "load_average": [0.1, 0.1, 0.1],
        "memory_available_mb": board.free_mb,
        "cpu_mhz": [board.cpu_mhz] * board.cores,
        "cpu_mhz_max": [board.cpu_mhz] * board.cores,
        "governors": ["performance"],
        "temperature_c": {"0 CPU-therm": round(temperature_c, 1)},
        "cpu_busy_s": round(busy_s, 2),
        "cpu_stolen_s": 0.0,
        "at_s": at_s,
    }
    if board.jetson:
        clocks = dict.fromkeys(("gpu_mhz", "gpu_mhz_min", "gpu_mhz_max"), board.gpu_mhz)
        shown |= clocks | {"gpu_governor": "nvhost_podgov", "gpu_load": 0.0}
    if board.machine == "x86_64":
        shown["throttle_count"] = 0
    if board.raspberry:
        shown["throttled_bits"] = "0"
    return shown


def survey(board: SimulatedBoard) -> Value:
    """Return the fields that `sensors.survey` adds to the state."""
    shown: Value = {
        "unix_s": time.time(),
        "is_root": False,
        "cores": board.cores,
        "memory_mb": board.memory_mb,
        "swap_mb": board.memory_mb // 2 if board.jetson else 2048,
        "swap_zram_mb": board.memory_mb // 2 if board.jetson else 0,  # as L4T sets it up
        "disk_free_mb": 8000,
        "cpu_clock_locked": True,
        "clocks_locked": True,
        "busiest": [],
        "busy_cores": 0.0,
        "desktop": [],
        "gpu_users": [],
        "uptime_s": 3600,
        "power_sensor": "INA3221 VDD_IN" if board.watts else "",
    }
    if board.jetson:
        modes = {"power_modes": {"0": "MAXN"}, "power_mode": "MAXN", "power_mode_id": 0}
        shown |= modes | {"gpu_clock_locked": True}
    return shown


def during(board: SimulatedBoard, seconds: float, cores: int, start_c: float, slowed: float) -> Value:
    """Return the fields of `DeviceMonitor.stop` after a timing.

    Args:
        board: The kind of board.
        seconds: Length of the timing.
        cores: Number of busy cores.
        start_c: Temperature at its beginning, in °C.
        slowed: Factor by which heat prolonged all runs; 1 for none.
    """
    hot = slowed > 1
    shown: Value = {
        "samples": max(2, int(10 * seconds)),
        "seconds": round(seconds, 3),
        "cpu_busy": cores / board.cores,
        "memory_available_mb_start": board.free_mb,
        "memory_available_mb_low": board.free_mb,
        "temperature_c_start": start_c,
        "temperature_c_max": HOT_C if hot else start_c + 2,
    }
    for name, mhz in (("cpu", board.cpu_mhz), ("gpu", board.gpu_mhz if board.jetson else 0)):
        if mhz:
            low = int(mhz / slowed) if (name == "gpu") == board.jetson else mhz
            shown |= {f"{name}_mhz_min": low, f"{name}_mhz_max": mhz, f"{name}_mhz_limit": mhz}
    if board.machine == "x86_64":
        shown["throttle_count"] = 3 if hot else 0
    if board.raspberry:
        shown["throttled_bits"] = "40004" if hot else "0"  # throttled now, and since the last reading
    if board.watts:
        shown |= {"watts_mean": board.watts, "watts_max": board.watts}
    return shown
