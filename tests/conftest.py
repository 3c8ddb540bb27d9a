"""Which tests may run beside others: all but those that time something on this machine, where load would show."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALONE = ("benchmarks", "remote", "ssh", "test_command.py", "test_readme.py")  # others mark themselves


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).parts[0] in ALONE:
            item.add_marker(pytest.mark.alone)
