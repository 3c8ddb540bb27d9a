"""Run `python -m remote.doctor`: check whether a device is fit to be measured, and name the command that mends it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from remote.checks.capacity import room
from remote.checks.check import Check, RuntimeTrial, UntrustedReply, fit
from remote.checks.clocks import pace
from remote.checks.competing_load import company
from remote.checks.software import software
from remote.connect import open_session
from remote.device import Device, Facts, Profile
from remote.errors import DeviceConfigError, DeviceError
from remote.exit_codes import DEVICE, INTERRUPTED, NOTHING_FITS, OK, USER
from remote.inventory.resolve import detect, load_device, settle
from remote.inventory.setup_commands import undo_left

if TYPE_CHECKING:
    from rich.console import RenderableType

PROG = "python -m remote.doctor"
PINGS = 5
STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}

EPILOG = """\
checks:
  link, board and profile, Python, runtimes with their highest opset, disk, memory, swap, power mode, clocks, governor,
  temperature, throttling, load and other users, holder of the lock.
  Every runtime runs a small model, and its output is compared with this machine's. The reference model of a search is
  timed, and the precisions are listed in which layers of a probe ran. A runtime with the verdict ok has run a model.
  Nothing is changed on the device except these files in its cache, and no check needs special rights there. The doctor
  shows commands that fix problems, and runs none of them.

verdicts:
  ok      good, or not reported by this device
  warn    timings are possible, but may be slower or noisier than necessary
  bad     timings would be useless

examples:
  python -m remote.doctor local
  python -m remote.doctor nano
  python -m remote.doctor nano --json | jq '.checks[] | select(.verdict != "ok")'

exit codes:
  0 fit to be measured                  3 not fit: a verdict is bad
  2 unknown device or invalid argument  4 the device can't be reached
  1 a bug of edgefront                  130 interrupted
"""


class DoctorSession(Protocol):
    """Describe the part of a session that the doctor needs; trying the runtimes needs a whole session."""

    facts: Facts

    def survey(self) -> dict[str, object]:
        """Return everything that the doctor checks."""
        ...

    def ping(self) -> None:
        """Make one round trip."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


