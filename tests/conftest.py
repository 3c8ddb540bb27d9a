"""Decide which tests may run beside others, and in what order: all but those that are marked `alone`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no core ends on a long one while the others have nothing left to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.path.relative_to(HERE).parts[0] == "ssh":  # one board for all of them
            item.add_marker(pytest.mark.xdist_group("ssh"))


@pytest.fixture(scope="session", autouse=True)
def own_turns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the timings of tests that run side by side take turns in folders of their own, not wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ and "EDGEFRONT_LOCK_DIR" not in os.environ:
            patch.setenv("EDGEFRONT_LOCK_DIR", str(tmp_path_factory.mktemp("turns")))
            patch.setenv("EDGEFRONT_OWN_TURNS", "1")
        yield
