"""Manage a run's folder: lock it for one process, record its settings, and identify the code version."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from evaluators.cache_lock import hold_lock
from evaluators.training.jobs import CHECKPOINT
from remote.errors import UserError
from remote.files import FULL, host_error, remove_parts
from search import settings as settings_files
from search.settings import Settings, SettingsError
from spaces.space import presets

LOCK = ".lock"
DAY_S = 86400.0
BEFORE_TRIALS = ("state", "calibration", "incident")  # stages of the entries that precede all trials


def command(settings: Settings) -> str:
    """Return the command line of these settings, quoted for a shell, without default values."""
    default = asdict(Settings(budget_ms=settings.budget_ms))
    words = ["python", "-m", "search.run"]
    for name, value in asdict(settings).items():
        if name == "budget_ms" or value != default[name]:
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            several = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
            for shown in value if several else (_format_setting(value),):
                words += [f"{option}={shown}"] if shown.startswith("-") else [option, shown]
    return shlex.join(words)


def _format_setting(value: object) -> str:
    """Return a setting in the notation of the command line; numbers are not rounded."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def cache_folder(settings: Settings) -> Path:
    """Return the cache folder, which is created if missing.

    Raises:
        SettingsError: The folder can't be created or written; one line explains why.
        HostError: The disk is full.
    """
    folder = _cache_path(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable("--cache", folder, error) from None
    return folder


def _cache_path(settings: Settings) -> Path:
    try:
        return Path(settings.cache).expanduser()
    except RuntimeError:
        raise SettingsError(f"--cache {settings.cache}: there is no home directory; name a folder") from None


def _unwritable(option: str, folder: Path, error: OSError) -> Exception:
    """Return the exception to raise if a folder that the user named can't be written."""
    if error.errno in FULL and (found := host_error(error, f"writing {folder}")):
        return found
    return SettingsError(f"{option} {folder} can't be written: {error.strerror}; name another folder")


def code_version() -> str:
    """Return the commit of this checkout, with `+` if files were changed; outside a checkout, the package's version."""
    here = Path(__file__).parents[1]
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return version("edgefront")
    return commit.stdout.strip()


def with_absolute_paths(settings: Settings) -> Settings:
    """Return the settings with absolute paths of space, families and models, valid in any working directory."""
    try:
        families, models = (
            tuple(str(Path(file).expanduser().resolve()) for file in files)
            for files in (settings.family, settings.model)
        )
        space = Path(settings.space).resolve() if settings.space is not None else None
    except RuntimeError as error:
        raise SettingsError(f"{', '.join([*settings.family, *settings.model])}: {error}") from None
    is_file = space is not None and settings.space not in presets() and space.is_file()
    return replace(settings, family=families, model=models, space=str(space) if is_file else settings.space)


def new_folders(folder: Path) -> tuple[Path, ...]:
    """Return the missing folders of a path, innermost first; empty if that can't be determined."""
    try:
        return tuple(path for path in (folder, *folder.parents) if not path.exists())
    except OSError:  # the name is too long or a folder is not readable: creating it reports that
        return ()


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _remove_old(files: Iterable[Path], older_s: float) -> None:
    """Remove the files that were not written for `older_s` seconds."""
    for file in files:
        with suppress(OSError):
            if time.time() - file.stat().st_mtime >= older_s:
                file.unlink()


@contextmanager
def open_cache(settings: Settings) -> Iterator[Path]:
    """Context manager that yields the cache folder, and removes a new one that stayed empty.

    On entry it removes partial files of killed runs that were not written for a day, and states of interrupted
    trainings that were not for a week.

    Raises:
        SettingsError: The folder can't be created or written; one line explains why.
        HostError: The disk is full.
    """
    new = new_folders(_cache_path(settings))
    folder = cache_folder(settings)
    with hold_lock(folder / ".sweep.lock") as is_held:
        if is_held:
            for below in (folder, *folder.glob("*/"), *folder.glob("*/*/")):
                remove_parts(below, older_s=DAY_S)
                _remove_old(below.glob(f"*{CHECKPOINT}"), 7 * DAY_S)
    try:
        yield folder
    finally:
        remove_empty(new)


@contextmanager
def lock_run_directory(folder: Path, settings: Settings) -> Iterator[Settings]:
    """Context manager that locks the run folder and yields the settings to run with.

    A rejected start leaves no trace: everything that it created is removed again.

    Args:
        folder: Run folder; it is created if missing.
        settings: Settings of this call.

    Yields:
        The recorded settings with the permitted changes, or `settings` for a new run.

    Raises:
        SettingsError: The folder can't be written, is locked by another run, or holds other files or another run.
    """
    settings = with_absolute_paths(settings)
    new = new_folders(folder)
    try:
        with _lock_folder(folder) as is_own:
            recorded = folder / "config.toml"
            is_new = not recorded.exists()
            try:
                if not is_new:
                    settings = settings_files.go_on(
                        with_absolute_paths(settings_files.from_toml(recorded)), settings, folder
                    )
                elif any(path.name != LOCK for path in folder.iterdir()):
                    is_new = False
                    raise SettingsError(f"--out {folder} holds other files and no run: name an empty or new folder")
                for below in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                    remove_parts(below)  # no other process writes here
                settings_files.write(replace(settings, out=str(folder)), recorded)
                yield settings
            except UserError:
                if is_new and not _has_begun(folder):
                    _empty(folder)
                if is_own:
                    (folder / LOCK).unlink(missing_ok=True)
                raise
    except UserError:
        remove_empty(new)
        raise


@contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Context manager that locks a run folder, and yields whether it created the lock file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_own = not (folder / LOCK).exists()
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise _unwritable("--out", folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise SettingsError(f"another search is running in {folder}: name another --out") from None
        except OSError as error:
            print(
                f"note: {folder} can't be locked ({error.strerror}): start no second search in it meanwhile",
                file=sys.stderr,
            )
        yield is_own


def _has_begun(folder: Path) -> bool:
    """Return True if a run measured anything besides the device itself."""
    try:
        lines = (folder / "ledger.jsonl").read_bytes().splitlines()
        return any(json.loads(line)["stage"] not in BEFORE_TRIALS for line in lines)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _empty(folder: Path) -> None:
    """Remove everything in a run folder except its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
