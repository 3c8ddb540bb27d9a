"""Define the root of every exception of this project. The exit codes are in `remote/exit_codes.py`.

```text
EdgefrontError
  UserError                    the request can't be done as it stands; exit code 2
    SettingsError              search/settings.py: an option or a run folder
    SpaceError                 spaces/space.py: a space; WeightsError: the weights it starts from
    DataError                  evaluators/data/dataset.py: a data set
    DeviceConfigError          a device name, or an entry of a devices.toml
      SimulationSpecError      remote/simulated/spec.py: a name that begins with `sim:`
  DeviceError                  the device or the link failed: retried, teaches a search nothing; exit code 4
    CancelledError             the controller asked for the end of the job
  HostError                    this machine has no disk, no memory or no right to write; exit code 5
  CandidateFaultError          the model can't be built, run or trained: reported to the search as a Failure
    CandidateError             reported by the device
    UnbuildableError           spaces/candidate.py: NoGainError, UnsupportedOperatorError, ParityError
    TrainingFailedError        evaluators/training/jobs.py
    UnknownOperatorError       evaluators/quantization/torch_graph.py
  WorkerError                  evaluators/fault_attribution.py: the worker process ended without a result
    WorkerCrashedError, WorkerTimeoutError, HostMemoryError
  OutOfTimeError               evaluators/training/time_allowance.py: a training can't end within the time limit
  BusyError, MisfitError, NotAModelError, TooLargeError    caught where they are raised
```

Code that runs on a device has exceptions of its own (`remote/agent.py`, `remote/onboard/`), since it can import
nothing else of ours.
"""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Name why a candidate failed. The texts stand in ledgers and, of those that a device tells, in its replies."""

    UNBUILDABLE = "unbuildable"
    NO_GAIN = "no_gain"
    UNSUPPORTED = "unsupported"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    PARITY = "parity"


# Kinds that a device tells; it has no enumeration of them, since its code runs on Python 3.6.
CANDIDATE_KINDS = (
    FailureKind.UNSUPPORTED,
    FailureKind.UNBUILDABLE,
    FailureKind.OUT_OF_MEMORY,
    FailureKind.CRASHED,
    FailureKind.TIMED_OUT,
)
# Verdicts that a second, fresh process may refute, since other processes may have taken the memory or a hang may
# pass. A verdict that occurs twice is attributed to the model.
SUSPECT_KINDS = (FailureKind.OUT_OF_MEMORY, FailureKind.CRASHED, FailureKind.TIMED_OUT)
# Failures of a device: kind -> wording for the user.
DEVICE_KINDS = {
    "link": "connection lost",
    "silent": "silent for too long",
    "rebooted": "device rebooted",
    "memory_taken": "memory used by other processes",
    "no_space": "disk full",
    "missing": "stored file missing",
    "wrong_hash": "damaged in transfer",
    "moved": "partial upload missing",
    "reference": "reference model failed",
    "failed": "other",
}
FINAL_KINDS = ("no_reference", "closed", "changed", "no_runtime", "bad_request", "bad_cache", "no_lock", "protocol")


class EdgefrontError(Exception):
    """Base class of every exception of this project."""


class UserError(EdgefrontError, ValueError):
    """Raised when a user's request can't be fulfilled.

    The message is one line that says what was asked, which values there are, and what to do.
    """


class CandidateFaultError(EdgefrontError):
    """Raised when a candidate itself can't be built, run or trained."""


class HostError(EdgefrontError):
    """Raised when this machine, not a device or a candidate, can't go on: no disk, no memory, no right to write.

    The message is one line that says what was asked and what to do. Nothing is recorded of the candidate that it
    interrupted: with room, the same command resumes the run.
    """


class DeviceConfigError(UserError):
    """Raised when a device name or an entry of a devices.toml can't be used. The message lists the accepted values."""


class DeviceError(EdgefrontError):
    """Raised when the device or the link failed, not the model that ran on it.

    Attributes:
        kind: One of DEVICE_KINDS, or of FINAL_KINDS, which no retry can mend.
    """

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def final(self) -> bool:
        """Return whether no retry can mend the failure."""
        return self.kind in FINAL_KINDS


class CancelledError(DeviceError):
    """Raised when a job was stopped because this side cancelled it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "closed")


class CandidateError(CandidateFaultError):
    """Raised when the model can't be built or run on this device.

    Attributes:
        kind: One of CANDIDATE_KINDS.
        reason: The device's own words, one line.
    """

    kind: FailureKind

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
