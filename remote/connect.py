"""Connect to devices by the name that `--device` takes, or by an entry."""

from __future__ import annotations

import sys
from typing import Unpack

from remote.agent import BOOT
from remote.device import Device, Profile
from remote.errors import DeviceConfigError, DeviceError
from remote.inventory.resolve import is_entered, load_device, settle, unreachable
from remote.inventory.setup_commands import Say, to_stderr, undo_left
from remote.link.session import Session, SessionOptions
from remote.link.transport import bundle, local_argv
from remote.simulated.spec import parse
from remote.ssh import NO_SUCH_HOST, ssh_argv


def connect(
    name: str, say: Say = to_stderr, **options: Unpack[SessionOptions]
) -> tuple[Session, Device, Profile | None]:
    """Open a session with a device by its name.

    The preparation that a killed run left behind is undone first, and `say` reports it; `setup_commands.prepare_device`
    prepares the device anew.

    Args:
        name: The value of `--device`.
        say: Called with each line about what is undone.
        **options: Options of `Session`.

    Returns:
        The open session, the device with all open fields filled in, and its profile if it has one.

    Raises:
        DeviceConfigError: The name can't be used, or the device is another than the one that was entered.
        DeviceError: The device can't be reached.
    """
    device = load_device(name)
    session = open_session(device, **options)
    try:
        settled, profile = settle(device, session.facts)
        undo_left(settled, session.facts, say)
    except BaseException:
        session.close()
        raise
    return session, settled, profile


def open_session(device: Device, **options: Unpack[SessionOptions]) -> Session:
    """Open a session with a device.

    Args:
        device: An entry, or this machine, or a simulated board.
        **options: Options of `Session`. `on_event` is called while another session holds the device's lock.

    Returns:
        The connected session.

    Raises:
        DeviceConfigError: No host has the name, and no entry has it either.
        DeviceError: The device can't be reached; the message says what to do.
    """
    try:
        return Session(device, agent_argv(device), **options)
    except DeviceError as error:
        if device.host is None:
            raise
        what = unreachable(device, str(error))
        if NO_SUCH_HOST in str(error) and not is_entered(device.name):  # an entered board may just be off
            raise DeviceConfigError(what) from None
        raise DeviceError(what, error.kind) from None


def agent_argv(device: Device) -> list[str]:
    """Return the command line that starts the agent of a device: over ssh, in a process here, or a simulated one.

    Args:
        device: An entry, or this machine, or a simulated board.

    Returns:
        Program and arguments; the process reads the agent's source from its stdin.

    Raises:
        DeviceConfigError: The text after `sim:` is no valid specification.
    """
    if device.simulated is not None:
        parse(device.simulated)
        return [sys.executable, "-m", "remote.simulator", device.simulated, str(len(bundle()))]
    if device.host is None:
        return local_argv(device.python or sys.executable)
    return ssh_argv(device, BOOT, len(bundle()))
