"""Run `python -m remote.devices`: list, add and show the boards that can be named with --device."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from remote.device import Capabilities, Device, Facts, Profile
from remote.errors import DeviceConfigError, DeviceError
from remote.exit_codes import DEVICE, INTERRUPTED, OK, USER
from remote.inventory.device_files import DeviceTable, check_name, device_files, entries, format_path, to_device
from remote.inventory.register import add
from remote.inventory.resolve import find_profiles, load_device, profiles, settle, with_python
from remote.inventory.setup_commands import undo_left

if TYPE_CHECKING:
    from remote.link.session import Session


PROG = "python -m remote.devices"
DESCRIPTION = "List, add and show the boards that --device can name."

EPILOG = """\
A board needs an ssh server, Python 3.6 or newer and a runtime; edgefront installs nothing on it. A host that answers to
`ssh nano` works as `--device nano` without an entry. An entry gives it a short name, a runtime, or commands that lock
its clocks.

examples:
  python -m remote.devices list
  python -m remote.devices add nano --host me@10.0.0.5 --check
  python -m remote.devices add pi --profile rpi5 --python edgefront/bin/python
  python -m remote.devices add gpu --here --profile x86-cuda
  python -m remote.devices show nano --connect

The first file that names a device applies: ./devices.toml, the user's (~/.config/edgefront/devices.toml), the shipped.

exit codes:
  0 done    2 unknown device or invalid entry    4 the device can't be reached    130 interrupted
"""


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG.replace(PROG, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = p.add_subparsers(dest="verb", required=True, metavar="list|add|show")
    verbs.add_parser("list", help="List every entered device and every kind of board, with its file")
    new = verbs.add_parser(
        "add", help="Enter a device", epilog="Settings that are left out are detected on the device."
    )
    new.add_argument("name", metavar="NAME", help="Name for --device")
    where = new.add_mutually_exclusive_group()
    where.add_argument("--host", metavar="H", help="NAME, USER@NAME or an address, as for ssh (default: the name)")
    where.add_argument("--here", action="store_true", help="The device is this machine; no ssh")
    new.add_argument("--profile", metavar="P", help="Kind of board; `list` shows them (default: the detected one)")
    new.add_argument("--python", metavar="P", help="Interpreter on the board (default: the profile's, else python3)")
    new.add_argument(
        "--runtime",
        metavar="R",
        help="Runtime, such as onnxruntime:cuda (default: the first installed one of the profile)",
    )
    new.add_argument("--ssh-config", metavar="F", help="File for ssh -F (default: ~/.ssh/config)")
    new.add_argument(
        "--workspace-mb",
        metavar="MB",
        type=int,
        help="Memory limit of an engine build on the board, in MB (default: the profile's)",
    )
    new.add_argument(
        "--prepare", action="store_true", help="Enter the profile's commands that lock the clocks; they need `sudo -n`"
    )
    new.add_argument("--check", action="store_true", help="Connect first, and enter the device only if it can be used")
    new.add_argument("--file", metavar="F", type=Path, help=f"The devices.toml to write (default {device_files()[1]})")
    new.add_argument("--replace", action="store_true", help="Replace an entry of the same name")
    one = verbs.add_parser("show", help="Show what a name resolves to")
    one.add_argument("name", metavar="NAME", help="Entered device, sim:BOARD, or host of ssh")
    one.add_argument("--connect", action="store_true", help="Connect, and show the facts that the device reports")
    return p


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments; None for those of the process.
        prog: The program's name in help texts.
    """
    args = parser(prog).parse_args(argv)
    try:
        return {"list": _list, "add": _add, "show": _show}[args.verb](args)
    except DeviceConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER
    except DeviceError as error:
        print(f"device: {error}", file=sys.stderr)
        return DEVICE
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def _list(args: argparse.Namespace) -> int:
    """Print both tables. A wrong entry is marked as such, and makes the exit code that of a user's error."""
    from remote.inventory.tables import all_devices, all_profiles, show

    devices, wrong = all_devices()
    show(devices, all_profiles())
    return USER if wrong else OK


