"""An upload that broke off goes on where it stopped, whoever interrupted it."""

from __future__ import annotations

import hashlib
import os

from remote.agent import BLOB, ERROR, FRAME, RESPONSE
from tests.remote.test_agent import Bare, stored

DATA = os.urandom(100_000)
NAME = hashlib.sha256(DATA).hexdigest()


def stat(agent: Bare) -> dict:
    agent.ask(1, op="stat", sha256=NAME)
    return agent.hear().body


def put(agent: Bare, offset: int, data: bytes):
    agent.ask(2, op="put", sha256=NAME, size=len(DATA), offset=offset)
    agent.blob(2, data)
    return agent.hear()


def broken_off(sent: int) -> None:
    """An agent that received that much, and then lost its controller."""
    agent = Bare()
    agent.ask(2, op="put", sha256=NAME, size=len(DATA))
    agent.send(FRAME.pack(BLOB, 2, len(DATA)) + DATA[:sent])
    assert agent.end() == 0


def test_it_goes_on_where_it_stopped(home):
    broken_off(60_000)
    agent = Bare()
    found = stat(agent)
    assert found == {"have": False, "partial": 60_000}
    assert put(agent, 60_000, DATA[60_000:]).kind == RESPONSE
    assert stat(agent) == {"have": True, "partial": 0}
    assert (home / "edgefront" / "blobs" / NAME).read_bytes() == DATA
    (home / "edgefront" / "blobs" / NAME).unlink()
    assert agent.end() == 0


def test_a_damaged_beginning_is_found_out_and_dropped(home):
    broken_off(1000)
    part = home / "edgefront" / "blobs" / f"part-{NAME}"
    part.write_bytes(b"x" * 1000)
    agent = Bare()
    answer = put(agent, 1000, DATA[1000:])
    assert (answer.kind, answer.body["kind"]) == (ERROR, "wrong_hash") and not part.exists()
    assert put(agent, 0, DATA).kind == RESPONSE
    (home / "edgefront" / "blobs" / NAME).unlink()
    assert agent.end() == 0


def test_more_is_claimed_to_be_there_than_is(home):
    agent = Bare()
    answer = put(agent, 5000, DATA[5000:])
    assert (answer.kind, answer.body["kind"]) == (ERROR, "moved")
    assert agent.works() and NAME not in stored(home)
    assert agent.end() == 0


def test_two_agents_receive_the_same_blob_at_once(home):
    one, two = Bare(), Bare()
    one.ask(2, op="put", sha256=NAME, size=len(DATA))
    one.send(FRAME.pack(BLOB, 2, len(DATA)) + DATA[:50_000])
    while not (home / "edgefront" / "blobs" / f"part-{NAME}").exists():
        assert one.process.poll() is None
    assert stat(two)["partial"] == 0  # it is being received
    assert put(two, 0, DATA).kind == RESPONSE
    one.send(DATA[50_000:])
    assert one.hear().kind == RESPONSE
    assert (home / "edgefront" / "blobs" / NAME).read_bytes() == DATA
    assert not [name for name in stored(home) if name.startswith("part-")]
    assert one.end() == two.end() == 0
