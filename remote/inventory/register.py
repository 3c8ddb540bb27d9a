"""Add a device to a devices.toml and leave its other content as it is, to the byte."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from remote.errors import DeviceConfigError
from remote.files import write_file
from remote.inventory.device_files import (
    BYTE_ORDER_MARK,
    NOWHERE,
    DeviceTable,
    check_name,
    device_files,
    format_path,
    parse,
    read_text,
    to_device,
)


def add(name: str, table: dict[str, object], file: Path | None = None, *, replace: bool = False) -> Path:
    """Write an entry into a devices.toml; all other content of the file stays as it is, to the byte.

    Args:
        name: Name of the entry.
        table: Its keys and values.
        file: The file to write; None for the user's own.
        replace: Whether an entry of the same name may be replaced.

    Returns:
        The file that has the entry now.

    Raises:
        DeviceConfigError: The entry is wrong, or the file has the name already, or it can't be written.
    """
    file = device_files()[1] if file is None else file
    to_device(DeviceTable(check_name(name), file, table))
    if file.is_relative_to(NOWHERE):
        raise DeviceConfigError("the home folder is unknown: set HOME or XDG_CONFIG_HOME, or give --file")
    text = read_text(file)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    before = parse(file, text)
    if name in before and not replace:
        raise DeviceConfigError(f"{format_path(file)} has [{name}] already; give --replace, or another name")
    line_end = "\r\n" if "\r\n" in text else "\n"
    block = line_end.join(
        [f"[{_word(name)}]", *(f"{key} = {_value(value, line_end)}" for key, value in table.items()), ""]
    )
    if name in before:
        text = _replace_table(file, text, name, block, before | {name: table})
    else:
        gap = "" if not text else line_end if text.endswith("\n") else 2 * line_end
        text += gap + block
        if parse(file, text) != before | {name: table}:
            raise DeviceConfigError(f"{format_path(file)} can't take [{name}] safely: enter it by hand")
    try:
        write_file(file, mark + text)
    except OSError as error:
        raise DeviceConfigError(f"{format_path(file)} cannot be written: {error}") from None
    return file


def _word(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: object, line_end: str) -> str:
    """Return a value as TOML writes it: as JSON does for printable text and numbers; a list takes a line per item."""
    if isinstance(value, list):
        return line_end.join(["[", *(f"  {_value(item, line_end)}," for item in value), "]"])
    return json.dumps(value, ensure_ascii=False)


def _replace_table(file: Path, text: str, name: str, block: str, wanted: dict[str, object]) -> str:
    """Return the text with the table called `name` replaced; its end is where the whole text parses to `wanted`."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    header = re.compile(rf"\s*\[\s*(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')\s*\]")
    ends = [index for index, line in enumerate(lines) if line.lstrip().startswith("[")] + [len(lines)]
    for start in (index for index in ends[:-1] if header.match(lines[index])):
        for end in (index for index in ends if index > start):
            while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
                end -= 1  # a comment above the next table belongs to the next table
            changed = "".join([*lines[:start], block, *lines[end:]])
            try:
                if tomllib.loads(changed) == wanted:
                    return changed
            except ValueError:
                continue
    raise DeviceConfigError(
        f"{format_path(file)} has [{name}] written in a way that can't be replaced safely: edit it by hand"
    )