def _add(args: argparse.Namespace) -> int:
    """Check the entry, against the device too if asked, and write it."""
    from remote.inventory.tables import board_of

    file = args.file or device_files()[1]
    table = _table_of(args)
    device = with_python(to_device(DeviceTable(check_name(args.name), file, table)))
    known = find_profiles(device.profile, profiles()) if device.profile else ()
    if args.check:
        facts = _ask(device)
        settled, found = settle(device, facts)
        known = (found,) if found else ()
        print(f"{args.name} is {board_of(facts, settled.profile)}; {settled.runtime} will be used")
    if args.prepare:
        table |= _commands(args.name, known)
    written = add(args.name, table, file, replace=args.replace)
    print(f"entered [{args.name}] in {format_path(written)}")
    _warn(args.name, written)
    return OK


def _warn(name: str, written: Path) -> None:
    """Print a note where the entry will not be found, or another file has an entry of the same name before it."""
    if written.resolve() not in {file.resolve() for file in device_files()}:
        print(f"note: this file is not read; {' and '.join(map(format_path, device_files()[:2]))} are", file=sys.stderr)
    elif (first := entries()[0][name].file).resolve() != written.resolve():
        print(f"note: {format_path(first)} is read before it and has [{name}] too", file=sys.stderr)


def _table_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the table that the options of `add` describe."""
    config = args.ssh_config and str(Path(args.ssh_config).expanduser().absolute())
    if config and not Path(config).is_file():
        raise DeviceConfigError(f"--ssh-config {args.ssh_config}: no such file")
    given = {
        "host": None if args.here else args.host or args.name,
        "profile": args.profile,
        "python": args.python,
        "runtime": args.runtime,
        "ssh_config": config,
        "workspace_mb": args.workspace_mb,
    }
    return {key: value for key, value in given.items() if value is not None}


def _commands(name: str, known: tuple[Profile, ...]) -> dict[str, list[str]]:
    """Return the profile's commands in the form of an entry.

    Raises:
        DeviceConfigError: The profile has none, or is not known.
    """
    found = {(kind.prepare, kind.restore) for kind in known}
    if len(found) != 1:
        raise DeviceConfigError(
            f"--prepare: what board {name} is must be known; name its profile exactly, or add --check"
        )
    prepare, restore = found.pop()
    if not prepare:
        raise DeviceConfigError(
            f"--prepare: profile {known[0].name} has no such commands; write your own into the entry"
        )
    return {"prepare": list(prepare), "restore": list(restore)}


def _show(args: argparse.Namespace) -> int:
    from remote.inventory.tables import one_device, show

    device = load_device(args.name)
    if not args.connect:
        show(one_device(args.name))
        return OK
    facts, able = _ask_all(device)
    show(one_device(args.name, facts, settle(device, facts)[0], able))
    return OK


def _ask_all(device: Device) -> tuple[Facts, Capabilities | None]:
    """Return the facts that the device reports, and the capabilities that probes of its runtime confirmed."""
    from evaluators.device_probes import DeviceProbes, default_folder
    from evaluators.device_space import able_to
    from remote.link.retrying_session import RetryingSession, RetryPolicy

    with _open_session(device) as session:
        settled, _ = settle(device, session.facts)
        patient = RetryingSession(session, RetryPolicy(patience_s=30.0))
        probes = DeviceProbes(patient, session.facts, default_folder(), settled.workspace_mb or 256)
        return session.facts, able_to(session.facts, [settled.runtime or ""], ("fp32", "fp16", "int8"), probes)


@contextlib.contextmanager
def _open_session(device: Device) -> Iterator[Session]:
    """Context manager that yields an open session with a device, after undoing what a killed run left prepared."""
    from remote.connect import open_session

    with open_session(device) as session:
        undo_left(device, session.facts)
        yield session


def _ask(device: Device) -> Facts:
    """Return the facts that the device reports."""
    with _open_session(device) as session:
        return session.facts


if __name__ == "__main__":
    sys.exit(main())
