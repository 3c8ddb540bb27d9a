"""A run's folder: held by one process, its settings recorded, what made it."""

from __future__ import annotations

import fcntl
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from remote.files import FULL, host_error
from search import settings as settings_files
from search.settings import Settings, SettingsError
from spaces.space import presets


def command(settings: Settings) -> str:
    """Return the command that asks for these settings, quoted for a shell; defaults are left out."""
    default = asdict(Settings(budget_ms=settings.budget_ms))
    words = ["python", "-m", "search.run"]
    for name, value in asdict(settings).items():
        if name == "budget_ms" or value != default[name]:
            option = f"--{name.removesuffix('_s').replace('_', '-')}"
            several = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
            for shown in value if several else (_shown(value),):
                words += [f"{option}={shown}"] if shown.startswith("-") else [option, shown]
    return shlex.join(words)


def _shown(value: Any) -> str:
    """Return a setting as the command line takes it; no number is rounded."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def cache_folder(settings: Settings) -> Path:
    """Return the folder of the cache, made where it is missing.

    Raises:
        SettingsError: It can't be made or written; one line says why.
        HostError: The disk is full.
    """
    try:
        folder = Path(settings.cache).expanduser()
    except RuntimeError:
        raise SettingsError(f"--cache {settings.cache}: there is no home directory; name a folder") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable("--cache", folder, error) from None
    return folder


def _unwritable(option: str, folder: Path, error: OSError) -> Exception:
    """Return what to raise where a folder that the user named can't be written."""
    if error.errno in FULL and (found := host_error(error, f"writing {folder}")):
        return found
    return SettingsError(f"{option} {folder} can't be written: {error.strerror}; name another folder")


def code_version() -> str:
    """Commit of this checkout, with `+` if the tree was changed; the package's version outside one."""
    here = Path(__file__).parent
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


def located(settings: Settings) -> Settings:
    """Return the settings with space, families and models by where they lie, to be found from any folder."""
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


@contextmanager
def held(folder: Path, settings: Settings) -> Iterator[Settings]:
    """The settings to run with, while no other process may use the run folder."""
    settings = located(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
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
        recorded = folder / "config.toml"
        if recorded.exists():
            settings = settings_files.go_on(located(settings_files.from_toml(recorded)), settings, folder)
        elif any(path.name != ".lock" for path in folder.iterdir()):
            raise SettingsError(f"--out {folder} holds other files and no run: name an empty or new folder")
        for part in folder.rglob(".*.part"):  # what a kill left of files that were being written
            if part.is_file():
                part.unlink()
        settings_files.write(replace(settings, out=str(folder)), recorded)
        yield settings
