"""Format devices and profiles as tables for people.

No cell is read as markup, since a board's name is untrusted text.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from remote.device import Capabilities, Device, Facts, Profile, capabilities
from remote.errors import DeviceConfigError
from remote.files import home_folder
from remote.inventory.device_files import device_files, entries, format_path, to_device
from remote.inventory.resolve import find_profiles, load_device, profiles, with_python


def all_devices() -> tuple[Table, int]:
    """Return a table of every entered device and its file, and the number of wrong entries, which the table marks."""
    table = _table("devices", "name", "where", "profile", "python", "runtime", "from")
    wrong = 0
    for name, entry in sorted(entries()[0].items()):
        try:
            device = with_python(to_device(entry))
            cells = (_where(device), device.profile or "as reported", _python(device), device.runtime or "by profile")
        except DeviceConfigError as error:
            cells = (f"wrong: {error}", "", "", "")
            wrong += 1
        _add(table, name, *cells, _from(entry.file))
    return table, wrong


def all_profiles() -> Table:
    """Return a table of every kind of board and its file."""
    table = _table("profiles, in the order in which they are tried", "name", "also", "board", "prefers", "from")
    files = {name: _from(entry.file) for name, entry in entries()[1].items()}
    for kind in profiles():
        _add(table, kind.name, ", ".join(kind.aliases), kind.title, "".join(kind.runtimes[:1]), files[kind.name])
    return table


def one_device(
    name: str, facts: Facts | None = None, settled: Device | None = None, able: Capabilities | None = None
) -> Table:
    """Return a table of what a name stands for; for a connected device also its facts and what follows from them.

    Args:
        name: Name of a device.
        facts: Facts that the device reported; None where it was not asked.
        settled: The entry with open fields filled in.
        able: Its capabilities; None to derive them from the facts.
    """
    entry = entries()[0].get(name)
    table = _table(name, "", "")
    rows = {"from": _from(entry.file) if entry else "no entry"} | _rows_of_entry(settled or load_device(name))
    if facts and settled:
        rows |= _rows_of_facts(
            settled, facts, able or capabilities(facts, [settled.runtime] if settled.runtime else [])
        )
    for key, value in rows.items():
        _add(table, key, value)
    return table


def show(*tables: Table) -> None:
    """Print tables to the terminal."""
    console = Console()
    for table in tables:
        console.print(table)


def board_of(facts: Facts, profile: str | None) -> str:
    """Return the device's own name for itself, and the profile it is taken for.

    Args:
        facts: Facts that the device reported.
        profile: Name of its profile, or None.
    """
    kind = profile or "no profile"
    return f"{'simulated, ' if facts.simulated else ''}{facts.board or facts.cpu} ({kind})"


def _rows_of_entry(device: Device) -> dict[str, str]:
    """Return the values of the entry, and the defaults of those that are open."""
    known: tuple[Profile, ...] = find_profiles(device.profile, profiles()) if device.profile else ()
    orders = {kind.runtimes for kind in known}
    first_of = f"the first installed one of {', '.join(orders.pop())}" if len(orders) == 1 else "by profile"
    workspaces = {device.workspace_mb} if device.workspace_mb else {kind.workspace_mb for kind in known}
    return {
        "where": _where(device),
        "profile": " or ".join(kind.name for kind in known) or "as reported",
        "python": _python(device),
        "runtime": device.runtime or first_of,
        "ssh config": device.ssh_config or "ssh's own",
        "workspace": f"{workspaces.pop()} MB" if len(workspaces) == 1 else "by profile",
        "prepare": "\n".join(device.prepare) or "no commands",
        "restore": "\n".join(device.restore) or "no commands",
    }


def _rows_of_facts(settled: Device, facts: Facts, able: Capabilities) -> dict[str, str]:
    """Return the facts that a connected device reports, and what follows from them."""
    gpu = f"{facts.gpu.name} (sm {facts.gpu.sm}, {facts.gpu.memory_mb} MB)" if facts.gpu else "no CUDA GPU"
    fast = [*able.precisions, *([] if able.no_sparsity else ["2:4 sparsity"])]
    refused = [f"no {precision}: {why}" for precision, why in able.why_not.items()]
    refused += [f"{precision}: {how}" for precision, how in able.basis.items() if precision in able.precisions]
    return {
        "it is": board_of(facts, settled.profile),
        "system": f"{facts.release or 'unknown'}, kernel {facts.kernel}, Python {facts.python}",
        "processor": f"{facts.cpu}, {facts.cores} cores, {facts.memory_mb} MB",
        "GPU": gpu,
        "runtimes": "\n".join(f"{name} {version}" for name, version in sorted(facts.runtimes.items())),
        "used": f"{settled.runtime}, up to ONNX opset {able.opset_max}",
        "precisions": "\n".join([", ".join(fast), *refused]),
    }


def _where(device: Device) -> str:
    return f"ssh {device.host}" if device.host else "simulated" if device.simulated else "this machine"


def _python(device: Device) -> str:
    return device.python or ("python3" if device.host else "the one in use here")


def _from(file: Path) -> str:
    if file == device_files()[-1]:
        return "shipped"
    home = home_folder()
    return f"~/{file.relative_to(home)}" if home and file.is_relative_to(home) else format_path(file)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))
