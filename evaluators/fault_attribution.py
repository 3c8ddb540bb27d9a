"""Attribute a failure of work in another process to the candidate or to this machine."""

from __future__ import annotations

import signal
import traceback

from evaluators.data.dataset import DataError
from remote.errors import EdgefrontError, FailureKind, HostError
from remote.files import host_error
from spaces.memory_errors import chain, is_lack_of_memory
from spaces.space import SpaceError

TEXT_MAX = 400  # characters of a library's own message that are passed on
# Signals from outside the work: memory or disk ran out, a limit of the shell was reached, or a user ran `kill`.
HOST_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGBUS", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU", "SIGXFSZ", "SIGPWR")
    if hasattr(signal, name)
)
NO_ROOM = ("no space left on device", "disk quota exceeded")  # in messages of library errors that are not OSErrors


class WorkerError(EdgefrontError):
    """Raised when work ended without a result; the message is one line and `kind` that of a `Failure`."""

    kind = FailureKind.CRASHED


class WorkerCrashedError(WorkerError):
    """Raised when the process died; the message contains the signal or the exit code.

    Args:
        message: One line.
        code: Exit code, negative for a signal; None where it is unknown.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerTimeoutError(WorkerError):
    """Raised when the process was killed because it exceeded its time limit."""

    kind = FailureKind.TIMED_OUT


class HostMemoryError(WorkerError):
    """Raised when the work requested more memory than this machine had at that moment."""

    kind = FailureKind.OUT_OF_MEMORY


SUSPECTS = (WorkerCrashedError, WorkerTimeoutError, HostMemoryError)  # errors that a retry in a new process may clear


def death(code: int) -> str:
    """Return how a process ended, as the end of a sentence.

    Args:
        code: Exit code, negative for a signal.

    Returns:
        Words such as `was killed by SIGSEGV`.
    """
    if code >= 0:
        return f"ended its process with exit code {code}"
    why = ", which the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by {_signal_name(-code)}{why}"


def hosts_fault(name: str, error: WorkerError) -> HostError | None:
    """Return the error of this machine that a repeated failure reveals; None if the candidate caused it.

    Args:
        name: Display name of the called function.
        error: Error of the second try.
    """
    if isinstance(error, HostMemoryError):
        return HostError(f"out of memory: {error}; free some, then run the same command to resume")
    if not isinstance(error, WorkerCrashedError):
        return None
    if error.code is None:  # it died before it began
        return HostError(f"{error}, twice; fix that, then run the same command to resume")
    if -error.code not in HOST_SIGNALS:
        return None
    ended = f"{name} was killed by {_signal_name(-error.code)} twice"
    what = {
        signal.SIGKILL: f"out of memory: {ended}, which the system does when memory runs out; free some",
        signal.SIGBUS: f"out of disk or memory: {ended}; make room where the cache, the run folder and TMPDIR are",
    }.get(signal.Signals(-error.code), f"{ended}by another program; find out which one sends the signal")
    return HostError(f"{what}, then run the same command to resume")


def is_host_kill(reason: str) -> bool:
    """Return True if a recorded failure names a signal that says nothing of the candidate.

    Versions up to 0.1 recorded such failures permanently.

    Args:
        reason: Reason of the failure.
    """
    return any(f"was killed by {number.name}" in reason for number in HOST_SIGNALS)


def as_sendable(error: Exception, name: str) -> Exception:
    """Return the exception to send to the caller in place of one that work raised.

    Args:
        error: Raised exception, with its causes.
        name: Display name of the called function.

    Returns:
        The exception itself if it is meant for the caller, else a WorkerError or HostError with its message.
    """
    if isinstance(error, HostError | WorkerError):
        return error
    is_declared = isinstance(error, DataError | SpaceError) or isinstance(getattr(error, "kind", None), str)
    for cause in chain(error):
        if is_lack_of_memory(cause):
            return HostMemoryError(f"{name}: {_words(cause)}")
        if isinstance(cause, OSError) and (found := _of_the_disk(cause, name, not is_declared)):
            return found
        if any(words in str(cause).lower() for words in NO_ROOM):
            return HostError(f"{name}: no space left on the disk; make room, then run the same command to resume")
    if is_declared:
        return error
    traceback.print_exception(error)  # for the log: the caller receives one line only
    return WorkerError(_words(error))


def _of_the_disk(error: OSError, name: str, any_file: bool) -> HostError | None:
    """Return the error of this machine that an OSError reveals.

    An OSError without a number, such as that of a damaged picture, reveals none.

    Args:
        error: Raised exception.
        name: Display name of the called function.
        any_file: Whether a missing file counts, too.
    """
    if found := host_error(error, name):
        return found
    if error.errno is None or error.filename is None or not any_file:
        return None
    return HostError(f"{name}: {error.strerror} ({error.filename}); fix that, then run the same command to resume")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:TEXT_MAX]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
