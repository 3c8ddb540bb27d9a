"""Simulated boards with a cache of their own, and graphs to run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote.connect import open_session
from remote.inventory.resolve import load_device
from remote.link.session import Session

Opens = Callable[..., Session]


@pytest.fixture
def opens(home: Path) -> Iterator[Opens]:
    """Opens sessions with `sim:` boards, and closes them."""
    sessions: list[Session] = []

    def open_one(spec: str, **options) -> Session:
        sessions.append(open_session(load_device(f"sim:{spec}"), **options))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()
