# mypy: ignore-errors
"""Sample the device's sensors in a thread while something is timed on it.

Sent to the device as text: Python 3.6, standard library only. It runs in the agent, not in the process that is
timed, keeps its files open, and reads slow quantities (heat, counters) only twice a second.
"""

import collections
import threading
import time

SLOW_S = 0.5
ROWS_MAX = 36000  # an hour at 10 Hz; older rows are dropped
POLICIES_MAX = 16  # limit for machines of many cores, since reading a core's clock costs an interrupt there

Fast = collections.namedtuple("Fast", "at_s cpu_mhz gpu_mhz available_mb")
Slow = collections.namedtuple("Slow", "at_s cpu_limit gpu_limit hottest_c cooling throttles bits overcurrents ticks")


class DeviceMonitor(object):
    """Sample between start() and stop(), which returns a summary. `watts` are (monotonic s, W) pairs of `power`."""

    def __init__(self, root="/", hz=10.0, power=None):
        self.period_s = 1.0 / hz
        self.power = power
        self.watts = collections.deque(maxlen=ROWS_MAX)
        self.fast = collections.deque(maxlen=ROWS_MAX)
        self.slow = collections.deque(maxlen=ROWS_MAX)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.open(part("sensors"), root)

    def open(self, sensors, root):
        """Open every file once."""
        self.sensors = sensors
        folders = sensors.find(sensors.CPU + "cpufreq/policy[0-9]*", root)
        folders = (folders or sensors.find(sensors.CPU + "cpu[0-9]*/cpufreq", root))[:POLICIES_MAX]
        gpu = sensors.gpu_folder(root)
        bits = sensors.throttled_files(root)[:1]
        self.bits_are_alarm = bool(bits and bits[0][0])
        paths = {
            "cpu": [folder + "/scaling_cur_freq" for folder in folders],
            "cpu_limit": [folder + "/scaling_max_freq" for folder in folders if sensors.clock_holds(root)],
            "gpu": [gpu + "/cur_freq"] if gpu else [],
            "gpu_limit": [gpu + "/max_freq"] if gpu else [],
            "heat": [path for _, path in sensors.thermometers(root)],
            "cooling": [path for _, path in sensors.brakes(root)],
            "throttles": sensors.throttle_counters(root),
            "bits": [path for _, path in bits],
            "overcurrents": [path for _, path in sensors.overcurrent_counters(root)],
            "memory": sensors.find("/proc/meminfo", root),
            "stat": sensors.find("/proc/stat", root),
        }
        self.gauges = dict((name, sensors.gauges(found)) for name, found in paths.items())

    def start(self):
        """Begin to sample. The first sample is taken before it returns."""
        self.sample_slow()
        self.sample_fast()
        self.thread.start()

    def run(self):
        next_s = time.monotonic() + SLOW_S
        while not self.over.wait(self.period_s):
            self.sample_fast()
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + SLOW_S
                self.sample_slow()

    def values(self, name):
        """Return the present values of the files of that name; unreadable ones are left out."""
        shown = [gauge.value() for gauge in self.gauges[name]]
        return [value for value in shown if value is not None]

    def sample_fast(self):
        if self.power:
            watts = self.power.watts()
            if watts is not None:
                self.watts.append((time.monotonic(), watts))
        cpu, gpu, memory = self.values("cpu"), self.values("gpu"), self.gauges["memory"]
        available = self.sensors.parse_memory_mb(memory[0].text(4096), "MemAvailable") if memory else 0
        # The fastest core stands for the busy one: idle cores sleep at a low clock of their own.
        row = Fast(time.monotonic(), max(cpu) // 1000 if cpu else None, gpu[0] // 1000000 if gpu else None, available)
        self.fast.append(row)

    def sample_slow(self):
        cpu, gpu = self.values("cpu_limit"), self.values("gpu_limit")
        heat = [self.sensors.celsius(value) for value in self.values("heat")]
        heat = [value for value in heat if value is not None]
        bits, stat = self.gauges["bits"], self.gauges["stat"]
        shown = self.sensors.parse_throttled(self.bits_are_alarm, bits[0].text()) if bits else ""
        row = Slow(
            time.monotonic(),
            max(cpu) // 1000 if cpu else None,
            gpu[0] // 1000000 if gpu else None,
            max(heat) if heat else None,
            max([0] + self.values("cooling")) if self.gauges["cooling"] else None,
            sum(self.values("throttles")) if self.gauges["throttles"] else None,
            int(shown, 16) if shown else None,
            sum(self.values("overcurrents")) if self.gauges["overcurrents"] else None,
            self.sensors.parse_ticks(stat[0].text(512)) if stat else None,
        )
        self.slow.append(row)

    def stop(self, from_s=None, to_s=None):
        """Return a summary of all samples or, given monotonic seconds, of those between them. May be called again."""
        if not self.over.is_set():
            self.over.set()
            if self.thread.is_alive():
                self.thread.join()
            self.sample_fast()
            self.sample_slow()
            for gauge in [gauge for found in self.gauges.values() for gauge in found]:
                gauge.close()
        return summary(
            between(self.fast, from_s, to_s), between(self.slow, from_s, to_s, 1), between(self.watts, from_s, to_s)
        )


def between(rows, from_s, to_s, margin=0):
    """Return the rows of that time and, with a margin of 1, the one before it and the one after it."""
    rows = list(rows)
    first = next((i for i, row in enumerate(rows) if from_s is None or row[0] >= from_s), len(rows))
    last = next((i for i, row in enumerate(rows) if to_s is not None and row[0] > to_s), len(rows))
    return rows[max(0, first - margin) : last + margin]


def column(rows, index):
    """Return one column of the rows, without missing values."""
    return [row[index] for row in rows if row[index] is not None]


def summary(fast, slow, watts):
    """Return the fields of `during`; readings the device does not show are left out.

    The limits are the highest clocks that were allowed at any time: heat lowers the CPU's while it lasts. A CPU
    with turbo has none: heat and the other cores decide how far it exceeds its steady clock.
    """
    found = {"samples": len(fast), "seconds": round(fast[-1][0] - fast[0][0], 3) if fast else 0.0}
    for name, place, limit in (("cpu_mhz", 1, 1), ("gpu_mhz", 2, 2)):
        seen, allowed = column(fast, place), column(slow, limit)
        found.update(extremes(name, seen))
        if allowed:
            found[name + "_limit"] = max(allowed)
    available, heat, cooling = column(fast, 3), column(slow, 3), column(slow, 4)
    if any(available):
        found.update(memory_available_mb_start=available[0], memory_available_mb_low=min(available))
    if heat:
        found.update(temperature_c_start=heat[0], temperature_c_max=max(heat))
    if cooling:
        found.update(cooling_start=cooling[0], cooling_max=max(cooling))
    for name, place in (("throttle_count", 5), ("oc_events", 7)):
        counts = column(slow, place)
        if counts:
            found[name] = counts[-1] - counts[0]
    bits = column(slow, 6)
    if bits:
        found["throttled_bits"] = new_bits(bits)
    found.update(busy_share(column(slow, 8)))
    drawn = column(watts, 1)
    if drawn:
        found.update(watts_mean=sum(drawn) / len(drawn), watts_max=max(drawn))
    return found


def extremes(name, seen):
    return {name + "_min": min(seen), name + "_max": max(seen)} if seen else {}


def new_bits(bits):
    """Return the bits that were on at any time (0 to 15), and of those for past events (16 to 31) the new ones."""
    seen = 0
    for value in bits:
        seen |= value
    return seen & 0xFFFF | seen & ~bits[0] & 0xFFFF0000


def busy_share(ticks):
    """Return the share of all cores' time that was not idle."""
    if len(ticks) < 2 or ticks[-1][2] <= ticks[0][2]:
        return {}
    return {"cpu_busy": max(0.0, min(1.0, (ticks[-1][0] - ticks[0][0]) / float(ticks[-1][2] - ticks[0][2])))}
