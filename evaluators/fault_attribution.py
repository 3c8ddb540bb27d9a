"""Tell whose fault it is when work in a process ends without a result: the candidate's, or this machine's."""

from __future__ import annotations

import signal
import traceback

from evaluators.data.dataset import DataError
from remote.files import HostError, host_error
from spaces.memory import chain, is_lack_of_memory
from spaces.space import SpaceError

TEXT_MAX = 400  # characters of a library's own words that are passed on
# Deaths that come from outside the work: memory or disk ran out, a limit of the shell, somebody's `kill`.
HOST_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGBUS", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU", "SIGXFSZ", "SIGPWR")
    if hasattr(signal, name)
)
NO_ROOM = ("no space left on device", "disk quota exceeded")  # in errors of libraries that are no OSError


class WorkerError(Exception):
    """Raised when work ended without a result; one line. `kind` is the word for it in a `Failure`."""

    kind = "crashed"


class WorkerCrashedError(WorkerError):
    """Raised when the process died: signal or exit code are in the message.

    Args:
        message: One line.
        code: The exit code, negative for a signal; None where it is not known.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerTimeoutError(WorkerError):
    """Raised when the process was killed because it took too long."""

    kind = "timed_out"


class HostMemoryError(WorkerError):
    """Raised when the work asked for more memory than this machine had just then."""

    kind = "out_of_memory"


SUSPECTS = (WorkerCrashedError, WorkerTimeoutError, HostMemoryError)  # what another try in a new process may refute


def death(code: int) -> str:
    """Return how a process ended, as the end of a sentence."""
    if code >= 0:
        return f"ended its process with exit code {code}"
    why = ", which the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by {_signal_name(-code)}{why}"


def hosts_fault(name: str, error: WorkerError) -> HostError | None:
    """Return what a failure that came twice says of this machine; None where it is the candidate's own.

    Args:
        name: What was called, for people.
        error: What the second try raised.
    """
    if isinstance(error, HostMemoryError):
        return HostError(f"out of memory: {error}; free some, and the same command goes on")
    if not isinstance(error, WorkerCrashedError):
        return None
    if error.code is None:  # it died before it had begun
        return HostError(f"{error}, twice; when that is mended, the same command goes on")
    if -error.code not in HOST_SIGNALS:
        return None
    ended = f"{name} was killed by {_signal_name(-error.code)} twice"
    what = {
        signal.SIGKILL: f"out of memory: {ended}, which the system does when memory runs out; free some",
        signal.SIGBUS: f"out of disk or memory: {ended}; make room where the cache, the run folder and TMPDIR are",
    }.get(signal.Signals(-error.code), f"{ended}, from outside; find out what sends it")
    return HostError(f"{what}, and the same command goes on")


def is_host_kill(reason: str) -> bool:
    """Return True if the reason of a recorded failure names a death that says nothing of the candidate.

    Versions up to 0.1 recorded these for ever.
    """
    return any(f"was killed by {number.name}" in reason for number in HOST_SIGNALS)


def as_sendable(error: Exception, name: str) -> Exception:
    """Return the exception to send for one that work raised: itself if it is meant for the caller, else its words.

    Args:
        error: What was raised, with the trace that led to it.
        name: What was called, for people.
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
            return HostError(f"{name}: no space left on the disk; make room, and the same command goes on")
    if is_declared:
        return error
    traceback.print_exception(error)  # into the log: the caller gets one line
    return WorkerError(_words(error))


def _of_the_disk(error: OSError, name: str, any_file: bool) -> HostError | None:
    """Return what an OSError says of this machine; one without a number, such as a damaged picture's, says nothing.

    Args:
        error: What was raised.
        name: What was called, for people.
        any_file: Whether a file that is gone counts, too.
    """
    if found := host_error(error, name):
        return found
    if error.errno is None or error.filename is None or not any_file:
        return None
    return HostError(f"{name}: {error.strerror} ({error.filename}); when that is mended, the same command goes on")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:TEXT_MAX]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
