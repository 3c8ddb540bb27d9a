"""Print a space, optionally restricted to what a device supports, with its size: `python -m spaces.show`."""

from __future__ import annotations

import argparse
import sys

from spaces.family_files import is_file, label
from spaces.space import Space, SpaceError, fill_families, load, presets

PROG = "python -m spaces.show"
DESCRIPTION = "Show a space with its size, as defined or as a device restricts it."
CLASSES = 10  # number of classes with which the networks of user files are checked


def parser(prog: str = PROG) -> argparse.ArgumentParser:
    """Build the argument parser.

    Args:
        prog: Name of the program in the usage line.
    """
    p = argparse.ArgumentParser(prog=prog, description=DESCRIPTION)
    p.add_argument(
        "--space", metavar="NAME", help=f"Preset ({', '.join(presets())}) or TOML file (default: all presets)"
    )
    p.add_argument(
        "--device", metavar="NAME", help="Device that restricts the space to what it supports (default: none)"
    )
    return p


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command.

    Args:
        argv: Arguments; those of the process by default.
        prog: Name of the program in the usage line.

    Returns:
        Exit code: 0, 2 for an invalid argument, 4 for a device failure.
    """
    args = parser(prog).parse_args(argv)
    from rich.console import Console

    from remote.errors import DeviceConfigError, DeviceError

    console = Console()
    try:
        for name in [args.space] if args.space else presets():
            space = load(name)
            if args.space:
                space = _cut_to_device(space)
            known_by: dict[str, str] = {}
            if args.device:
                space, known_by = _cut(space, args.device)
            console.print(table(space))
            for precision, how in known_by.items():
                console.print(f"{precision}: {how}", markup=False, highlight=False)
    except (SpaceError, DeviceConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DeviceError as error:
        print(f"device: {error}", file=sys.stderr)
        return 4
    return 0


def table(space: Space) -> object:
    """Return a space as a table that rich prints."""
    from rich.table import Table
    from rich.text import Text  # Text: names from a TOML file must not be read as markup

    title = Text(f"{space.name}: {space.title}", style="table.title")
    drawn = Table(title=title, caption=f"{space.size():,} candidates", title_justify="left")
    drawn.add_column("axis")
    drawn.add_column("values")
    for family, names in space.variants.items():
        drawn.add_row(Text(f"family {label(family)}"), Text(", ".join(names)))
    for model in space.models:
        drawn.add_row("fixed model", Text(model))
    for axis, values in space.axes.items():
        told = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        drawn.add_row(Text(axis), Text(told))
    for family, own in space.own_axes.items():
        for axis, values in own.items():
            drawn.add_row(Text(f"{axis} of {label(family)}"), Text(", ".join(str(value) for value in values)))
    for line in space.left_out:
        drawn.add_row("left out", Text(line))
    return drawn


def _cut_to_device(space: Space) -> Space:
    """Return the space with the networks of the user's family files; loading torch takes seconds.

    Raises SpaceError for an unknown network and for an unusable file.
    """
    from spaces.family_checks import judge_family
    from spaces.network import check_names

    own = {
        family: judge_family(family, names, [int(px) for px in space.values(family, "image_px")], CLASSES)
        for family, names in space.variants.items()
        if is_file(family)
    }
    space = fill_families(space, own)
    check_names(space.name, space.variants)
    return space


def _cut(space: Space, device: str) -> tuple[Space, dict[str, str]]:
    """Return the space that a device supports, and by precision the evidence that the device runs it."""
    # As an entry point, like search/run.py, this module may import packages that `spaces` must not import.
    from evaluators.device_probes import DeviceProbes, default_folder
    from evaluators.device_space import cut_to
    from remote.connect import connect
    from remote.link.retrying_session import RetryingSession, RetryPolicy

    session, settled, _ = connect(device)
    with session:
        patient = RetryingSession(session, RetryPolicy(patience_s=30.0))
        probes = DeviceProbes(patient, session.facts, default_folder(), settled.workspace_mb or 256)
        left, able = cut_to(space, session.facts, settled.runtime or "", probes)
    return left, {precision: how for precision, how in able.basis.items() if precision in able.precisions}


if __name__ == "__main__":
    sys.exit(main())
