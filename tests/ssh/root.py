"""Commands that need root, which the tests are, or become by `sudo` where that asks for no password."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

_PREFIX = () if os.geteuid() == 0 else ("sudo", "-n")


def root(*argv: object, check: bool = True) -> str:
    """What the command prints, run as root. Raises RuntimeError with its last words."""
    command = [*_PREFIX, *map(str, argv)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment())
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def start_as_root(*argv: object, **options: Any) -> subprocess.Popen[bytes]:
    """The process."""
    return subprocess.Popen([*_PREFIX, *map(str, argv)], stdin=subprocess.DEVNULL, env=_environment(), **options)


def why_no_root() -> str:
    """Why nothing can be run as root here; empty where it can."""
    if not _PREFIX:
        return ""
    if shutil.which("sudo") is None:
        return "the tests do not run as root, and there is no sudo"
    done = subprocess.run([*_PREFIX, "true"], stdin=subprocess.DEVNULL, capture_output=True)
    return "the tests do not run as root, and sudo asks for a password" if done.returncode else ""


def _environment() -> dict[str, str]:
    """Where useradd and sshd are is not on every user's path."""
    return os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C"}
