"""What can go wrong with a device, told apart by whose fault it is.

UnknownDevice    the user's: no such device, or one that is not what it was entered as
DeviceError      the device's or the link's: retried, teaches a search nothing
  Cancelled      asked for by us
CandidateError   the model's: told to the search
"""

from __future__ import annotations

CANDIDATE_KINDS = ("unsupported", "unbuildable", "out_of_memory", "crashed", "timed_out")
# What a second, fresh process may refute: another's memory, a passing hang. Seen twice it is the model's.
SUSPECT_KINDS = ("out_of_memory", "crashed", "timed_out")
# Failures of a device by kind, in a user's words.
DEVICE_KINDS = {
    "link": "connection lost",
    "silent": "silent for too long",
    "rebooted": "device rebooted",
    "memory_taken": "memory taken by others",
    "no_space": "disk full",
    "missing": "stored file gone",
    "wrong_hash": "damaged on the way",
    "moved": "upload to be resumed was gone",
    "reference": "reference model failed",
    "failed": "other",
}
FINAL_KINDS = ("no_reference", "closed", "changed", "no_runtime", "bad_request", "bad_cache", "no_lock", "protocol")


class DeviceConfigError(ValueError):
    """A device name or entry that cannot be used; the message lists what there is."""


class DeviceError(Exception):
    """The device or the link failed, not what ran on it. `kind` is one of DEVICE_KINDS, or of FINAL_KINDS:
    those that another try cannot mend.
    """

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def final(self) -> bool:
        return self.kind in FINAL_KINDS


class CancelledError(DeviceError):
    """The job was stopped because this side asked for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "closed")


class CandidateError(Exception):
    """The model cannot be built or run on this device. `kind` is one of CANDIDATE_KINDS."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
