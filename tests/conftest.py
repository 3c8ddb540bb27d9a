"""Decide which tests run side by side, and in what order.

All do but those marked `alone`, which assert how long something takes or that a timing was calm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BOARD = "tests/ssh/"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file without a test marked `alone` where only those are asked for: most of the time would go there."""
    if config.getoption("markexpr").split()[:1] != ["alone"] or collection_path.suffix != ".py":
        return None
    return b"mark.alone" not in collection_path.read_bytes() or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no core ends on a long one while the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Keep on one core what shares a set-up: the tests of a file, and all that use the board over ssh."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return BOARD if nodeid.startswith(BOARD) else nodeid.partition("::")[0]

    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the timings of tests that run side by side take turns in folders of their own, not wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ and "EDGEFRONT_LOCK_DIR" not in os.environ:
            patch.setenv("EDGEFRONT_LOCK_DIR", str(tmp_path_factory.mktemp("turns")))
            patch.setenv("EDGEFRONT_OWN_TURNS", "1")
        yield
