"""Create the peers' own virtual environment in a cache folder, once and after a change of its requirements."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def cache() -> Path:
    """Return the default folder of the environment."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgefront" / "peers"


def python(folder: Path) -> Path:
    """Return the interpreter of the environment in `folder`; creating a missing one takes minutes and 1 to 6 GB."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    mark, interpreter = folder / "requirements.sha256", folder / "bin" / "python"
    if interpreter.exists() and mark.exists() and mark.read_text() == wanted:
        return interpreter
    print(f"making the peers' environment in {folder} (minutes) ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    subprocess.run([interpreter, "-m", "pip", "install", "-q", "-r", REQUIREMENTS], check=True)
    mark.write_text(wanted)
    return interpreter


def run(interpreter: Path, script: str, *arguments: Path, log: Path) -> None:
    """Run a script beside this file in that environment; its output goes to `log`."""
    command = [str(interpreter), str(HERE / script), *map(str, arguments)]
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | QUIET, cwd=log.parent)
    if done.returncode:
        sys.exit(f"{script} failed with {done.returncode}; it said:\n{log.read_text()[-2000:]}")
