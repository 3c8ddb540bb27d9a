"""A run's folder: held by one process, its settings recorded, what made it."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from search import settings as settings_files
from search.settings import Settings, SettingsError


def command(settings: Settings) -> str:
    default = asdict(Settings(budget_ms=settings.budget_ms))
    words = [f"--budget-ms {settings.budget_ms:g}"]
    for name, value in asdict(settings).items():
        if name != "budget_ms" and value != default[name]:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            words.append(f"--{name.removesuffix('_s').replace('_', '-')} {shown}")
    return "python -m search.run " + " ".join(words)


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


@contextmanager
def held(folder: Path, settings: Settings) -> Iterator[Settings]:
    """The settings to run with, while no other process may use the run folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise SettingsError(f"--out {folder} can't be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another search is running in {folder}: name another --out") from None
        recorded = folder / "config.toml"
        if recorded.exists():
            settings = settings_files.go_on(settings_files.from_toml(recorded), settings, folder)
        elif any(path.name != ".lock" for path in folder.iterdir()):
            raise SettingsError(f"--out {folder} holds other files and no run: name an empty or new folder")
        settings_files.write(replace(settings, out=str(folder)), recorded)
        yield settings
