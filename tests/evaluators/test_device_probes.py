"""Small models that show what a runtime really does: offered is what ran, and what is called ok has run."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from evaluators.device_probes import DeviceProbes, image, probe_model, untold
from evaluators.device_space import able_to, cut_to
from evaluators.runtime_checks import BusyError, host_answer, try_runtimes
from evaluators.timing.reference_model import reference_model
from remote.connect import open_session
from remote.device import Device, Int8Recipe, Layer
from remote.errors import CandidateError, DeviceError
from remote.link.retrying_session import RetryingSession, RetryPolicy
from remote.link.session import Event, Job, Session
from spaces.space import load
from tests.remote.conftest import LOCAL
from tests.remote.test_device import FACTS, PI_5, recorded

ROOT = Path(__file__).parents[2]
RUNTIMES = sorted(path.stem for path in (ROOT / "remote" / "runtimes").glob("[a-z]*.py"))
RECIPES = (
    Int8Recipe("uint8", symmetric=False, weight_bits=8),
    Int8Recipe("uint8", symmetric=False, weight_bits=7),
    Int8Recipe("int8", symmetric=True, weight_bits=8),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """This machine, connected, with every runtime that is installed on it."""
    folder = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        patch.setenv("EDGEFRONT_LOCK_DIR", folder)
        with open_session(LOCAL) as session:
            yield session


@pytest.mark.parametrize(
    ("precision", "recipe", "near"),
    [("fp32", None, 1e-5), ("fp16", None, 5e-3), *(("int8", recipe, 0.1) for recipe in RECIPES)],
)
def test_probe_model_computes_the_same_in_every_precision(precision, recipe, near):
    model = probe_model(precision, recipe)
    assert model == probe_model.__wrapped__(precision, recipe), "the same bytes every time"
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image()})[0].ravel()
    expected = host_answer()
    assert found.shape == (64,) and np.abs(found - expected).max() <= near * np.abs(expected).max()


def test_every_runtime_here_is_tried_and_answers_as_the_host_does(here):
    """What the doctor calls ok has run a model: no runtime is left out, and none is taken on trust."""
    tried = try_runtimes(here, LOCAL, "")
    assert set(tried) == set(here.facts.runtimes) and "onnxruntime" in tried
    for name, one in tried.items():
        assert not one.failed and not one.skipped and one.ms and one.ms > 0, (name, one)
        assert one.difference is not None and one.difference < 0.02, (name, one)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="ONNX Runtime computes fp16 on arm64")
def test_fp16_is_not_offered_to_onnxruntime_where_none_of_its_layers_run_in_it(here):
    """Whatever the processor has: the flag is set here, as it is on CPUs with fp16 arithmetic."""
    facts = replace(here.facts, cpu_flags=(*here.facts.cpu_flags, "avx512_fp16"))
    space = load("tiny")
    plain, able = cut_to(space, facts, "onnxruntime")
    assert "fp16" in able.precisions, "by its facts alone it would be"
    probed, able = cut_to(space, facts, "onnxruntime", DeviceProbes(RetryingSession(here), facts, None))
    assert "fp16" not in able.precisions and "0 of " in able.why_not["fp16"] and "onnxruntime" in able.why_not["fp16"]
    assert "int8" in able.precisions and "layers of a probe" in able.basis["int8"]
    assert probed.size() < plain.size() and "fp16" not in probed.axes["precision"]


class Told:
    """A session whose runtime tells what it is told to tell."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def put(self, data: bytes) -> str:
        return "digest"

    def layers(self, model: str, job: Any, seconds_max: float) -> Any:
        self.asked.append(job.precision)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ran(*precisions: str) -> tuple[tuple[Layer, ...], str]:
    return tuple(Layer(f"l{i}", "Conv", precision, 0.1) for i, precision in enumerate(precisions)), ""


PI = replace(recorded(PI_5, "aarch64")[0], runtimes={"onnxruntime": "1.31.1", "ncnn": "1.0"})


@pytest.mark.parametrize(
    ("answer", "offered", "words"),
    [
        (ran("fp16", "fp16", "fp16"), True, "3 of 3 layers"),
        (ran("fp16", "fp16", "fp32"), True, "2 of 3 layers"),
        (ran("fp16", "fp32", "fp32"), False, "1 of 3 layers"),
        (ran("fp32", "fp32", "bf16"), False, "0 of 3 layers"),
        ((ran("", "")[0], ""), True, "from the processor's features"),
        (((), "it does not tell"), True, "from the processor's features: it does not tell"),
        (CandidateError("unsupported", "no such type"), False, "no such type"),
        (CandidateError("crashed", "signal 4"), False, "signal 4"),
    ],
)
def test_precision_is_offered_where_most_layers_ran_in_it(tmp_path, answer, offered, words):
    session = Told(answer)
    able = able_to(PI, ["onnxruntime"], ("fp32", "fp16"), DeviceProbes(session, PI, tmp_path))
    assert ("fp16" in able.precisions) == offered and "fp32" in able.precisions
    assert words in (able.basis["fp16"] if offered else able.why_not["fp16"])
    assert session.asked == ["fp16"], "int8 was not asked for, and fp32 always runs"
    again = Told(DeviceError("not to be asked"))
    if not isinstance(answer, CandidateError) or answer.kind == "unsupported":  # once a device
        kept = able_to(PI, ["onnxruntime"], ("fp16",), DeviceProbes(again, PI, tmp_path))
        assert kept.precisions == able.precisions and not again.asked
    newer = replace(PI, runtimes={"onnxruntime": "1.32.0"})
    with pytest.raises(DeviceError):  # another version may do otherwise
        able_to(newer, ["onnxruntime"], ("fp16",), DeviceProbes(again, newer, tmp_path))


