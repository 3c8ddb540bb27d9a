"""What can go wrong with a device, told apart by whose fault it is.

UnknownDevice    the user's: no such device, or one that cannot be reached this way
DeviceError      the device's or the link's: retried, teaches a search nothing
  Cancelled      asked for by us
CandidateError   the model's: told to the search
"""

from __future__ import annotations

CANDIDATE_KINDS = ("unsupported", "unbuildable", "out_of_memory", "crashed", "timed_out")


class UnknownDevice(ValueError):
    """A device name or entry that cannot be used; the message lists what there is."""


class DeviceError(Exception):
    """The device or the link failed, not what ran on it. Another try may succeed."""


class Cancelled(DeviceError):
    """The job was stopped because this side asked for it."""


class CandidateError(Exception):
    """The model cannot be built or run on this device. `kind` is one of CANDIDATE_KINDS."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
