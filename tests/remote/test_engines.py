"""Engines: built on the device in a process of their own, once, kept there, and blamed on the model when they fail."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.agent import BLOB, ERROR, EVENT, RESPONSE
from remote.link.transport import texts
from tests.remote.test_agent import Bare

# A runtime whose models are files of one line of Python and whose engines say how they were built.
TOY = """
import os, time
NEEDS, BUILDS = "onnx", True

def offers():
    return {"toy": "1.0"}

def build(job, path, out):
    text = open(path).read()
    if "refuse" in text:
        raise part("timing").JobError("unsupported", "no such operator here")
    if "die" in text:
        os.kill(os.getpid(), 9)
    if "hang" in text:
        time.sleep(60)
    with open(job["cache"] + "/builds.txt", "a") as file:
        file.write(job["precision"] + "\\n")
    with open(out, "w") as file:
        file.write("engine of %s at %s" % (text, job["precision"]))

class Model(object):
    gpu_ms = 0.5
    device_mb = 12.5

    def __init__(self, path):
        assert open(path).read().startswith("engine of ")

    def feed(self, floats):
        pass

    def run(self):
        time.sleep(0.0005)

    def output(self):
        return b"\\0" * 8

def load(job, path):
    return Model(path)
"""


@pytest.fixture
def toy(home: Path) -> Iterator[Bare]:
    parts = texts() | {"runtimes/toy": TOY}
    agent = Bare(source=zlib.compress(f"{parts['agent']}\nPARTS = {parts!a}\nmain()\n".encode()))
    agent.ask(1, op="hello", protocol=1, silence_s=30, cache_mb=64, who="test")
    assert agent.hear().body["runtimes"]["toy"] == "1.0"
    yield agent
    assert agent.end() == 0


def put(agent: Bare, text: str) -> str:
    name = hashlib.sha256(text.encode()).hexdigest()
    agent.ask(2, op="put", sha256=name, size=len(text))
    agent.blob(2, text.encode())
    assert agent.hear().kind == RESPONSE
    return name


def timed(agent: Bare, model: str, **more):
    """(events, answer) of one timing."""
    agent.ask(
        3,
        **{
            "op": "time",
            "model": model,
            "reference": put(agent, "the reference"),
            "runtime": "toy",
            "threads": 1,
            "pairs": 5,
            "seconds_max": 1.0,
            "deadline_s": 20.0,
        }
        | more,
    )
    events = []
    while (frame := agent.hear()).kind == EVENT:
        events.append(frame.body["event"])
    return events, frame


def builds(home: Path) -> list[str]:
    return (home / "edgefront" / "timing" / "builds.txt").read_text().split()


def test_an_engine_is_built_once_for_the_same_options(toy, home):
    model = put(toy, "a model")
    events, first = timed(toy, model, precision="fp16")
    assert first.kind == RESPONSE and events == ["started", "building", "building"]
    assert first.body["build_s"] > 0 and first.body["device_mb"] == 12.5
    assert len(first.body["gpu_ms"]) == len(first.body["wall_ms"]) == 5
    assert builds(home) == ["fp16", "fp32"]  # the reference is always fp32
    events, again = timed(toy, model, precision="fp16")
    assert events == ["started"] and again.body["build_s"] == 0
    events, _ = timed(toy, model, precision="int8")
    assert events == ["started", "building"] and builds(home) == ["fp16", "fp32", "int8"]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [("refuse", "unsupported", "operator"), ("die", "crashed", "signal 9"), ("hang", "timed_out", "not finished")],
)
def test_a_failing_build_is_the_models_fault_and_leaves_nothing(toy, home, text, kind, words):
    before = {path.name for path in (home / "edgefront" / "engines").iterdir()}
    _, answer = timed(toy, put(toy, text), build_deadline_s=0.5)
    assert (answer.kind, answer.body["kind"]) == (ERROR, kind) and words in answer.body["reason"]
    assert {path.name for path in (home / "edgefront" / "engines").iterdir()} == before
    assert toy.works()


def test_predictions_come_from_the_engine(toy):
    rows = "\0" * 48
    data = put(toy, rows)
    toy.ask(
        4,
        op="predict",
        model=put(toy, "another model"),
        data=data,
        shape=[1, 3, 2, 2],
        runtime="toy",
        threads=1,
        deadline_s=20.0,
    )
    frames = [toy.hear()]
    while frames[-1].kind != BLOB:
        frames.append(toy.hear())
    assert [frame.body["event"] for frame in frames[:-2]] == ["started", "building"]
    assert frames[-2].body["shape"] == [1, 2] and frames[-1].body == b"\0" * 8


def test_no_engine_comes_off_the_wire(toy, home):
    """What was sent never passes for an engine: engines have a folder of their own and names made here."""
    sent = put(toy, "engine of evil")
    assert sent not in {path.name for path in (home / "edgefront" / "engines").iterdir()}
    _, answer = timed(toy, sent)
    assert answer.kind == RESPONSE and answer.body["build_s"] > 0
