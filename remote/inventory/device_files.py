"""Tables of devices.toml files: found, read, checked. What they mean together is `remote/inventory/resolve.py`'s."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote.device import Device, Profile
from remote.errors import DeviceConfigError
from remote.ssh import check_host, check_python

BYTE_ORDER_MARK = "\ufeff"  # some editors write it first
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")  # no colon: sim:nano is never an entry
RUNTIME = re.compile(r"([a-z0-9]+)(:[a-z0-9]+)?")
RUNTIMES = Path(__file__).parents[1] / "runtimes"
# key -> type; a list is one of texts. The fields of Device and Profile have the same names.
DEVICE_KEYS = {
    "host": str,
    "profile": str,
    "python": str,
    "runtime": str,
    "ssh_config": str,
    "prepare": list,
    "restore": list,
    "workspace_mb": int,
}
PROFILE_KEYS = {
    "title": str,
    "aliases": list,
    "compatible": list,
    "board": str,
    "machine": str,
    "gpu": bool,
    "python": str,
    "runtimes": list,
    "workspace_mb": int,
    "prepare": list,
    "restore": list,
    "install": str,
}
WORKSPACE_MB = (16, 1 << 20)
NOWHERE = Path(os.devnull)  # stands for the home of a user who has none: nothing is found below it, nor written


@dataclass(frozen=True)
class DeviceTable:
    """One table, not yet checked, and the file it is from."""

    name: str
    file: Path
    table: Any

    def wrong(self, what: str) -> DeviceConfigError:
        """The error that says what is wrong with it, and where."""
        return DeviceConfigError(f"{format_path(self.file)}: [{self.name}] {what}")


def device_files() -> tuple[Path, ...]:
    """Where devices are looked up, the first that names one wins: the folder's, the user's, the shipped."""
    home = home_folder() or NOWHERE
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Path("devices.toml"), config / "edgefront" / "devices.toml", Path(__file__).parents[1] / "devices.toml"


def home_folder() -> Path | None:
    """Return the user's home; None where neither HOME nor the list of users has one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def entries(files: Sequence[Path] | None = None) -> tuple[dict[str, DeviceTable], dict[str, DeviceTable]]:
    """(devices, profiles) by name, those of the first files first. Raises UnknownDevice for a file that is none."""
    devices: dict[str, DeviceTable] = {}
    kinds: dict[str, DeviceTable] = {}
    for file in device_files() if files is None else files:
        tables = parse(file, read_text(file))
        own = tables.pop("profiles", {})
        if not isinstance(own, dict):
            raise DeviceConfigError(f"{format_path(file)}: profiles must be tables such as [profiles.myboard]")
        for found, named in ((devices, tables), (kinds, own)):
            for name, table in named.items():
                found.setdefault(check_name(name, format_path(file)), DeviceTable(name, file, table))
    return devices, kinds


def to_device(entry: DeviceTable) -> Device:
    """The device a `[name]` table describes; what its profile knows is not in it. Raises UnknownDevice."""
    table = _check_table(entry, DEVICE_KEYS)
    try:
        if "host" in table:
            check_host(table["host"])
            check_python(table.get("python", "python3"))
    except DeviceConfigError as error:
        raise entry.wrong(str(error)) from None
    if "runtime" in table:
        _check_runtime(entry, table["runtime"])
    if "ssh_config" in table:  # a relative one stands beside the file that names it
        table["ssh_config"] = str(entry.file.absolute().parent / Path(table["ssh_config"]).expanduser())
    given: dict[str, Any] = dict.fromkeys(("profile", "host", "python", "runtime"))
    given |= table
    return Device(name=entry.name, **given)


def to_profile(entry: DeviceTable) -> Profile:
    """The kind of board a `[profiles.name]` table describes. Raises UnknownDevice."""
    table = _check_table(entry, PROFILE_KEYS)
    if "python" in table:
        check_python(table["python"])
    return Profile(name=entry.name, **{"title": entry.name} | table)


def check_name(name: str, where: str = "") -> str:
    """`name` as it is, if a device can be entered by it. Raises UnknownDevice."""
    if NAME.fullmatch(name) and (where or name != "profiles"):
        return name
    place = f"{where}: " if where else ""
    raise DeviceConfigError(f"{place}{name[:80]!r} can't name a device: letters, digits and _ . @ - only, such as nano")


def format_path(file: Path) -> str:
    """The file's name as people find it."""
    return str(file) if file.is_absolute() else f"./{file}"


def _check_table(entry: DeviceTable, keys: dict[str, type]) -> dict[str, Any]:
    """The table with lists as tuples, every key known and of its type."""
    table = entry.table
    if not isinstance(table, dict):
        raise entry.wrong(f"must be a table with the keys {', '.join(keys)}")
    if unknown := [key for key in table if key not in keys]:
        raise entry.wrong(f"has no key {unknown[0]!r}; there are {', '.join(keys)}")
    for key, value in table.items():
        if problem := _problem(value, keys[key]):
            raise entry.wrong(f"{key} {problem}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _problem(value: Any, kind: type) -> str:
    """What is wrong with a value, empty if nothing is."""
    if kind is bool:
        return "" if isinstance(value, bool) else "must be true or false"
    if kind is int:
        low, high = WORKSPACE_MB
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"must be a whole number from {low} to {high}"
    texts = value if kind is list and isinstance(value, list) else [value]
    if kind is list and not isinstance(value, list):
        return "must be a list of texts"
    if not all(isinstance(text, str) and text.strip() and text.isprintable() for text in texts):
        return "must be text" if kind is str else "must be a list of texts"
    return ""


def _check_runtime(entry: DeviceTable, runtime: str) -> None:
    """Raises UnknownDevice unless the runtime has a file; whether the device has it is seen there."""
    there = sorted(path.stem for path in RUNTIMES.glob("[a-z]*.py"))
    found = RUNTIME.fullmatch(runtime)
    if not found or found[1] not in there:
        raise entry.wrong(f"runtime {runtime!r} is not known; there are {', '.join(there)}, some with a :provider")


def read_text(file: Path) -> str:
    """The file's content to the byte, empty where there is none. Raises UnknownDevice."""
    try:
        return file.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        raise DeviceConfigError(f"{format_path(file)} cannot be read: {error}") from None


def parse(file: Path, text: str) -> dict[str, Any]:
    """The tables of a file, which may begin with a byte order mark. Raises UnknownDevice."""
    try:
        return tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    except ValueError as error:
        raise DeviceConfigError(f"{format_path(file)} cannot be read: {error}") from None