def test_verdict_that_is_damaged_or_cannot_be_kept_is_asked_for_anew(tmp_path):
    file = tmp_path / PI.fingerprint() / "onnxruntime-fp16-1.json"
    file.parent.mkdir()
    for content in ("", "{", "[]", "{}"):
        file.write_text(content)
        session = Told(ran("fp32"))
        assert DeviceProbes(session, PI, tmp_path)("onnxruntime", ("fp16",)).why_not and session.asked
    blocked = tmp_path / "file"
    blocked.touch()
    assert DeviceProbes(Told(ran("fp16")), PI, blocked)("onnxruntime", ("fp16",)).why_not == {}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_tells_its_layers_or_is_taken_by_its_facts_and_says_so(runtime):
    facts = replace(FACTS, runtimes={runtime: "1"})
    assert untold(facts, runtime) == ("" if runtime != "ncnn" else "ncnn does not report its layers")
    assert "simulated" in untold(replace(facts, simulated=True), runtime)


def test_nothing_is_tried_on_a_device_that_another_has(here):
    tried = try_runtimes(here, LOCAL, "ann@lab since 12:00:00")
    assert {one.skipped for one in tried.values()} == {"in use by ann@lab since 12:00:00"}


def test_wait_for_another_ends_what_is_tried(here, monkeypatch):
    """The lock is held by a second session's timing, which the survey did not show yet."""
    events: list[Event] = []
    with open_session(LOCAL, on_event=events.append) as other:
        model = other.put(reference_model())
        job = Job(runtime="onnxruntime")

        def hold() -> None:
            with contextlib.suppress(DeviceError):  # it is cancelled
                other.time_block(model, model, job, 10000, 20.0)

        held = threading.Thread(target=hold)
        held.start()
        while not any(event.get("event") == "started" for event in events):
            held.join(0.05)
        monkeypatch.setattr("evaluators.runtime_checks.LockWait.__call__", _impatient)
        tried = try_runtimes(here, LOCAL, "")
        other.cancel()
        held.join(60)
    assert all(one.skipped for one in tried.values())


def _impatient(self: Any, event: Event) -> None:
    if event.get("event") == "waiting":
        raise BusyError(str(event.get("holder", "")))


BROKEN = {
    "dies": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n",
    "raises": "raise ImportError('libcudart.so.13: cannot open shared object file')\n",
}


@pytest.fixture(params=sorted(BROKEN))
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Environment in which the device `broken` has an ONNX Runtime that can't be imported."""
    package = tmp_path / "packages" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f'__version__ = "1.31.1"\n{BROKEN[request.param]}')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec {sys.executable} "$@"\n')
    python.chmod(0o700)
    config = tmp_path / "config" / "edgefront"
    config.mkdir(parents=True)
    entry = f'[broken]\nprofile = "local"\npython = "{python}"\nruntime = "onnxruntime"\n'
    (config / "devices.toml").write_text(entry)
    folders = {"XDG_CONFIG_HOME": str(config.parent), "EDGEFRONT_LOCK_DIR": str(tmp_path)}
    return os.environ | folders | {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_doctor_does_not_call_a_runtime_ok_that_cannot_be_imported(broken):
    words = [sys.executable, "-m", "remote.doctor", "broken", "--json"]
    done = subprocess.run(words, cwd=ROOT, env=broken, capture_output=True, text=True, timeout=200)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    rows = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert rows["runtime onnxruntime"]["verdict"] == "bad" and rows["runtime onnxruntime"]["mend"]
    assert rows["runtime openvino"]["verdict"] == "ok"


def test_search_whose_reference_cannot_be_run_ends_in_one_line(broken, tmp_path):
    words = [sys.executable, "-m", "search.run", "--budget-ms", "5", "--device", "broken", "--space", "tiny"]
    words += ["--out", str(tmp_path / "r"), "--cache", str(tmp_path / "c")]
    done = subprocess.run(words, cwd=ROOT, env=broken, capture_output=True, text=True, timeout=300)
    assert done.returncode == 4 and "Traceback" not in done.stderr + done.stdout, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("device: ") and "onnxruntime" in last and "install" in last


def test_failing_line_is_no_verdict_on_a_runtime(tmp_path):
    session = RetryingSession(Told(DeviceError("gone", "link")), RetryPolicy(0.001, 0.001, 0.01))  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="gone"):
        DeviceProbes(session, PI, tmp_path)("onnxruntime", ("fp16",))
    assert not list(tmp_path.rglob("*.json"))


def test_device_of_another_kind_is_not_asked_for_what_its_facts_rule_out():
    session = Told(ran("int8"))
    device = Device(name="pi", profile=None, host=None, python=None, runtime="ncnn")
    able = able_to(PI, [device.runtime or ""], ("fp32", "fp16", "int8"), DeviceProbes(session, PI, None))
    assert not session.asked and "ncnn does not report" in able.basis["fp16"] and "int8" not in able.precisions
