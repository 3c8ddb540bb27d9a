"""One process for work that may crash, hang or run out of memory, and costs only itself when it does."""

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
from typing import Any

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

__all__ = ["Worker", "WorkerCrashed", "WorkerError", "WorkerTimedOut"]

TICK_S = 0.25
CALL_S_MAX = 900.0  # of a call that names no limit: whatever happens to its process, it ends
STOPPED_S_MAX = 10.0  # that a process may stand still by SIGSTOP while this one runs


class Worker:
    """A process that is kept from call to call, and replaced when it dies.

    Use it from the thread that lives longest: Linux kills the process when the thread that started it ends,
    which is how it never outlives its owner. What it prints goes to `log`. `on_retry` hears one line of every call
    that is tried once more.
    """

    def __init__(
        self,
        log: Path,
        threads: int | None = None,
        preload: tuple[str, ...] = ("evaluators.training.trainer",),
        on_retry: Callable[[str], None] = lambda line: None,
    ) -> None:
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
        """The process is gone when this returns."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def keep_log(self, log: Path) -> None:
        """Write the output of this process and of those after it to `log` from now on."""
        self.log = log
        self.call(_log_to, str(log))

    def start(self) -> None:
        """Begins to import what the work needs, and returns at once."""
        self._warm = self._running_pool().schedule(_import, (self._preload,))

    def ready(self, tick: Callable[[], None] | None = None) -> None:
        """Returns when the imports of `start` are done: from then on the process is idle.

        Raises what an import raises; WorkerCrashed, HostError.
        """
        if self._warm is None:
            self.start()
        first = self._warm
        assert first is not None  # start sets it

        def attempt(again: bool) -> None:
            pool = self._running_pool()
            future = pool.schedule(_import, (self._preload,), timeout=CALL_S_MAX) if again else first
            self._result(future, "its start", tick)

        self._twice(attempt, "the start of a process")

    def call(
        self,
        function: Callable[..., Any] | str,
        *args: Any,
        timeout_s: float | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Any:
        """Return what the function returns in the process; `tick` is called about four times a second meanwhile.

        A process that dies, takes too long or finds no memory says little of the work: it is tried once more in a new
        one. What comes twice is the work's own, but for deaths that come from outside.

        Args:
            function: The function, or its name where the module is heavy: `evaluators.training.trainer:train_parent`.
            args: Its arguments.
            timeout_s: Seconds each try may take; None for CALL_S_MAX.
            tick: What else is to be done meanwhile. What it raises ends the call.

        Raises:
            WorkerError: The function raised what nobody declared (its traceback is in the log), WorkerCrashed or
                WorkerTimedOut if it was the process that ended. Exceptions with a `kind` and DataError are raised as
                they are. After any of these the next call works.
            HostError: This machine has no memory or no disk. Nothing is to be recorded of the candidate.
        """
        name = function if isinstance(function, str) else function.__qualname__
        limit_s = CALL_S_MAX if timeout_s is None else timeout_s

        def attempt(again: bool) -> Any:
            pool = self._running_pool()
            return self._result(pool.schedule(_run, (function, args, name), timeout=limit_s), name, tick)

        return self._twice(attempt, name)

    def _twice(self, attempt: Callable[[bool], Any], name: str) -> Any:
        try:
            return attempt(False)
        except SUSPECTS as error:
            self.close()  # what ran out of memory may hold it still
            self._on_retry(f"{error}; tried once more in a new process")
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

    def _result(self, future: Future[Any], name: str, tick: Callable[[], None] | None) -> Any:
        stopped_s = 0.0
        try:
            while not wait([future], TICK_S).done:
                stopped_s = self._wake_stopped(stopped_s)
                if tick:
                    tick()
        except BaseException:  # Ctrl-C, or `tick` said stop: nobody wants the result any more
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
            if len(error.args) == 2 and error.args[0] == "Task timeout":  # pebble's own, not the function's
                raise WorkerTimeoutError(f"{name} took more than {error.args[1]:g} s and was ended") from None
            raise

    def _wake_stopped(self, stopped_s: float) -> float:
        """Seconds the process has been seen stopped; woken up when that is too long for a Ctrl-Z of both."""
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
    """Ties the process to its owner's life and its output to the log."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # it died before we asked
        os._exit(1)
    # at once: a Python handler would wait for the end of torch's current step
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _log_to(log)
    # These are read once, when torch is imported. Threads that wait by spinning make a training thirty times slower
    # as soon as anything else wants a core; asleep they cost nothing then and little otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would otherwise send what it is used for
    if threads is not None:
        os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)


def _log_to(log: str) -> None:
    """Send all output to the log, or nowhere: what can't be logged ends no work."""
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
    """A file descriptor that takes everything, though the disk may be full."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            os.write(self._number, data)
        return len(memoryview(data))


def _run(function: Callable[..., Any] | str, args: tuple[Any, ...], name: str) -> Any:
    try:
        work = pkgutil.resolve_name(function) if isinstance(function, str) else function
        result = work(*args)
        is_sendable = _can_be_sent(result)
    except Exception as error:
        answer = as_sendable(error, name)
        if _can_be_sent(answer):
            raise answer from None
        sendable = WorkerError(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sendable.kind = getattr(error, "kind", WorkerError.kind)
        raise sendable from None
    if not is_sendable:
        raise WorkerError(f"the {type(result).__name__} it returned cannot be sent between processes")
    return result


def _can_be_sent(value: Any) -> bool:
    """An exception with a constructor of its own can be packed but not unpacked, which would end the pool."""
    try:
        pickle.loads(pickle.dumps(value))
    except MemoryError:
        raise
    except Exception:
        return False
    return True
