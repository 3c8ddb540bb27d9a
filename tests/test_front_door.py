"""`edgefront COMMAND`, the Python API, and what is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import search
from search.__main__ import COMMANDS, SHELLS, main

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).with_name("edgefront")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "search", *words], cwd=ROOT, capture_output=True, text=True)


def test_help_lists_every_command_within_a_second():
    took_s: list[float] = []
    while len(took_s) < 3 and min(took_s, default=1.0) >= 1.0:
        began = time.monotonic()
        done = run("--help")
        took_s.append(time.monotonic() - began)
        assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
    assert min(took_s) < 1.0, took_s


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_says_how_it_was_started(name):
    done = run(name, "--help")
    assert done.returncode == 0 and f"usage: edgefront {name}" in done.stdout


def test_a_wrong_command_is_told_what_there_is(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serch"])
    assert ended.value.code == 2 and "'search'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_and_its_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS) and "--budget-ms" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_the_script_is_installed():
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("edgefront ")


def test_the_package_exports_its_api_and_imports_nothing_before_it_is_asked():
    assert search.Settings(budget_ms=5.0).budget() == search.Budget(latency_ms=5.0)
    assert (
        callable(search.search) and search.Result.__name__ == "Result" and search.Measurement.__name__ == "Measurement"
    )
    assert set(search.__all__) <= set(dir(search))
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        _ = search.serch
    code = "import sys, search; sys.exit(any(name.startswith(('numpy', 'optuna', 'search.')) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_package_ships_its_types():
    assert all(
        (ROOT / package / "py.typed").is_file() for package in ("search", "spaces", "evaluators", "remote", "reports")
    )
