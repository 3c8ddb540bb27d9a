"""A device by its name, connected and settled: entered, reached, and what it says it is."""

from __future__ import annotations

from typing import Any

from remote.device import Device, Profile
from remote.inventory.resolve import load_device, settle
from remote.inventory.setup_commands import Say, to_stderr, undo_left
from remote.link.session import Session


def connect(name: str, say: Say = to_stderr, **options: Any) -> tuple[Session, Device, Profile | None]:
    """An open session, the device with all that was left open filled in, and its profile if it has one.

    What a killed run left prepared there is undone first, and said; `remote.inventory.setup_commands.prepared` prepares it anew.
    Raises UnknownDevice for a name that can't be used or a device that isn't what it was entered as, DeviceError
    for one that can't be reached. `options` are those of Session.
    """
    device = load_device(name)
    session = Session.open(device, **options)
    try:
        settled, profile = settle(device, session.facts)
        undo_left(settled, session.facts, say)
    except BaseException:
        session.close()
        raise
    return session, settled, profile
