"""Old names of modules, classes and functions go on working, with a warning; nothing here uses one."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

from remote.deprecated_names import read_table

ROOT = Path(__file__).parents[2]
MODULES, NAMES = read_table()


@pytest.mark.parametrize("old", [name for name in MODULES if not MODULES[name].startswith("remote.onboard")])
def test_an_old_module_is_found_and_warns(old):
    with pytest.warns(DeprecationWarning, match=re.escape(MODULES[old])):
        sys.modules.pop(old, None) if not MODULES[old].startswith(f"{old}.") else None
        found = importlib.import_module(old)
        names = [n for n in vars(importlib.import_module(MODULES[old])) if not n.startswith("_")]
        if not names:
            return
        name = names[0]
        if not hasattr(found, "__path__") or not (ROOT / f"{old.replace('.', '/')}/{name}.py").exists():
            assert getattr(found, name) is getattr(importlib.import_module(MODULES[old]), name)


@pytest.mark.parametrize("module", sorted(NAMES))
def test_every_old_name_stands_for_one_of_today(module):
    home = importlib.import_module(module)
    for old, new in NAMES[module].items():
        assert attrgetter(new)(home) is not None
        if old not in vars(home):
            with pytest.warns(DeprecationWarning, match=new):
                assert getattr(home, old) is attrgetter(new)(home)


def test_a_name_that_never_was_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = importlib.import_module("spaces.candidate").nothing
    with pytest.raises(ImportError):
        importlib.import_module("evaluators.nothing")


def test_nothing_here_uses_an_old_name():
    code = "import warnings; warnings.simplefilter('error', DeprecationWarning)\n" + "\n".join(
        f"import {path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}"
        for package in ("search", "spaces", "evaluators", "remote", "reports")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.name.startswith("__") and not {"onboard", "runtimes"} & set(path.parts) and path.name != "agent.py"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    old = [line for line in done.stderr.splitlines() if " now" in line and "DeprecationWarning" in line]
    assert old == [], done.stderr
