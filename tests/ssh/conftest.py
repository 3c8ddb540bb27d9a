"""One board for all tests over ssh, and lines to it that are slow or die when told to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import pytest

from tests.ssh.interpreter import board_python
from tests.ssh.link import Link
from tests.ssh.rig import Rig, board, why_no_board

NUMBERS = count(1)


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """The board, entered as `board`. Where it can't be set up the tests are skipped, but not in CI."""
    if missing := why_no_board():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with board() as rig:
        rig = replace(rig, python=board_python(rig))
        rig.enter("board")
        yield rig


@pytest.fixture(autouse=True)
def entered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the board's names known, in this process and in those it starts, and take turns where the board does."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(rig.settings))
    if os.environ.get("EDGEFRONT_OWN_TURNS"):  # by tests/conftest.py
        monkeypatch.delenv("EDGEFRONT_LOCK_DIR")


@pytest.fixture
def line(rig: Rig) -> Iterator[Callable[..., tuple[str, Link]]]:
    """Makes a line to the board: (name of the device at its other end, the line)."""
    with ExitStack() as stack:

        def make(**options: float) -> tuple[str, Link]:
            link = stack.enter_context(Link(rig.port, **options))
            return rig.enter(f"board-{next(NUMBERS)}", link.port), link

        yield make
