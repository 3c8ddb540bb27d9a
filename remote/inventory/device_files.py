"""Find, read and check the tables of devices.toml files. `remote/inventory/resolve.py` combines them."""

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
from remote.files import home_folder
from remote.ssh import check_host, check_python

BYTE_ORDER_MARK = "\ufeff"  # some editors write it at the beginning of a file
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")  # no colon: sim:nano is never an entry
RUNTIME = re.compile(r"([a-z0-9]+)(:[a-z0-9]+)?")
RUNTIMES = Path(__file__).parents[1] / "runtimes"
# Key -> type; every list is a list of texts. The fields of Device and Profile have the same names.
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
NOWHERE = Path(os.devnull)  # stands for a missing home folder: nothing is found below it, nor written


@dataclass(frozen=True)
class DeviceTable:
    """Hold one table that is not yet checked, and the file it is from.

    Attributes:
        name: Name of the table, without `profiles.`.
        file: Path of the file.
        table: Its parsed content, of any type.
    """

    name: str
    file: Path
    table: object

    def wrong(self, what: str) -> DeviceConfigError:
        """Return an error that says what is wrong with the table, and where it is."""
        return DeviceConfigError(f"{format_path(self.file)}: [{self.name}] {what}")


def device_files() -> tuple[Path, ...]:
    """Return the files that may define devices; the first that names a device wins.

    They are the working folder's, the user's, and the shipped one.
    """
    home = home_folder() or NOWHERE
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Path("devices.toml"), config / "edgefront" / "devices.toml", Path(__file__).parents[1] / "devices.toml"


def entries(files: Sequence[Path] | None = None) -> tuple[dict[str, DeviceTable], dict[str, DeviceTable]]:
    """Return all tables of the files: (devices, profiles) by name, those of the first files first.

    Args:
        files: The files to read; None for `device_files()`.

    Raises:
        DeviceConfigError: A file can't be read, or a name in it can't be used.
    """
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
    """Return the device that a `[name]` table describes, without the values of its profile.

    Raises:
        DeviceConfigError: The table has a wrong key or value.
    """
    table = _check_table(entry, DEVICE_KEYS)
    try:
        if "host" in table:
            check_host(table["host"])
            check_python(table.get("python", "python3"))
    except DeviceConfigError as error:
        raise entry.wrong(str(error)) from None
    if "runtime" in table:
        _check_runtime(entry, table["runtime"])
    if "ssh_config" in table:  # a relative path is relative to the folder of the file that names it
        table["ssh_config"] = str(entry.file.absolute().parent / Path(table["ssh_config"]).expanduser())
    given: dict[str, Any] = dict.fromkeys(("profile", "host", "python", "runtime"))
    given |= table
    return Device(name=entry.name, **given)


def to_profile(entry: DeviceTable) -> Profile:
    """Return the kind of board that a `[profiles.name]` table describes.

    Raises:
        DeviceConfigError: The table has a wrong key or value.
    """
    table = _check_table(entry, PROFILE_KEYS)
    if "python" in table:
        check_python(table["python"])
    return Profile(name=entry.name, **{"title": entry.name} | table)


def check_name(name: str, where: str = "") -> str:
    """Return `name` unchanged if a device can be entered by it.

    Args:
        name: The name to check.
        where: The file that has it, for the message; with a file, `profiles` is a valid name too.

    Raises:
        DeviceConfigError: It holds other characters, or is too long.
    """
    if NAME.fullmatch(name) and (where or name != "profiles"):
        return name
    place = f"{where}: " if where else ""
    raise DeviceConfigError(f"{place}{name[:80]!r} can't name a device: letters, digits and _ . @ - only, such as nano")


def format_path(file: Path) -> str:
    """Return the file's name for messages: relative paths begin with `./`."""
    return str(file) if file.is_absolute() else f"./{file}"


def _check_table(entry: DeviceTable, keys: dict[str, type]) -> dict[str, Any]:
    """Return the table with lists as tuples, every key known and of its type."""
    table = entry.table
    if not isinstance(table, dict):
        raise entry.wrong(f"must be a table with the keys {', '.join(keys)}")
    if unknown := [key for key in table if key not in keys]:
        raise entry.wrong(f"has no key {unknown[0]!r}; accepted: {', '.join(keys)}")
    for key, value in table.items():
        if problem := _problem(value, keys[key]):
            raise entry.wrong(f"{key} {problem}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _problem(value: object, kind: type) -> str:
    """Return what is wrong with a value; empty if nothing is."""
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
    """Raise DeviceConfigError unless the runtime has a file; whether the device has it is checked on the device."""
    there = sorted(path.stem for path in RUNTIMES.glob("[a-z]*.py"))
    found = RUNTIME.fullmatch(runtime)
    if not found or found[1] not in there:
        raise entry.wrong(f"unknown runtime {runtime!r}; accepted: {', '.join(there)}, some with a :provider")


def read_text(file: Path) -> str:
    """Return the file's content to the byte; empty where there is no file.

    Raises:
        DeviceConfigError: It can't be read, or is not UTF-8.
    """
    try:
        return file.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        raise DeviceConfigError(f"{format_path(file)} cannot be read: {error}") from None


def parse(file: Path, text: str) -> dict[str, object]:
    """Return the tables of a file, which may begin with a byte order mark.

    Args:
        file: Its path, for the message.
        text: Its content.

    Raises:
        DeviceConfigError: The content is not TOML.
    """
    try:
        return tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    except ValueError as error:
        raise DeviceConfigError(f"{format_path(file)} cannot be read: {error}") from None
