"""Check for competing load: CPU, GPU, desktop session, device lock."""

from __future__ import annotations

from collections.abc import Sequence

from remote.checks.capacity import HEADLESS
from remote.checks.check import NOT_SHOWN, Check, UntrustedReply
from remote.device import Facts, Profile

BUSY_CORES_MAX = 0.5  # busy cores above which every timing would be called disturbed
START_S = 60.0  # seconds that services, and a Jetson's own clock settings, take after the start


def company(facts: Facts, shown: UntrustedReply, profile: Profile | None) -> list[Check]:
    """Check load, users of the GPU, a desktop, the holder of the lock, the power sensor and the login.

    Args:
        facts: Facts that the device reported.
        shown: Its survey.
        profile: Its profile; not used here.
    """
    here = (_load(facts, shown), *_gpu_users(facts, shown), *_desktop(shown))
    return [*here, _turn(shown), _power(shown), *_login(shown)]


def _load(facts: Facts, shown: UntrustedReply) -> Check:
    busy, average = shown.number("busy_cores", 0, 1e5), shown.numbers("load_average", 0, 1e6)
    parts = [] if busy is None else [f"{busy:.1f} of {facts.cores} cores busy" + _who(shown)]
    parts += [f"load average {average[0]:.1f}"] if average else []
    if busy is not None and busy > BUSY_CORES_MAX:
        pids = [pid for row in shown.rows("busiest") if (pid := row.number("pid", 2, 1e9)) is not None]
        return Check("load", "bad", ", ".join(parts), _stop(pids) if pids else "top  # shows the processes")
    if average and average[0] > 0.5 * facts.cores:
        return Check("load", "warn", ", ".join(parts), "wait a minute until the load falls; top shows the processes")
    return Check("load", "ok", ", ".join(parts) or NOT_SHOWN)


def _who(shown: UntrustedReply) -> str:
    rows = [(row, row.number("cores", 0, 1e5)) for row in shown.rows("busiest")]
    told = [f"{row.text('name') or 'a process'}{_of(row)} {cores:.1f}" for row, cores in rows if cores is not None]
    return f" ({', '.join(told)})" if told else ""


def _gpu_users(facts: Facts, shown: UntrustedReply) -> list[Check]:
    drawing = set(shown.texts("desktop"))
    rows = [row for row in shown.rows("gpu_users") if row.text("name") not in drawing]
    users = {pid: row for row in rows if (pid := row.number("pid", 2, 1e9)) is not None}
    if users:
        told = ", ".join(f"{row.text('name') or 'a process'}{_of(row)} (pid {pid:.0f})" for pid, row in users.items())
        return [Check("gpu users", "bad", told, _stop(list(users)))]
    return [Check("gpu users", "ok", "none of this user's")] if facts.gpu else []


def _stop(pids: Sequence[float]) -> str:
    """Return advice about processes. They may be another user's work, so none is to be killed on our advice."""
    return f"wait until they have ended, or ask their owner to end them: pid {', '.join(f'{pid:.0f}' for pid in pids)}"


def _of(row: UntrustedReply) -> str:
    return f" of {user}" if (user := row.text("user")) else ""


def _desktop(shown: UntrustedReply) -> list[Check]:
    names = shown.texts("desktop")
    return [Check("desktop", "warn", f"running: {', '.join(names)}", HEADLESS)] if names else []


def _turn(shown: UntrustedReply) -> Check:
    holder = shown.text("holder")
    if holder:
        return Check("lock", "warn", f"in use by {holder}", "wait: one session at a time has the device")
    return Check("lock", "ok", "free")


def _power(shown: UntrustedReply) -> Check:
    sensor = shown.text("power_sensor")
    if sensor or not shown.flag("rapl_is_roots"):
        return Check("energy", "ok", sensor or NOT_SHOWN)
    mend = "optional: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj  # until the next start"
    return Check("energy", "ok", "RAPL is available, but only root may read it", mend)


def _login(shown: UntrustedReply) -> list[Check]:
    checks = []
    if shown.flag("is_root"):
        checks.append(Check("login", "warn", "root", "log in as an ordinary user: root is not needed"))
    uptime_s = shown.number("uptime_s")
    if uptime_s is not None and uptime_s < START_S:
        checks.append(Check("uptime", "warn", f"started {uptime_s:.0f} s ago", f"wait until it is {START_S:.0f} s"))
    return checks
