"""Run a search from the command line or from Python.

`python -m search.run` finds the most accurate image model that keeps a latency budget on a device. In Python,
`search(Settings(budget_ms=5, data="./defects"))` returns a Result.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from remote.exit_codes import BUG, DEVICE, HOST, NOTHING_FITS, OK, USER
from search.cli import PROG, parser, settings_of
from search.settings import Settings, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.data.resizing import Preprocessing
    from search.result import Result

GOES_ON = "all measurements are kept; run the same command to resume"


def search(settings: Settings, console: Console | None = None) -> Result:
    """Run or resume the search that the settings describe, and write its run folder.

    Args:
        settings: Settings of the search.
        console: Console for progress output; None prints nothing.

    Returns:
        The result, which was also written as a report.

    Raises:
        SettingsError: Like DataError, SpaceError and DeviceConfigError, an error of the user; one line says how to fix
            it.
        DeviceError: The connection to the device was lost. The same search resumes where it stopped.
        HostError: This machine has no disk space or memory left. The same search resumes where it stopped.
    """
    from rich.console import Console

    from reports.model_bundle import remove_chosen, write_chosen
    from reports.run_report import write
    from search.runs.device_run import run

    def publish(result: Result, preprocessing: Preprocessing, classes: tuple[str, ...]) -> None:
        write(result, result.folder)
        if result.choice and result.choice.model_path:  # a table has no model file
            write_chosen(result, classes, preprocessing)
        else:
            remove_chosen(result.folder)

    return run(settings, console or Console(quiet=True), publish)


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command line of a search and return its exit code.

    Args:
        argv: Arguments; None uses those of the process.
        prog: Program name as the user typed it.

    Returns:
        An exit code of `remote/exit_codes.py`, or 128 and the signal's number.
    """
    from search.signal_handling import Interrupted, have_streams, interruptible

    have_streams()
    try:
        with interruptible():
            return _command(argv, prog)
    except Interrupted as error:
        if error.number == signal.SIGPIPE:  # the reader of the output is gone
            _nowhere()
        else:
            why = "interrupted" if error.number == signal.SIGINT else f"ended by {error}"
            _say(f"\n{why}: {GOES_ON}")
        return error.exit_code
    except BrokenPipeError:  # raised by `--help | head -1`
        _nowhere()
        return 128 + signal.SIGPIPE


def _command(argv: list[str] | None, prog: str) -> int:
    args = parser(prog).parse_args(argv)
    try:
        settings = settings_of(args)
    except SettingsError as error:
        return _print_failure("error", error, USER)
    try:
        return _search_and_print(settings)
    except Exception as error:
        return _report_early_end(error, settings)


def _search_and_print(settings: Settings) -> int:
    from reports.terminal import summary
    from search.console_output import console_of

    console = console_of(sys.stdout)
    result = search(settings, console)
    console.print(summary(result))
    return OK if result.choice else NOTHING_FITS


def _report_early_end(error: Exception, settings: Settings) -> int:
    """Print the cause of an early end (user, device, this machine, or a bug) and return its exit code."""
    from remote.errors import DeviceError, HostError, UserError
    from remote.files import host_error
    from spaces.memory_errors import chain, is_out_of_memory

    if any(isinstance(cause, MemoryError) for cause in chain(error)):
        return _print_failure("host", "out of memory: free some, then run the same command to resume", HOST)
    if isinstance(error, UserError):
        return _print_failure("error", error, USER)
    if isinstance(error, DeviceError):
        return _print_failure("device", f"{error}; {GOES_ON}", DEVICE)
    if is_out_of_memory(error) and not isinstance(error, HostError):
        error = HostError(f"out of memory ({str(error)[:200]}): free some, then run the same command to resume")
    if isinstance(error, OSError):
        error = host_error(error, f"searching in {settings.out}") or error
    if isinstance(error, HostError):
        return _print_failure("host", error, HOST)
    return _bug(error, Path(settings.out))


def _bug(error: Exception, folder: Path) -> int:
    """Save the trace of an unexpected error in the run folder, or print it where that is impossible."""
    from remote.files import write_file

    trace, file = "".join(traceback.format_exception(error)), folder / "bug.txt"
    try:
        if not folder.is_dir():
            raise OSError
        write_file(file, trace)
    except OSError:
        print(trace, file=sys.stderr)
        file = Path("above")
    words = f"{type(error).__name__}: {error}"[:300]
    return _print_failure("bug", f"{words}; please report it with its trace, {file}; {GOES_ON}", BUG)


def _print_failure(whose: str, error: object, code: int) -> int:
    _say(f"{whose}: {error}")
    return code


def _say(text: str) -> None:
    """Print one line for people to standard error, which may be closed."""
    from remote.link.reply_parsing import printable

    start, line = ("\n", text[1:]) if text.startswith("\n") else ("", text)
    with contextlib.suppress(OSError, ValueError):
        print(start + printable(line), file=sys.stderr, flush=True)


def _nowhere() -> None:
    """Redirect the remaining output to the null device, since Python flushes its output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
