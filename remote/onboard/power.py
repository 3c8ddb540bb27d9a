# mypy: ignore-errors
"""Read the watts the device draws, where no special rights are needed: the INA3221 of Jetsons, RAPL of PCs.

Sent to the device as text: Python 3.6, standard library only.
"""

import os
import re
import time

TOTALS = ("POM_5V_IN", "VDD_IN")  # rails of the whole module; on boards without one all rails are summed up
WATTS_MAX = 2000.0


class Ina3221(object):
    """Read rails measured by the board's own chip, at the moment of the call."""

    def __init__(self, rails):
        self.kind = "INA3221 " + "+".join(sorted(rails))
        self.rails = [part("sensors").gauges(files) for files in rails.values()]
        self.whole = [len(rail) for rail in self.rails] == [len(files) for files in rails.values()]

    def watts(self):
        """Return the rails' present sum; None if one of them can't be read."""
        if not self.whole:
            return None
        total = 0.0
        for rail in self.rails:
            values = [gauge.value() for gauge in rail]
            if None in values:
                return None
            total += values[0] / 1e3 if len(values) == 1 else values[0] * values[1] / 1e6
        return total if 0 <= total < WATTS_MAX else None

    def close(self):
        for rail in self.rails:
            for gauge in rail:
                gauge.close()


def find_ina3221(root="/"):
    """Return the chip's total rail, or all rails where none is the total; None where there is no such chip.

    JetPack 4 shows mW (iio), JetPack 5 and later mV and mA (hwmon).
    """
    sensors, rails = part("sensors"), {}
    for path in sensors.find("/sys/bus/i2c/devices/*/name", root):
        if "ina3221" not in sensors.read(path):
            continue
        chip = os.path.dirname(path)
        for label in sensors.find("/iio:device*/rail_name_*", chip):
            files = [os.path.dirname(label) + "/in_power%s_input" % label.rsplit("_", 1)[1]]
            rails[sensors.read(label)] = files
        for label in sensors.find("/hwmon/hwmon*/in[0-9]*_label", chip):
            number = re.sub(r"\D", "", os.path.basename(label))
            if number != "7":  # number 7 is the sum of the shunts, in another unit
                names = ("in%s_input" % number, "curr%s_input" % number)
                rails[sensors.read(label)] = [os.path.join(os.path.dirname(label), name) for name in names]
    rails = dict((name, files) for name, files in rails.items() if name and "NC" not in name.split())
    total = [name for name in TOTALS if name in rails]
    rails = dict((name, rails[name]) for name in total[:1] or rails)
    if not rails or not all(os.access(path, os.R_OK) for files in rails.values() for path in files):
        return None
    return Ina3221(rails)


class Rapl(object):
    """Compute the mean power of the processor's packages since the last call."""

    kind = "RAPL packages"

    def __init__(self, folders):
        sensors = part("sensors")
        self.counters = sensors.gauges([folder + "/energy_uj" for folder in folders])
        # A counter starts again from 0 beyond its range.
        self.ranges = [sensors.integer(folder + "/max_energy_range_uj") or 0 for folder in folders]
        self.before = None

    def watts(self):
        """Return the mean watts; None the first time, and whenever a counter can't be read."""
        now = time.monotonic(), [counter.value() for counter in self.counters]
        before, self.before = self.before, now
        if before is None or None in before[1] + now[1] or now[0] <= before[0]:
            return None
        drawn_uj = 0
        for old, new, span in zip(before[1], now[1], self.ranges):
            drawn_uj += new - old if new >= old else new - old + span
        watts = drawn_uj / (now[0] - before[0]) / 1e6
        return watts if 0 <= watts < WATTS_MAX else None

    def close(self):
        for counter in self.counters:
            counter.close()


def rapl_folders(root="/"):
    """Return the folders of the processor's packages; their parts are counted in them."""
    sensors = part("sensors")
    names = sensors.find("/sys/class/powercap/intel-rapl:*/name", root)
    return [os.path.dirname(path) for path in names if sensors.read(path).startswith("package")]


def find_rapl(root="/"):
    """Return the packages' counters; None where there are none or, since Linux 5.10, only root may read them."""
    folders = rapl_folders(root)
    if not folders or not all(os.access(folder + "/energy_uj", os.R_OK) for folder in folders):
        return None
    return Rapl(folders)


def power(root="/"):
    """Return the power sensor, which has `kind`, `watts()` and `close()`; None where there is none."""
    found = find_ina3221(root)
    if found and found.watts() is None:
        found.close()
        found = None
    return found or find_rapl(root)


def energy(samples, from_s, to_s, runs, idle_w=0.0):
    """Return the millijoules of one run above the idle device's power; None from fewer than 3 samples.

    `samples` are (monotonic seconds, watts); between `from_s` and `to_s` the device did nothing but `runs` runs.
    """
    inside = [(at_s, watts) for at_s, watts in samples if from_s <= at_s <= to_s]
    if len(inside) < 3 or runs < 1 or inside[-1][0] <= inside[0][0]:
        return None
    steps = zip(inside, inside[1:])
    joules = sum((one[1] + two[1]) / 2.0 * (two[0] - one[0]) for one, two in steps)
    mean_w = joules / (inside[-1][0] - inside[0][0])
    return max(0.0, mean_w - idle_w) * (to_s - from_s) / runs * 1000.0


def idle_watts(source, seconds=1.0, hz=20.0):
    """Return the median power of the idle device; None if it has no readings."""
    seen, end_s = [], time.monotonic() + seconds
    while time.monotonic() < end_s:
        watts = source.watts()
        if watts is not None:
            seen.append(watts)
        time.sleep(1.0 / hz)
    return sorted(seen)[len(seen) // 2] if seen else None
