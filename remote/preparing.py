"""The user's own commands that make a board fit to be measured, run before, and undone after.

They stand in the user's `devices.toml` and are run as they stand, by the device's shell, over a connection of their
own: the agent itself never runs a command for anybody.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from remote.device import Device
from remote.errors import DeviceError
from remote.ssh import command_argv

COMMAND_S_MAX = 120.0


def prepared(device: Device) -> None:
    """Runs `prepare`, one command after the other. Raises DeviceError for the first that fails."""
    for command in device.prepare:
        _run(device, command)


@contextlib.contextmanager
def restored(device: Device) -> Iterator[None]:
    """Runs `restore` at the end, however it came; what fails there is of no more use to anybody."""
    try:
        yield
    finally:
        for command in device.restore:
            with contextlib.suppress(DeviceError):
                _run(device, command)


def _run(device: Device, command: str) -> None:
    argv = ["sh", "-c", command] if device.host is None else command_argv(device, command)
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S_MAX)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{device.name}: `{command}` did not end in {COMMAND_S_MAX:g} s", "bad_request") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise DeviceError(
            f"{device.name}: `{command}` ended with status {done.returncode}: {said}; it stands in devices.toml "
            "(a command with sudo needs `sudo -n` and a rule without password)",
            "bad_request",
        )
