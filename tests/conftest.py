"""Which tests may run beside others: all but those that time something on this machine, where load would show."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Others mark themselves. What simulates a device, or is a fake of a runtime's, times nothing on this machine.
ALONE = ("ssh", "test_command.py", "test_readme.py", "remote/link", "remote/test_", "remote/simulated/test_failures.py")
ALONE += ("remote/simulated/test_boards.py", "remote/checks", "remote/onboard", "benchmarks/test_peers.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).as_posix().startswith(ALONE):
            item.add_marker(pytest.mark.alone)
