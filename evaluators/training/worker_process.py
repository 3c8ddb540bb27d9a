"""Run work in a separate process that may crash, hang or run out of memory without affecting this one."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import pickle
import pkgutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from evaluators.fault_attribution import (
    SUSPECTS,
    WorkerCrashedError,
    WorkerError,
    WorkerTimeoutError,
    as_sendable,
    death,
    hosts_fault,
)
from evaluators.training.tasks import Result, Task
from remote.errors import FailureKind

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Answer = TypeVar("Answer")
TICK_S = 0.25
CALL_S_MAX = 900.0  # limit of a call that sets none, so that every call ends, whatever happens to its process
STOPPED_S_MAX = 10.0  # time for which a process may be stopped by SIGSTOP while this one runs


class Worker:
    """Keep a process from call to call, and replace it when it dies.

    It must be used from the thread that lives longest: Linux kills the process when the thread that started it ends,
    which is why it never outlives its owner. Its output goes to `log`.
    """

    def __init__(
        self,
        log: Path,
        threads: int | None = None,
        preload: tuple[str, ...] = ("evaluators.training.trainer",),
        on_retry: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set the options of the process, which is started on first use.

        Args:
            log: File for the output of the process.
            threads: Threads of OpenMP and MKL; None keeps their defaults.
            preload: Modules that the process imports first.
            on_retry: Called with one line for every call that is retried.
        """
        self.log = log
        self._threads, self._preload, self._on_retry = threads, preload, on_retry
        self._pool: ProcessPool | None = None
        self._warm: Future[None] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process; it has ended when this returns."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def keep_log(self, log: Path) -> None:
        """Write the output of this process and of its successors to `log` from now on."""
        self.log = log
        self.call(_log_to, str(log))

    def start(self) -> None:
        """Start to import the modules that the work needs, and return at once."""
        self._warm = self._running_pool().schedule(_import, (self._preload,))

    def ready(self, tick: Callable[[], None] | None = None) -> None:
        """Wait until the imports of `start` are done; from then on the process is idle.

        Args:
            tick: Called about four times a second meanwhile.

        Raises:
            WorkerCrashedError: The process died twice. Errors of the imports are raised too.
            HostError: This machine ran out of memory or disk.
        """
        if self._warm is None:
            self.start()
        first = self._warm
        assert first is not None  # `start` sets it

        def attempt(again: bool) -> None:
            pool = self._running_pool()
            future = pool.schedule(_import, (self._preload,), timeout=CALL_S_MAX) if again else first
            self._result(future, "its start", tick)

        self._twice(attempt, "the start of a process")

    def call(
        self,
        function: Callable[..., Result] | Task[Result],
        *args: object,
        timeout_s: float | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Result:
        """Return the result of a function that is called in the process.

        If the process dies, exceeds the time limit or runs out of memory, that says little of the work: it is retried
        once in a new process. A second failure is attributed to the work itself, except for signals from outside.

        Args:
            function: The function, or a task where its module takes long to import.
            args: Arguments of the function.
            timeout_s: Time limit of each try in s; None for CALL_S_MAX.
            tick: Called about four times a second meanwhile. An exception of it ends the call.

        Raises:
            WorkerError: The function raised an undeclared exception (its traceback is in the log), or the process ended
                (WorkerCrashedError, WorkerTimeoutError). Exceptions with a `kind` and DataError are raised unchanged.
                After any of these the next call works.
            HostError: This machine ran out of memory or disk. Nothing must be recorded for the candidate.
        """
        work = function.name if isinstance(function, Task) else function
        name = work if isinstance(work, str) else work.__qualname__
        limit_s = CALL_S_MAX if timeout_s is None else timeout_s

        def attempt(again: bool) -> Result:
            pool = self._running_pool()
            return self._result(pool.schedule(_run, (work, args, name), timeout=limit_s), name, tick)

        found: Result = self._twice(attempt, name)
        return found

    def _twice(self, attempt: Callable[[bool], Answer], name: str) -> Answer:
        try:
            return attempt(False)
        except SUSPECTS as error:
            self.close()  # the process may still hold the memory that ran out
            self._on_retry(f"{error}; retried in a new process")
        try:
            return attempt(True)
        except SUSPECTS as error:
            self.close()
            if found := hosts_fault(name, error):
                raise found from None
            raise

    def _running_pool(self) -> ProcessPool:
        if self._pool is None or not self._pool.active:  # a pool breaks when its process dies while idle
            self.close()
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._pool = ProcessPool(
                max_workers=1,
                initializer=_set_up,
                initargs=(str(self.log), os.getpid(), self._threads),
                context=get_context("spawn"),
            )
        return self._pool

    def _result(self, future: Future[Answer], name: str, tick: Callable[[], None] | None) -> Answer:
        stopped_s = 0.0
        try:
            while not wait([future], TICK_S).done:
                stopped_s = self._wake_stopped(stopped_s)
                if tick:
                    tick()
        except BaseException:  # after Ctrl-C or an exception of `tick` the result is not needed
            self.close()
            raise
        try:
            return future.result()
        except ProcessExpired as error:
            code = error.exitcode
            raise WorkerCrashedError(f"{name} {death(code)}; its output is in {self.log}", code) from None
        except BrokenProcessPool as error:
            raise WorkerCrashedError(f"{name} lost its process ({error}); its output is in {self.log}") from None
        except CancelledError:
            raise WorkerCrashedError(f"{name} was cancelled") from None
        except TimeoutError as error:
            if len(error.args) == 2 and error.args[0] == "Task timeout":  # raised by pebble, not by the function
                raise WorkerTimeoutError(f"{name} took more than {error.args[1]:g} s and was ended") from None
            raise

    def _wake_stopped(self, stopped_s: float) -> float:
        """Return the seconds for which the process was stopped.

        The process is resumed when that is too long for a Ctrl-Z of both.
        """
        pool = self._pool
        for pid in tuple(pool._pool_manager.worker_manager.workers) if pool is not None else ():
            if not _is_stopped(pid):
                return 0.0
            if stopped_s >= STOPPED_S_MAX:
                os.kill(pid, signal.SIGCONT)
                return 0.0
        return stopped_s + TICK_S


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


# --- in the process ---------------------------------------------------------------------------------------


def _set_up(log: str, owner: int, threads: int | None) -> None:
    """Bind the life of the process to its owner's and its output to the log."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # the owner died before prctl took effect
        os._exit(1)
    # the default handler ends the process at once: a Python handler would wait for the end of torch's current step
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _log_to(log)
    # These are read once, when torch is imported. Threads that wait by spinning make a training thirty times slower
    # as soon as another process needs a core; sleeping threads cost nothing then and little otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would otherwise send usage data
    if threads is not None:
        os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
    _flush_denormals()


def _flush_denormals() -> None:
    """Compute with zeros instead of denormal numbers, if torch was imported.

    Gradients of nearly dead channels are denormal, which makes a step ten times slower. The flag is set before OpenMP
    has threads, which inherit it, and in this process only: it would change the arithmetic of any program that imports
    the trainer.
    """
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(True)


def _log_to(log: str) -> None:
    """Redirect all output to the log, or discard it: a failure to log must not end any work."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        output = os.open(os.devnull, os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw: Any = _UnfailingFile(number)
        setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True))


class _UnfailingFile(io.RawIOBase):
    """Wrap a file descriptor so that writes succeed even if the disk is full."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        with contextlib.suppress(OSError):
            os.write(self._number, data)
        return len(memoryview(data))


def _run(function: Callable[..., Result] | str, args: tuple[object, ...], name: str) -> Result:
    try:
        work = pkgutil.resolve_name(function) if isinstance(function, str) else function
        _flush_denormals()
        result = work(*args)
        is_sendable = _can_be_sent(result)
    except Exception as error:
        answer = as_sendable(error, name)
        if _can_be_sent(answer):
            raise answer from None
        sendable = WorkerError(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sendable.kind = next((kind for kind in FailureKind if kind == getattr(error, "kind", "")), WorkerError.kind)
        raise sendable from None
    if not is_sendable:
        raise WorkerError(f"the {type(result).__name__} it returned cannot be sent between processes")
    return result


def _can_be_sent(value: object) -> bool:
    """Return whether a value survives pickling.

    An exception with a constructor of its own can be pickled but not unpickled, which would end the pool.
    """
    try:
        pickle.loads(pickle.dumps(value))
    except MemoryError:
        raise
    except Exception:
        return False
    return True
