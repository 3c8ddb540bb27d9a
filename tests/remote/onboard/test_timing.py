"""Timing and predictions over models whose behaviour is known, in fresh processes where memory is told."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.remote.runtimes.loading import timing
from tests.remote.test_agent import old_pythons

pytestmark = pytest.mark.alone

TEXT = Path(__file__).parents[3] / "remote" / "onboard" / "timing.py"


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.enable()  # a block switches it off


class Fake:
    """A model that is busy for a while, and writes down what is done with it."""

    device_mb = None

    def __init__(self, log: list, name: str, busy_ms: float = 0.0, gpu=lambda: None) -> None:
        self.log, self.name, self.busy_ms, self.gpu = log, name, busy_ms, gpu

    @property
    def gpu_ms(self):
        return self.gpu()

    def feed(self, floats) -> None:
        self.log.append((self.name, "feed", floats))
        self.floats = floats

    def run(self) -> None:
        self.log.append((self.name, "run"))
        end_s = time.perf_counter() + self.busy_ms / 1000
        while time.perf_counter() < end_s:
            pass

    def output(self) -> bytes:
        values = np.frombuffer(self.floats, "<f4")
        return np.array([values.sum(), values[0]], "<f4").tobytes()


def runtime(log: list, candidate: Fake, reference: Fake, jobs: list | None = None) -> SimpleNamespace:
    def load(job, path):
        if jobs is not None:
            jobs.append(dict(job))
        log.append((path, "load"))
        return {"candidate": candidate, "reference": reference}[path]

    return SimpleNamespace(load=load)


def block(candidate_ms: float = 0.0, reference_ms: float = 0.0, gpu=lambda: None, reference_gpu=lambda: None, **more):
    """(value, log) of a block over fakes."""
    log: list = []
    models = Fake(log, "candidate", candidate_ms, gpu), Fake(log, "reference", reference_ms, reference_gpu)
    job = {"model": "candidate", "reference": "reference", "pairs": 8, "seconds_max": 3.0, "threads": 2}
    return timing.measure(runtime(log, *models), job | {"precision": "int8"} | more)[0], log


def test_times_are_each_models_own():
    value, _ = block(2.0, 0.5)
    assert len(value["wall_ms"]) == len(value["cpu_ms"]) == len(value["reference_cpu_ms"]) == 8
    assert 2.0 <= min(value["wall_ms"]) < 2.5 and 0.5 <= min(value["reference_wall_ms"]) < 1.0
    assert np.median(value["cpu_ms"]) > 1.0 > 0 and value["warmup_runs"] >= 20
    assert "gpu_ms" not in value and "reference_gpu_ms" not in value and "energy_window" not in value
    assert value["device_mb"] is None and value["load_average"] >= 0


def test_models_alternate_and_settle_before_each_timed_run(monkeypatch):
    monkeypatch.setattr(timing, "SETTLE_S", 10.0)  # a busy machine may stop this process for longer than is usual
    _, log = block()
    pair = [("candidate", "run")] * 7 + [("reference", "run")] * 7
    assert log[-14 * 8 :] == pair * 8


def test_a_slow_model_settles_in_one_run():
    value, log = block(40.0, pairs=5, seconds_max=1.0)
    in_a_row = [len(list(group)) for name, group in groupby(name for name, *_ in log) if name == "candidate"]
    assert in_a_row[-5:] == [2] * 5 and len(value["wall_ms"]) == 5


def test_a_block_ends_early_but_not_below_five_pairs():
    assert len(block(5.0, pairs=1000, seconds_max=0.01)[0]["wall_ms"]) == 5
    began_s = time.perf_counter()
    value, _ = block(1.0, pairs=100_000, seconds_max=0.5)
    assert 5 <= len(value["wall_ms"]) < 100_000 and time.perf_counter() - began_s < 2.0


def test_the_reference_comes_last_at_one_thread_in_single_precision():
    jobs, log = [], []
    models = Fake(log, "candidate"), Fake(log, "reference")
    job = {"model": "candidate", "reference": "reference", "pairs": 5, "seconds_max": 1.0}
    timing.measure(runtime(log, *models, jobs=jobs), job | {"threads": 4, "precision": "int8"})
    assert [(job["threads"], job["precision"]) for job in jobs] == [(4, "int8"), (1, "fp32")]
    assert log[:6] == [
        ("candidate", "load"),
        ("candidate", "feed", None),
        *[("candidate", "run")] * 3,
        ("reference", "load"),
    ]


def test_gpu_times_are_read_after_the_clocks():
    def slow() -> float:
        time.sleep(0.02)
        return 0.25

    value, _ = block(1.0, 1.0, slow, slow)
    assert value["gpu_ms"] == value["reference_gpu_ms"] == [0.25] * 8
    assert min(value["wall_ms"]) < 10 and min(value["reference_wall_ms"]) < 10


def test_gpu_times_of_one_model_alone_are_none():
    assert "gpu_ms" not in block(gpu=lambda: 0.25)[0]


def test_energy_is_the_candidates_alone():
    before_s = time.monotonic()
    value, log = block(1.0, 1.0, energy_s=0.3)
    window = value["energy_window"]
    assert before_s < window["from_s"] < window["to_s"] < time.monotonic()
    assert 0.3 <= window["to_s"] - window["from_s"] < 0.5 and 10 < window["runs"] <= 300
    assert log[-window["runs"] :] == [("candidate", "run")] * window["runs"]
    assert log[-window["runs"] - 1] == ("reference", "run")


def test_a_reference_that_fails_is_not_the_candidates_fault():
    class Broken(Fake):
        def run(self) -> None:
            raise timing.JobError("unsupported", "no such operator")

    log: list = []
    job = {"model": "candidate", "reference": "reference", "pairs": 5, "seconds_max": 1.0, "threads": 1}
    with pytest.raises(timing.JobError, match="no such operator") as caught:
        timing.measure(runtime(log, Fake(log, "candidate"), Broken(log, "reference")), job)
    assert caught.value.kind == "reference"
    with pytest.raises(timing.JobError) as caught:
        timing.measure(runtime(log, Broken(log, "candidate"), Fake(log, "reference")), job)
    assert caught.value.kind == "unsupported"


# Run by any Python from 3.6 on, without numpy: argv is the text of timing.py and what to do.
CHILD = """
import array, json, sys, types
timing = types.ModuleType("timing")
exec(compile(open(sys.argv[1]).read(), "timing.py", "exec"), timing.__dict__)
class Model(object):
    gpu_ms = device_mb = None
    def __init__(self, megabytes):
        self.held = bytearray(b"x" * (megabytes << 20))
    def feed(self, floats):
        self.floats = array.array("f", floats or b"")
    def run(self):
        self.sum = sum(self.floats)
    def output(self):
        return array.array("f", [self.sum, self.floats[0]]).tobytes()
