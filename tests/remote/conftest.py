"""A real agent on this machine, with a cache and a lock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.connect import open_session
from remote.device import Device
from remote.link.session import Session
from tests.remote import models

LOCAL = Device(name="local", profile="local", host=None, python=None, runtime="onnxruntime")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cache and lock folder of the agents started in this module."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("EDGEFRONT_LOCK_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def session(home: Path) -> Iterator[Session]:
    with open_session(LOCAL) as session:
        yield session


@pytest.fixture(scope="module")
def graphs(home: Path) -> dict[str, Path]:
    """Model files by what they do."""
    made = {
        "linear": models.linear(),
        "convolution": models.convolution(),
        "endless": models.endless(),
        "huge": models.huge(),
        "unknown_op": models.unknown_op(),
    }
    return {name: models.saved(home, name, model) for name, model in made.items()}
