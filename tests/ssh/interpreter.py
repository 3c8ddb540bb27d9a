"""A Python for the board: with onnxruntime and numpy, readable by everybody, and with nothing of ours."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from remote.errors import DeviceConfigError
from remote.ssh import check_python
from tests.ssh.rig import Rig

PACKAGES = ("onnxruntime", "numpy")
TRY = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import numpy, onnxruntime"
LEFT_OUT = (
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages", "dist-packages"),
    *("config-*", "*.a", "*.pyi", "*.opt-*.pyc"),
)
# Where the interpreter looks for its own library may be a folder that others can't enter.
WRAPPER = """#!/bin/sh
export LD_LIBRARY_PATH="{folder}/lib" PYTHONPATH="{folder}/packages"
exec "{folder}/bin/{name}" "$@"
"""


def board_python(rig: Rig) -> str:
    """Path of an interpreter that the board's user can run: the one running now if they can, else a copy."""
    if _serves(rig, sys.executable):
        return sys.executable
    began_s = time.monotonic()
    print(f"\n{rig.user} can't run {sys.executable} or import {' and '.join(PACKAGES)} in it: copying", flush=True)
    python = _copy(rig.folder / "python")
    if not _serves(rig, python):
        said = rig.run(f'{python} -c "{TRY}"').stderr
        raise RuntimeError(f"the board's Python does not work: {said[-500:]}")
    size_mb = sum(path.stat().st_size for path in (rig.folder / "python").rglob("*") if path.is_file()) >> 20
    print(f"copied {size_mb} MB in {time.monotonic() - began_s:.1f} s", flush=True)
    return python


def _serves(rig: Rig, python: str) -> bool:
    try:
        return rig.run(f'{check_python(python)} -c "{TRY}"').returncode == 0
    except DeviceConfigError:
        return False


def _copy(folder: Path) -> str:
    """A script that starts the copy: the base interpreter, the standard library, and the two packages."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / name
    # compiled files too, dates and all: the user can't write any, and would compile everything at every start
    for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        shutil.copytree(path, library, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    (folder / "bin").mkdir()
    shutil.copy2(Path(sys.base_prefix) / "bin" / name, folder / "bin" / name)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        shared = str(sysconfig.get_config_var("INSTSONAME"))
        shutil.copy2(Path(str(sysconfig.get_config_var("LIBDIR"))) / shared, folder / "lib" / shared)
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec and spec.origin, f"{package} is not installed"
        home = Path(spec.origin).parent
        shutil.copytree(home, folder / "packages" / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for beside in home.parent.glob(f"{package}[.-]*"):  # its own libraries, and its version
            shutil.copytree(beside, folder / "packages" / beside.name)
    wrapper = folder / "bin" / "python"
    wrapper.write_text(WRAPPER.format(folder=folder, name=name))
    wrapper.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    subprocess.run([str(wrapper), "-c", TRY], check=True)  # compiles what was not
    return str(wrapper)
