"""The rooms and who may enter them: imports go one way."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_ENTER = {
    "spaces": {"spaces"},  # and remote.errors, the root of every exception
    "remote": {"remote"},
    "evaluators": {"evaluators", "spaces", "remote"},
    "search": {"search", "evaluators", "spaces", "remote"},
    "reports": {"reports", "search", "evaluators", "spaces", "remote"},
}
FOR_ALL = ("remote.errors", "remote.deprecated_names")  # the root of every exception, and old import names
# Inside a package a sub-package imports these others, and files of the package itself.
MAY_USE = {
    "search.bayesopt": set(),
    "search.storage": set(),
    "search.pipeline": {"search.storage"},
    "search.selection": {"search.pipeline", "search.storage"},
    "search.sampling": {"search.bayesopt", "search.pipeline", "search.selection", "search.storage"},
    "search.samplers": {"search.bayesopt", "search.sampling"},
    "search.engines": {"search.pipeline", "search.sampling", "search.selection", "search.storage"},
    "search.runs": {
        *("search.bayesopt", "search.engines", "search.pipeline"),
        *("search.sampling", "search.selection", "search.storage"),
    },
    "evaluators.data": set(),
    "evaluators.export": set(),
    "evaluators.timing": set(),
    "evaluators.training": {"evaluators.data"},
    "evaluators.quantization": {"evaluators.export", "evaluators.training"},
    "evaluators.stages": {
        *("evaluators.data", "evaluators.export", "evaluators.quantization", "evaluators.training"),
    },
    "remote.checks": set(),
    "remote.link": set(),
    "remote.onboard": set(),
    "remote.runtimes": set(),
    "remote.simulated": {"remote.link"},
    "remote.inventory": {"remote.simulated"},
    "spaces.families": set(),
    "spaces.operations": set(),
}
# What a user starts. They may know every room; nothing but another of them imports them.
ENTRY_POINTS = {"search.run", "search.polish", "spaces.show", "remote.devices", "remote.doctor"}
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
    entered = {
        name.split(".")[0]
        for name in imported(path)
        if not name.startswith(("remote.errors", "remote.deprecated_names"))
    } & set(MAY_ENTER)
    assert entered <= MAY_ENTER[room]


def package(name: str) -> str:
    """The package that a module is in, by its name or by that of something in it."""
    parts = name.split(".")
    while not (ROOT.joinpath(*parts).is_dir()):
        parts.pop()
    return ".".join(parts)


def test_every_sub_package_has_its_place():
    inner = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES if len(path.relative_to(ROOT).parts) == 3}
    assert inner == set(MAY_USE)


@pytest.mark.parametrize("name", sorted(MAY_USE))
def test_sub_package_imports_only_what_it_may_use(name):
    used: set[str] = set()
    for path in sorted(ROOT.joinpath(*name.split(".")).glob("*.py")):
        used |= {package(found) for found in imported(path) if found.startswith(name.split(".")[0] + ".")}
    assert {found for found in used if "." in found} - {name} <= MAY_USE[name]


def test_imports_have_no_circle():
    graph = {module(path): set() for path in FILES}
    for path in FILES:
        graph[module(path)] = imported(path) & set(graph)
    while leaves := {name for name, uses in graph.items() if not uses & set(graph)}:
        graph = {name: uses for name, uses in graph.items() if name not in leaves}
    assert not graph, f"among these is a circle: {sorted(graph)}"


def test_every_part_sent_to_a_device_exists():
    """`part("name")` is looked up on the device, where no import fails here."""
    there = {path.stem for folder in ("onboard", "runtimes") for path in (ROOT / "remote" / folder).glob("*.py")}
    asked = {}
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "part"
            if is_call and node.args and isinstance(node.args[0], ast.Constant):
                asked[str(node.args[0].value).removeprefix("runtimes/")] = module(path)
    assert len(asked) >= 9 and {name: by for name, by in asked.items() if name not in there | {"agent"}} == {}


def test_every_task_of_the_worker_exists():
    """Tasks are named by text, so that what asks for one need not import torch; what they return is annotated there."""
    tree = ast.parse((ROOT / "evaluators/training/tasks.py").read_text(encoding="utf-8"))
    tasks = [node for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call)]
    assert len(tasks) >= 15
    for task in tasks:
        where, _, name = task.value.args[0].value.partition(":")
        found = ast.parse((ROOT / f"{where.replace('.', '/')}.py").read_text(encoding="utf-8"))
        [function] = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert ast.unparse(function.returns) == ast.unparse(task.annotation.slice), name


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_imports_an_entry_point(path):
    """But for another entry point, and the Python API, whose imports are for type checkers alone."""
    if path == ROOT / "search" / "__init__.py" or module(path) in ENTRY_POINTS:
        return
    assert not imported(path) & ENTRY_POINTS


def test_packages_hold_no_code():
    """But for the Python API in `search`, which is imported when it is asked for."""
    inits = [
        p for room in MAY_ENTER for p in (ROOT / room).rglob("__init__.py") if p != ROOT / "search" / "__init__.py"
    ]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")).body for path in inits}
    code = {path: [node for node in body if not isinstance(node, ast.Expr)] for path, body in trees.items()}
    code = {path: [ast.unparse(node) for node in nodes] for path, nodes in code.items() if nodes}
    assert all(words == ["from remote.deprecated_names import install"] for words in code.values())
    assert {path.parent.name for path in code} == {"evaluators", "remote", "reports", "spaces"}


@pytest.mark.alone
@pytest.mark.parametrize("entry", sorted(ENTRY_POINTS))
def test_help_answers_at_once(entry):
    """Under a second even on a busy machine, which the best of three stands for."""
    took: list[float] = []
    while len(took) < 3 and min(took, default=1.0) >= 1.0:
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