runtime = types.ModuleType("runtime")
runtime.libraries = lambda: setattr(runtime, "held", bytearray(b"x" * (30 << 20)))
runtime.load = lambda job, path: Model(int(path))
value, raw = getattr(timing, sys.argv[2])(runtime, json.loads(sys.argv[3]))
print(json.dumps([value, list(array.array("f", raw))]))
"""


def in_child(python: str, function: str, job: dict) -> tuple[dict, list[float]]:
    argv = [python, "-c", CHILD, str(TEXT), function, json.dumps(job)]
    value, values = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return value, values


@pytest.mark.parametrize("python", old_pythons())
def test_each_python_measures_and_predicts(python, tmp_path):
    job = {"model": "1", "reference": "1", "pairs": 6, "seconds_max": 1.0, "threads": 1, "energy_s": 0.05}
    value, _ = in_child(python, "measure", job)
    assert len(value["wall_ms"]) == 6 and value["energy_window"]["runs"] > 0
    (tmp_path / "data").write_bytes(np.arange(12, dtype="<f4").tobytes())
    value, values = in_child(python, "predict", job | {"data": str(tmp_path / "data"), "shape": [3, 1, 2, 2]})
    assert value == {"shape": [3, 2]} and values == [6, 0, 22, 4, 38, 8]


def test_memory_is_the_candidates_alone():
    job = {"model": "50", "reference": "200", "pairs": 5, "seconds_max": 0.5, "threads": 1}
    value, _ = in_child(sys.executable, "measure", job)
    assert 30 <= value["runtime_mb"] < 80
    # the candidate's 50 MB and their source; not the reference's 200
    assert 50 <= value["peak_mb"] - value["runtime_mb"] < 150


def predict(folder: Path, rows: np.ndarray, shape: list[int], output=None):
    log: list = []
    model = Fake(log, "candidate")
    if output:
        model.output = lambda: output(model)
    (folder / "data").write_bytes(rows.astype("<f4").tobytes())
    job = {"model": "candidate", "data": str(folder / "data"), "shape": shape}
    return timing.predict(runtime(log, model, model), job)


def test_predictions_are_made_row_by_row(tmp_path):
    rows = np.random.RandomState(0).standard_normal((5, 3, 2, 4)).astype("<f4")
    value, raw = predict(tmp_path, rows, [5, 3, 2, 4])
    assert value == {"shape": [5, 2]}
    want = np.stack([rows.reshape(5, -1).sum(1), rows[:, 0, 0, 0]], 1)
    assert np.allclose(np.frombuffer(raw, "<f4").reshape(5, 2), want, atol=1e-5)


@pytest.mark.parametrize("count", [0, 23, 25, 48])
def test_data_of_another_size_are_refused(tmp_path, count):
    with pytest.raises(timing.JobError, match="not 2x3x2x2 float32 values") as caught:
        predict(tmp_path, np.zeros(count), [2, 3, 2, 2])
    assert caught.value.kind == "bad_request"


def test_outputs_of_unlike_lengths_are_no_predictions(tmp_path):
    with pytest.raises(timing.JobError, match="1 and 2 values") as caught:
        predict(tmp_path, np.arange(8), [2, 1, 2, 2], lambda model: b"1234" * (1 + (model.floats[3] == 0)))
    assert caught.value.kind == "unbuildable"


# ------------------------------------------------ versions and faults


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def package(site: Path, name: str, text: str = "", *beside: str) -> None:
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(text)
    for entry in beside:
        (site / entry).mkdir()


def test_versions_are_found_without_importing(site):
    package(site, "edge_says", "raise SystemExit('imported')\n__version__ = '1.2.3'\n")
    package(site, "edge_wheel", "raise SystemExit", "edge_wheel-4.5.dist-info", "edge_wheel_more-9.dist-info")
    package(site, "edge_apt", "raise SystemExit", "Edge_Apt-2.5.0.post1-py3.9.egg-info")
    package(site, "edge_other", "raise SystemExit", "edge_cpu-7.8.dist-info")
    package(site, "edge_bare", "raise SystemExit")
    (site / "edge_folder").mkdir()
    assert timing.version_of("edge_says") == "1.2.3"
    assert timing.version_of("edge_wheel") == "4.5"
    assert timing.version_of("edge_apt") == "2.5.0.post1"
    assert timing.version_of("edge_other", "edge_other", "edge_cpu") == "7.8"
    assert timing.version_of("edge_other") == timing.version_of("edge_bare") == "unknown"
    assert timing.version_of("edge_folder") is None and timing.version_of("edge_none") is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("std::bad_alloc"), "out_of_memory"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 7"), "out_of_memory"),
        (RuntimeError("no Opset 99"), "unsupported"),
        (NotImplementedError("x"), "unsupported"),
        (ValueError("two\n  lines"), "unbuildable"),
    ],
)
def test_whose_fault_it_is(error, kind):
    found = timing.as_job_error(error, ("Opset", "NotImplemented"))
    assert found.kind == kind and "\n" not in str(found) and str(found)
    assert len(str(timing.as_job_error(RuntimeError("x" * 9999), ()))) == 500
