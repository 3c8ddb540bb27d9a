"""What any file in remote/runtimes must have, by its being there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.runtimes.loading import part
from tests.remote.test_agent import old_pythons

REMOTE = Path(__file__).parents[3] / "remote"
FILES = sorted((REMOTE / "runtimes").glob("[a-z]*.py"))
TEXTS = FILES + sorted((REMOTE / "onboard").glob("[a-z]*.py"))

# argv: a JSON object of texts by name. Prints what every runtime offers.
OFFERS = """
import json, sys, types
texts, loaded = json.load(open(sys.argv[1])), {}
def part(name):
    if name not in loaded:
        loaded[name] = module = types.ModuleType(name)
        module.part = part
        exec(compile(texts[name], name, "exec"), module.__dict__)
    return loaded[name]
names = sorted(name for name in texts if name.startswith("runtimes/"))
print(json.dumps(dict((name[9:], part(name).offers()) for name in names)))
"""


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def name(request) -> str:
    return request.param.stem


@pytest.fixture
def runtime(name):
    return part(f"runtimes/{name}")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_it_is_python_3_6_and_imports_the_standard_library_only(path):
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and str(node.module).split(".")[0] in sys.stdlib_module_names - {"__future__"}
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_parts_are_asked_for_inside_functions_only(path):
    """At the top of a text there may be no `part` yet."""
    tree = ast.parse(path.read_text("utf-8"))
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names = [node.id for statement in top for node in ast.walk(statement) if isinstance(node, ast.Name)]
    assert "part" not in names


def test_it_says_what_it_is(runtime):
    assert runtime.NEEDS in ("onnx", "ncnn") and isinstance(runtime.BUILDS, bool)
    assert hasattr(runtime, "build") == runtime.BUILDS


def test_it_runs_models_one_way_or_the_other(runtime):
    whole = [hasattr(runtime, word) for word in ("measure", "predict")]
    assert whole == [not hasattr(runtime, "load")] * 2
    for word in ("offers", "libraries"):
        if function := getattr(runtime, word, None):
            assert function.__code__.co_argcount == 0
    if not any(whole):
        assert runtime.load.__code__.co_argcount == 2


def test_what_it_offers_goes_by_its_name(name, runtime):
    offered = runtime.offers()
    assert all((key.partition(":")[0] == name and key.partition(":")[2] != "") or key == name for key in offered)
    assert all(isinstance(version, str) and version for version in offered.values())


@pytest.mark.parametrize("python", old_pythons())
def test_offers_never_raises_under_any_python(python, tmp_path):
    texts = {f"runtimes/{path.stem}": path.read_text("utf-8") for path in FILES}
    texts |= {path.stem: path.read_text("utf-8") for path in TEXTS if path not in FILES}
    (tmp_path / "texts").write_text(json.dumps(texts))
    done = subprocess.run([python, "-c", OFFERS, str(tmp_path / "texts")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    offered = json.loads(done.stdout)
    assert set(offered) == {path.stem for path in FILES} and all(isinstance(item, dict) for item in offered.values())