@dataclass(frozen=True)
class Report:
    """Hold all findings about one device.

    Attributes:
        device: Name of the device.
        profile: Name of its profile; None where no profile fits.
        simulated: Whether it is a simulated board.
        checks: The checks, in the order of the table.
    """

    device: str
    profile: str | None
    simulated: bool
    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        """Return whether the device is fit to be measured."""
        return fit(self.checks)


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description="Check whether a device is fit to be measured, and show the commands that fix problems.",
        epilog=EPILOG.replace(PROG, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("name", metavar="NAME", help="Device of devices.toml, host of ssh, or simulated board")
    p.add_argument("--json", action="store_true", help="Print JSON with the keys device, fit and checks")
    return p


Tries = Callable[
    [Any, Device, str], Mapping[str, RuntimeTrial]
]  # (session, settled device, holder of the lock) -> trial by runtime


def try_runtimes(session: Any, device: Device, holder: str) -> Mapping[str, RuntimeTrial]:
    """Run a small model in each runtime of a connected device; see `evaluators.runtime_checks`.

    Args:
        session: An open session.
        device: The settled entry.
        holder: The holder of the device's lock; empty where it is free.

    Returns:
        Runtime -> the outcome of its trial.
    """
    from evaluators.runtime_checks import try_runtimes  # imports onnx, which --help does not need

    return try_runtimes(session, device, holder)


def examine(
    device: Device, connect: Callable[[Device], DoctorSession] = open_session, tries: Tries = try_runtimes
) -> Report:
    """Connect to a device and return all findings about it.

    Args:
        device: An entry, or this machine, or a simulated board.
        connect: Opens the session.
        tries: Runs a small model in each runtime.

    Raises:
        DeviceError: The device can't be reached.
    """
    began_s = time.monotonic()
    patient = connect(device)
    try:
        connect_s = time.monotonic() - began_s
        pings_ms = [_ping_ms(patient) for _ in range(PINGS)]
        survey, facts = patient.survey(), patient.facts
        profile, mismatch, settled = profile_of(device, facts)
        undo_left(settled, facts)
        tried = tries(patient, settled, UntrustedReply(survey).text("holder")) if facts.runtimes else {}
    finally:
        patient.close()
    link = Check("link", "ok", f"connected in {connect_s:.2f} s, round trip {median(pings_ms):.1f} ms")
    checks = [link, board(facts, profile, mismatch), *judge(facts, survey, profile, tried, settled.runtime)]
    return Report(device.name, profile.name if profile else None, facts.simulated, tuple(checks))


def _ping_ms(patient: DoctorSession) -> float:
    began_s = time.monotonic()
    patient.ping()
    return (time.monotonic() - began_s) * 1e3


def profile_of(device: Device, facts: Facts) -> tuple[Profile | None, str, Device]:
    """Return the device's profile, the fault of its entry, and the entry with open fields filled in.

    Args:
        device: The entry.
        facts: Facts that the device reported.

    Returns:
        The profile or None, one line about a wrong entry or "", and the settled device.
    """
    runtimes = facts.runtimes or {"none": ""}  # settle refuses a device without any, which is a check of its own here
    runtime = device.runtime if facts.runtimes else None
    try:
        settled, profile = settle(replace(device, runtime=runtime), replace(facts, runtimes=runtimes))
        return profile, "", settled
    except DeviceConfigError as error:
        return detect(facts), str(error), device


def board(facts: Facts, profile: Profile | None, mismatch: str) -> Check:
    """Return the check that names the board.

    Args:
        facts: Facts that the device reported.
        profile: Its profile, or None.
        mismatch: One line about a wrong entry; empty where it is right.
    """
    if mismatch:
        return Check("board", "bad", mismatch, "correct its entry in devices.toml")
    kind = f"profile {profile.name}" if profile else "no profile fits: the device is used without one"
    said = [facts.board or facts.cpu, facts.release, f"{facts.cores} cores", kind]
    return Check("board", "ok", ", ".join(part for part in said if part))


def judge(
    facts: Facts,
    survey: dict[str, object],
    profile: Profile | None,
    tried: Mapping[str, RuntimeTrial] | None = None,
    used: str | None = None,
) -> list[Check]:
    """Run every check that needs no connection. Implausible survey values are ignored.

    Args:
        facts: Facts that the device reported.
        survey: Its answer to `survey`.
        profile: Its profile, or None.
        tried: Runtime -> outcome of a small model in it.
        used: The runtime that a search would use.
    """
    shown = UntrustedReply(survey)
    runs = software(facts, shown, profile, tried, used)
    return [*runs, *(check for look in (room, pace, company) for check in look(facts, shown, profile))]


def table(report: Report) -> RenderableType:
    """Return a table of the report for rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    simulated = ", simulated" if report.simulated else ""
    title = Text(f"{report.device}{simulated}")  # text, never markup, as every cell
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "what", "found"):
        drawn.add_column(name, overflow="fold")
    for check in report.checks:  # Text is literal, so that no text from a device is read as markup
        found = Text(check.found)
        if check.mend:
            found.append(f"\n-> {check.mend}", style="cyan")
        drawn.add_row(Text(check.verdict, style=STYLES[check.verdict]), Text(check.name), found)
    bad = [check.name for check in report.checks if check.verdict == "bad"]
    verdict = "fit to be measured" if report.fit else f"not fit to be measured: {', '.join(bad)}"
    return Group(drawn, Text(""), Text(verdict, style=STYLES["ok" if report.fit else "bad"]))


def main(
    argv: list[str] | None = None,
    connect: Callable[[Device], DoctorSession] = open_session,
    tries: Tries = try_runtimes,
    prog: str = PROG,
) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments; None for those of the process.
        connect: Opens the session.
        tries: Runs a small model in each runtime.
        prog: The program's name in help texts.
    """
    args = parser(prog).parse_args(argv)
    try:
        report = examine(load_device(args.name), connect, tries)
    except DeviceConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER
    except DeviceError as error:
        print(f"device: {error}", file=sys.stderr)
        return DEVICE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if args.json:
        print(json.dumps(asdict(report) | {"fit": report.fit}, indent=2))
    else:
        from rich.console import Console

        Console().print(table(report))
    return OK if report.fit else NOTHING_FITS


if __name__ == "__main__":
    sys.exit(main())
