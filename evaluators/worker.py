"""One process for work that may crash, hang or run out of memory, and costs only itself when it does."""

from __future__ import annotations

import ctypes
import importlib
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

TICK_S = 0.25


class WorkerError(Exception):
    """The work ended without a result; one line. `kind` is the word for it in a `Failure`."""

    kind = "crashed"


class WorkerCrashed(WorkerError):
    """The process died: signal or exit code are in the message."""


class WorkerTimedOut(WorkerError):
    """The process was killed because it took too long."""

    kind = "timed_out"


class Worker:
    """A process that is kept from call to call, and replaced when it dies.

    Use it from the thread that lives longest: Linux kills the process when the thread that started it ends,
    which is how it never outlives its owner. What it prints goes to `log`.
    """

    def __init__(
        self, log: Path, threads: int | None = None, preload: tuple[str, ...] = ("evaluators.training",)
    ) -> None:
        self.log = log
        self._threads, self._preload = threads, preload
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

    def start(self) -> None:
        """Begins to import what the work needs, and returns at once."""
        self._warm = self._running_pool().schedule(_import, (self._preload,))

    def ready(self, tick: Callable[[], None] | None = None) -> None:
        """Returns when the imports of `start` are done: from then on the process is idle.

        Raises what an import raises; WorkerCrashed.
        """
        if self._warm is None:
            self.start()
        assert self._warm is not None  # start sets it
        self._result(self._warm, "its start", tick)

    def call(
        self,
        function: Callable[..., Any] | str,
        *args: Any,
        timeout_s: float | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Any:
        """What the function returns in the process; `tick` is called about four times a second meanwhile.

        A function of a module too heavy to import here is named: `evaluators.training:train_parent`.
        Raises what the function raises (a WorkerError with its text if that cannot be sent), WorkerCrashed,
        WorkerTimedOut. After any of these the next call works.
        """
        name = function if isinstance(function, str) else function.__qualname__
        pool = self._running_pool()
        return self._result(pool.schedule(_run, (function, args), timeout=timeout_s), name, tick)

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
        try:
            while not wait([future], TICK_S).done:
                if tick:
                    tick()
        except BaseException:  # Ctrl-C, or `tick` said stop: nobody wants the result any more
            self.close()
            raise
        try:
            return future.result()
        except ProcessExpired as error:
            raise WorkerCrashed(f"{name} {_death(error.exitcode)}; its output is in {self.log}") from None
        except BrokenProcessPool as error:
            raise WorkerCrashed(f"{name} lost its process ({error}); its output is in {self.log}") from None
        except CancelledError:
            raise WorkerCrashed(f"{name} was cancelled") from None
        except TimeoutError as error:
            if len(error.args) == 2 and error.args[0] == "Task timeout":  # pebble's own, not the function's
                raise WorkerTimedOut(f"{name} took more than {error.args[1]:g} s and was ended") from None
            raise


def _death(code: int) -> str:
    if code >= 0:
        return f"ended its process with exit code {code}"
    why = ", which the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{why}"


# --- in the process ---------------------------------------------------------------------------------------


def _set_up(log: str, owner: int, threads: int | None) -> None:
    """Ties the process to its owner's life and its output to the log."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != owner:  # it died before we asked
        os._exit(1)
    # at once: a Python handler would wait for the end of torch's current step
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # These are read once, when torch is imported. Threads that wait by spinning make a training thirty times slower
    # as soon as anything else wants a core; asleep they cost nothing then and little otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would otherwise send what it is used for
    if threads is not None:
        os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)


def _run(function: Callable[..., Any] | str, args: tuple[Any, ...]) -> Any:
    try:
        work = pkgutil.resolve_name(function) if isinstance(function, str) else function
        result = work(*args)
    except Exception as error:
        if _can_be_sent(error):
            raise
        sendable = WorkerError(f"{type(error).__name__}: {' '.join(str(error).split())}")
        sendable.kind = getattr(error, "kind", WorkerError.kind)
        raise sendable from None
    if not _can_be_sent(result):
        raise WorkerError(f"the {type(result).__name__} it returned cannot be sent between processes")
    return result


def _can_be_sent(value: Any) -> bool:
    """An exception with a constructor of its own can be packed but not unpacked, which would end the pool."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True
