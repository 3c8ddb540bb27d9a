"""Keep the names that modules, classes and functions had before they were regrouped, with a DeprecationWarning.

`deprecated_names.toml` holds the old names, for scripts of users. Nothing in this project uses one; a test holds that.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import tomllib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


@cache
def read_table() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return today's module by its old name, and by today's module its new (or dotted) names by the old ones."""
    table = tomllib.loads((HERE / "deprecated_names.toml").read_text(encoding="utf-8"))
    return table["modules"], table["names"]


def install() -> None:
    """Let imports find old names from now on; once a process."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())
        sys.meta_path.append(_OldModules())


def _finder_of(module: str, home: str) -> Callable[[str], object]:
    """Return the `__getattr__` of `module`, whose old names are found in the module `home`."""

    def find(name: str) -> object:
        new = read_table()[1].get(home, {}).get(name)
        is_submodule = (HERE.parent.joinpath(*module.split(".")) / f"{name}.py").exists()
        if name.startswith("__") or is_submodule or (new is None and home == module):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        found: object = attrgetter(new or name)(importlib.import_module(home))
        warnings.warn(f"{module}.{name} is {home}.{new or name} now", DeprecationWarning, stacklevel=2)
        return found

    return find


class _OldModules(importlib.abc.MetaPathFinder):
    """Find modules by their old names, where no module has the name today."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of an old module; None for every other name."""
        modules, _ = read_table()
        if name not in modules:
            return None
        is_package = any(old.startswith(f"{name}.") for old in modules)
        return importlib.util.spec_from_loader(name, _Alias(modules[name]), is_package=is_package)


class _Alias(importlib.abc.Loader):
    """Load an old module, which has what today's module has under old and new names."""

    def __init__(self, home: str) -> None:
        self._home = home

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module, and warn."""
        home = importlib.import_module(self._home)
        vars(module).update({name: value for name, value in vars(home).items() if not name.startswith("__")})
        names = read_table()[1].get(self._home, {})
        vars(module).update({old: attrgetter(new)(home) for old, new in names.items()})
        warnings.warn(f"{module.__name__} is {self._home} now", DeprecationWarning, stacklevel=2)


class _OldNames(importlib.abc.MetaPathFinder):
    """Give modules that have new names, and packages that were modules, a `__getattr__` for the old names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec with a loader that adds the old names; None for every other module."""
        modules, names = read_table()
        home = modules.get(name, name)
        if not home.startswith(f"{name}.") and name not in names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithOldNames(spec.loader, home if home.startswith(f"{name}.") else name)
        return spec


class _WithOldNames(importlib.abc.Loader):
    """Load a module as its own loader does, and add the old names."""

    def __init__(self, inner: importlib.abc.Loader, home: str) -> None:
        self._inner, self._home = inner, home

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader creates."""
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then add its old names."""
        self._inner.exec_module(module)
        vars(module).setdefault("__getattr__", _finder_of(module.__name__, self._home))
