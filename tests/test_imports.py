"""The rooms and who may enter them: imports go one way."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_ENTER = {
    "spaces": {"spaces"},
    "remote": {"remote"},
    "evaluators": {"evaluators", "spaces", "remote"},
    "search": {"search", "evaluators", "spaces", "remote"},
    "reports": {"reports", "search", "evaluators", "spaces", "remote"},
}
# What a user starts. They may know every room; nothing imports them.
ENTRY_POINTS = {"search.run", "spaces.show", "remote.devices", "remote.doctor"}
FILES = [path for room in MAY_ENTER for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Dotted names of every import in a file, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_file_enters_only_rooms_it_may(path):
    if module(path) in ENTRY_POINTS:
        return
    room = path.relative_to(ROOT).parts[0]
    entered = {name.split(".")[0] for name in imported(path)} & set(MAY_ENTER)
    assert entered <= MAY_ENTER[room]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_imports_an_entry_point(path):
    assert not imported(path) & ENTRY_POINTS


def test_packages_hold_no_code():
    assert [p for p in ROOT.rglob("__init__.py") if ".venv" not in p.parts and p.read_text().strip()] == []


@pytest.mark.parametrize("entry", sorted(ENTRY_POINTS))
def test_help_answers_at_once(entry):
    """Under a second even on a busy machine, which the best of three stands for."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", entry, "--help"], cwd=ROOT, capture_output=True, text=True)
        took.append(time.monotonic() - began)
        assert done.returncode == 0 and f"python -m {entry}" in done.stdout
    assert min(took) < 1.0, took


def test_the_controller_stays_light():
    """Opening a search imports no torch: training lives in its own process."""
    code = "import sys, search.runs.device_run; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
