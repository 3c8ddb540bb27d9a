"""python -m remote.doctor: is a device fit to be measured, and if not, which command mends it?"""

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
from remote.device import Device, Facts, Profile
from remote.errors import DeviceConfigError, DeviceError
from remote.inventory.resolve import detect, load_device, settle
from remote.inventory.setup_commands import undo_left
from remote.link.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

FIT, BUG, USER, UNFIT, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
PINGS = 5
STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}

EPILOG = """\
what is looked at:
  link, board and profile, Python, runtimes with their opset ceiling, disk, memory, swap, power mode, clocks, governor,
  temperature, throttling, load and other users, whose turn it is.
  In every runtime a small model is run: its answer is compared with this machine's, the reference model of a search is
  timed, and a precision is named where layers of a probe ran in it. A runtime that is called ok has run a model.
  Nothing is changed on the device but for these files in its cache, and nothing needs rights there: the commands shown
  are yours to run.

verdicts:
  ok      fine, or not shown by this device
  warn    timings are possible; they may be slower or noisier than need be
  bad     timings would not be worth anything

examples:
  python -m remote.doctor local
  python -m remote.doctor nano
  python -m remote.doctor nano --json | jq '.checks[] | select(.verdict != "ok")'

exit codes:
  0 fit to be measured              3 not fit: a row is bad
  2 unknown device or bad argument  4 it can't be reached
  1 a bug of ours                   130 interrupted
"""


class DoctorSession(Protocol):
    """The part of a session that the doctor needs; what tries the runtimes needs a whole one."""

    facts: Facts

    def survey(self) -> dict[str, Any]: ...

    def ping(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Report:
    """All that was found about one device."""

    device: str
    profile: str | None
    simulated: bool
    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        return fit(self.checks)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m remote.doctor",
        description="Is a device fit to be measured, and if not, which command mends it?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("name", metavar="NAME", help="a device of devices.toml, or a host that ssh knows")
    p.add_argument("--json", action="store_true", help="print the checks for a script: device, fit, checks")
    return p


Tries = Callable[
    [Any, Device, str], Mapping[str, RuntimeTrial]
]  # session, settled device, who has it now -> by runtime


def try_runtimes(session: Any, device: Device, holder: str) -> Mapping[str, RuntimeTrial]:
    """Run a small model in each runtime of a connected device; see `evaluators.runtime_checks`."""
    from evaluators.runtime_checks import try_runtimes  # onnx, which --help has no use for

    return try_runtimes(session, device, holder)


def examine(
    device: Device, connect: Callable[[Device], DoctorSession] = Session.open, tries: Tries = try_runtimes
) -> Report:
    """What was found about a device. Raises DeviceError where it can't be reached."""
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
    """(what kind of board it is, what is wrong with the entry or "", the entry with what was left open filled in)."""
    runtimes = facts.runtimes or {"none": ""}  # settling refuses a device without any, which is a check of its own here
    runtime = device.runtime if facts.runtimes else None
    try:
        settled, profile = settle(replace(device, runtime=runtime), replace(facts, runtimes=runtimes))
        return profile, "", settled
    except DeviceConfigError as error:
        return detect(facts), str(error), device


def board(facts: Facts, profile: Profile | None, mismatch: str) -> Check:
    """What the device is."""
    if mismatch:
        return Check("board", "bad", mismatch, "correct its entry in devices.toml")
    kind = f"profile {profile.name}" if profile else "no profile fits: it is used as it is"
    said = [facts.board or facts.cpu, facts.release, f"{facts.cores} cores", kind]
    return Check("board", "ok", ", ".join(part for part in said if part))


def judge(
    facts: Facts,
    survey: dict[str, Any],
    profile: Profile | None,
    tried: Mapping[str, RuntimeTrial] | None = None,
    used: str | None = None,
) -> list[Check]:
    """Every check that needs no connection. Nothing in the survey is believed that makes no sense."""
    shown = UntrustedReply(survey)
    runs = software(facts, shown, profile, tried, used)
    return [*runs, *(check for look in (room, pace, company) for check in look(facts, shown, profile))]


def table(report: Report) -> RenderableType:
    """A renderable for rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    simulated = ", simulated" if report.simulated else ""
    title = Text(f"{report.device}{simulated}")  # as every cell: text, and never markup
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "what", "found"):
        drawn.add_column(name, overflow="fold")
    for check in report.checks:  # Text takes words literally: nothing a device says is markup
        found = Text(check.found)
        if check.mend:
            found.append(f"\n-> {check.mend}", style="cyan")
        drawn.add_row(Text(check.verdict, style=STYLES[check.verdict]), Text(check.name), found)
    bad = [check.name for check in report.checks if check.verdict == "bad"]
    verdict = "fit to be measured" if report.fit else f"not fit to be measured: {', '.join(bad)}"
    return Group(drawn, Text(""), Text(verdict, style=STYLES["ok" if report.fit else "bad"]))


def main(
    argv: list[str] | None = None,
    connect: Callable[[Device], DoctorSession] = Session.open,
    tries: Tries = try_runtimes,
) -> int:
    """The exit code of one command."""
    args = parser().parse_args(argv)
    try:
        report = examine(load_device(args.name), connect, tries)
    except DeviceConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER
    except DeviceError as error:
        print(f"device: {error}", file=sys.stderr)
        return UNREACHABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if args.json:
        print(json.dumps(asdict(report) | {"fit": report.fit}, indent=2))
    else:
        from rich.console import Console

        Console().print(table(report))
    return FIT if report.fit else UNFIT


if __name__ == "__main__":
    sys.exit(main())
