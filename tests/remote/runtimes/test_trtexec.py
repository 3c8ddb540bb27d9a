"""trtexec's runtime against a stand-in that takes each version's own options and says what is recorded."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from remote.link.transport import texts
from tests.remote.runtimes import fake_trtexec
from tests.remote.runtimes.fake_cuda import Library
from tests.remote.runtimes.loading import images, job, part, timing
from tests.remote.test_agent import old_pythons

runtime, cuda, plans = part("runtimes/trtexec"), part("cuda"), part("tensorrt_common")
RECORDED = Path(__file__).with_name("trtexec")
VERSIONS = EIGHT, TEN, ELEVEN = tuple(fake_trtexec.BANNERS)
EACH = pytest.mark.parametrize("version", VERSIONS)
JOB = job("trtexec")
GRAPH = {"compute_ms": 4.0, "h2d_ms": 0.25, "shape": [1, 3, 2, 2], "classes": 4, "layers": ["a", "b"]}


def program(folder: Path, version: str) -> Path:
    """An executable that plays trtexec of that version."""
    path = folder / "trtexec"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_trtexec.__file__} {version} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Puts a version of trtexec on a board with a GPU; its tool is returned."""

    def use(version, sm=(8, 7)):
        monkeypatch.setenv("TRTEXEC", str(program(tmp_path, version)))
        monkeypatch.setattr(cuda, "library", lambda: Library(sm=sm))
        return runtime.tool()

    return use


def saved(folder: Path, name: str = "model", **traits) -> Path:
    path = folder / name
    path.write_text(json.dumps(GRAPH | traits))
    return path


def built(folder: Path, wanted: dict = JOB, name: str = "engine", **traits) -> Path:
    runtime.build(wanted, str(saved(folder, **traits)), str(folder / name))
    return folder / name


def plan(folder: Path, wanted: dict = JOB, **traits) -> dict:
    return json.loads(built(folder, wanted, **traits).read_text())


def measured(folder: Path, **more) -> dict:
    """A block of a model of 4 ms beside a reference of 1 ms."""
    model = built(folder)
    reference = built(folder, name="reference", compute_ms=1.0)
    wanted = {"model": str(model), "reference": str(reference), "pairs": 20, "seconds_max": 60.0, "energy_s": 0}
    value, raw = runtime.measure(JOB | wanted | more)
    assert raw == b""
    return value


def fault(kind: str, words: str, work, *arguments, **named) -> str:
    """The one-line reason of an JobError of that kind."""
    with pytest.raises(timing.JobError) as caught:
        work(*arguments, **named)
    reason = str(caught.value)
    assert caught.value.kind == kind and words in reason and "\n" not in reason and len(reason) <= 560
    return reason


# ------------------------------------------------ versions


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8001] # trtexec --help", (8, 0, 1)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # /usr/src/tensorrt/bin/trtexec --help", (8, 2, 1)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", (8, 5, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec", (8, 6, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b26] # trtexec", (10, 3, 0)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec", (10, 13, 3)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # trtexec", (11, 1, 0)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v11.1.0.106] [b48]", (11, 1, 0)),
        ("warning: no GPU\n&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec", (8, 2, 1)),
        ("bash: trtexec: not found", None),
        ("&&&& RUNNING TensorRT.trtexec # trtexec", None),
    ],
)
def test_banners(text, version):
    assert runtime.banner(text) == version


@EACH
def test_it_offers_its_version(board, version):
    assert board(version).version == tuple(map(int, version.split(".")))
    assert runtime.offers() == {"trtexec": version}


def test_it_is_looked_for_on_the_path_and_where_jetpack_has_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TRTEXEC", raising=False)
    monkeypatch.setattr(runtime, "PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    assert runtime.offers() == {}
    fault("no_runtime", "/usr/src/tensorrt/bin", runtime.tool)
    monkeypatch.setattr(runtime, "PLACES", (str(program(tmp_path, EIGHT)),))
    assert runtime.offers() == {"trtexec": EIGHT}
    monkeypatch.setattr(runtime, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.offers() == {"trtexec": EIGHT}
    monkeypatch.setenv("TRTEXEC", str(tmp_path / "elsewhere"))
    fault("no_runtime", "elsewhere", runtime.tool)


def test_a_program_that_is_something_else(tmp_path, monkeypatch):
    path = tmp_path / "trtexec"
    path.write_text("#!/bin/sh\necho 'cannot open libnvinfer.so.8'\nexit 127\n")
    path.chmod(0o755)
    monkeypatch.setenv("TRTEXEC", str(path))
    fault("no_runtime", "libnvinfer.so.8", runtime.tool)
    assert runtime.offers() == {}


# ------------------------------------------------ command lines


@EACH
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_option_is_one_of_that_version(board, tmp_path, version, precision):
    """The stand-in refuses what the real one would refuse."""
    board(version)
    wanted = JOB | {
        "precision": precision,
        "workspace_mb": 300,
        "cache": str(tmp_path / "timing"),
    }
    options = plan(tmp_path, wanted)["options"]
    types = {name for name in ("fp16", "int8") if name in options}
    assert types == (
        set() if version == ELEVEN else {"fp32": set(), "fp16": {"fp16"}, "int8": {"fp16", "int8"}}[precision]
    )
    assert options.get("workspace", options.get("memPoolSize")) == ("300" if version == EIGHT else "workspace:300")
    assert ("buildOnly" in options) == (version == EIGHT) == ("skipInference" not in options)
    assert "timingCacheFile" in options


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ((8, 0, 1), ["--workspace=256", "--buildOnly"]),
        ((8, 4, 1), ["--memPoolSize=workspace:256", "--buildOnly"]),
        ((8, 5, 2), ["--memPoolSize=workspace:256", "--buildOnly"]),
        ((8, 6, 2), ["--memPoolSize=workspace:256", "--skipInference"]),
    ],
)
def test_the_versions_between(version, names):
    arguments = runtime.build_arguments(version, JOB, "m", "e", None)
    assert set(names) <= set(arguments) and not any("timingCache" in argument for argument in arguments)


def test_the_optimization_level_is_left_alone(board, tmp_path):
    board(TEN)
    assert "builderOptimizationLevel" not in plan(tmp_path)["options"]


@pytest.mark.parametrize(("sm", "sparse"), [((5, 3), False), ((8, 7), True)])
def test_weights_are_looked_at_for_zeros_where_they_can_be_skipped(board, tmp_path, sm, sparse):
    board(TEN, sm=sm)
    assert (plan(tmp_path)["options"].get("sparsity") == "enable") == sparse


def test_int8_does_not_ask_for_fp16_where_that_is_slow(board, tmp_path):
    board(TEN, sm=(6, 1))
    options = plan(tmp_path, JOB | {"precision": "int8"})["options"]
    assert "int8" in options and "fp16" not in options


@pytest.mark.parametrize(("version", "sm"), [(EIGHT, (5, 3)), (EIGHT, (6, 2)), (ELEVEN, (10, 3))])
def test_int8_is_refused_where_there_is_none(board, tmp_path, version, sm):
    board(version, sm=sm)
    reason = fault("unsupported", "no int8 arithmetic", built, tmp_path, JOB | {"precision": "int8"})
    assert f"sm {sm[0]}.{sm[1]}" in reason and not (tmp_path / "engine").exists()


@EACH
def test_an_option_of_another_version_is_our_fault(board, tmp_path, version):
    tool = board(version)
    wrong = "--workspace=16" if version != EIGHT else "--memPoolSize=workspace:16"
    ran = runtime.execute(tool, ["--onnx=" + str(saved(tmp_path)), wrong])
    assert ran.status == 1 and any(line.startswith("&&&& FAILED") for line in ran.lines) == (version != ELEVEN)
    reason = fault("bad_request", "Unknown option: " + wrong.partition("=")[0], runtime.check, tool, ran)
    assert version in reason


@EACH
def test_warnings_are_notes(board, tmp_path, version):
    board(version)
    notes = runtime.build(JOB, str(saved(tmp_path)), str(tmp_path / "engine"))["notes"]
    assert [note[:17] for note in notes] == (["onnx2trt_utils.cp"] if version == EIGHT else [])


# ------------------------------------------------ the timing cache


@pytest.fixture
def cached(tmp_path):
    return JOB | {"cache": str(tmp_path / "timing")}


@EACH
def test_layers_are_timed_once(board, tmp_path, cached, version):
    board(version)
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert plan(tmp_path, cached, layers=["b", "c"])["timed"] == ["c"]
    (file,) = Path(cached["cache"]).iterdir()
    assert plans.kept(str(file)) == b"TIMES a b c" and file.name == f"trtexec-{version}-sm8.7"


def test_a_damaged_cache_is_ignored_and_rewritten(board, tmp_path, cached):
    board(TEN)
    built(tmp_path, cached)
    (file,) = Path(cached["cache"]).iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert plan(tmp_path, cached)["timed"] == []


def test_a_cache_that_trtexec_refuses_is_begun_anew(board, tmp_path, cached):
    board(ELEVEN)
    plans.keep(plans.cache_file(cached["cache"], "trtexec", ELEVEN), b"OTHER")
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert plan(tmp_path, cached)["timed"] == []


# ------------------------------------------------ measuring


@EACH
def test_a_block(board, tmp_path, version):
    board(version)
    value = measured(tmp_path)
    names = ("wall_ms", "cpu_ms", "gpu_ms", "reference_wall_ms", "reference_cpu_ms", "reference_gpu_ms")
    assert {len(value[name]) for name in names} == {20}
    assert np.allclose(value["gpu_ms"], [4.0, 4.04, 4.08, *value["gpu_ms"][3:]], rtol=1e-5)
    assert np.allclose(np.array(value["wall_ms"]) - value["gpu_ms"], 0.25 + 0.008, atol=1e-3)
    assert 1.0 <= min(value["reference_gpu_ms"]) <= max(value["reference_gpu_ms"]) < 1.03
    assert np.allclose(value["cpu_ms"], 0.5, atol=0.011)  # six digits from 1000 ms on
    assert 0 < value["runtime_mb"] <= value["peak_mb"] and value["load_average"] >= 0
    assert value["warmup_runs"] >= 31


def test_what_the_log_says_of_memory_and_loading(board, tmp_path):
    for version, load_ms, device_mib in ((EIGHT, 2751.83, 12), (TEN, 25.0, 9), (ELEVEN, 11.83, 9)):
        board(version)
        value = measured(tmp_path, pairs=5)
        assert np.isclose(value["load_ms"], load_ms) and value["device_mb"] == device_mib * 1.048576
    assert runtime.memory(board(EIGHT), runtime.execute(board(EIGHT), ["--help"]))["device_mb"] is None


def test_blocks_alternate_and_share_the_pairs(board, tmp_path, monkeypatch):
    board(TEN)
    blocks, real = [], runtime.block

    def noted(tool, engine, folder, count):
        blocks.append((Path(engine).name, count))
        return real(tool, engine, folder, count)

    monkeypatch.setattr(runtime, "block", noted)
    assert len(measured(tmp_path, pairs=40)["wall_ms"]) == 40
    assert [name for name, _ in blocks] == ["engine", "reference"] * 4
    assert [count for _, count in blocks] == [10] * 8


def test_pairs_are_of_neighbouring_blocks(board, tmp_path, monkeypatch):
    """A candidate's row is held against one of the reference's that ran right after it."""
    board(TEN)
    real, turn = runtime.read_rows, []

    def marked(path):
        turn.append(len(turn))
        return [dict(row, computeMs=turn[-1] + 1.0, latencyMs=turn[-1] + 2.0) for row in real(path)]

    monkeypatch.setattr(runtime, "read_rows", marked)
    value = measured(tmp_path, pairs=25)
    assert len(turn) == 8
    assert {theirs - ours for ours, theirs in zip(value["gpu_ms"], value["reference_gpu_ms"], strict=True)} == {1.0}


def test_pairs_end_early_but_not_below_five(board, tmp_path):
    board(TEN)
    assert 5 <= len(measured(tmp_path, pairs=500, seconds_max=0.01)["wall_ms"]) <= 10
    assert len(measured(tmp_path, pairs=3)["wall_ms"]) == 3


def test_the_seconds_left_bound_the_next_block():
    def block(latency_ms, seconds, count=10):
        return runtime.Block([{"latencyMs": latency_ms}] * count, None, seconds)

    ours, theirs = block(90.0, 5.9), block(10.0, 5.1)  # 100 ms a pair, 10 s to start both
    assert runtime.next_count(54, 3, 1000.0, ours, theirs) == 18
    assert runtime.next_count(54, 3, 11.0, ours, theirs) == 10
    assert runtime.next_count(54, 3, 10.3, ours, theirs) == 0  # 3 pairs are not worth 10 s
    assert runtime.next_count(3, 1, 1000.0, ours, theirs) == 3
    assert runtime.next_count(0, 1, 1000.0, ours, theirs) == 0


def test_when_the_timing_was(board, tmp_path):
    board(TEN)
    value = measured(tmp_path, pairs=5, energy_s=1.5)
    timed, alone = value["timed_window"], value["energy_window"]
    assert 0 < timed["to_s"] - timed["from_s"] < 0.1  # five rows of 4.4 ms, without the warm-up
    assert 2.0 <= alone["to_s"] - alone["from_s"] < 2.1 and 440 < alone["runs"] < 480


@pytest.mark.parametrize(("version", "rows"), [(EIGHT, 5), (TEN, 5), (ELEVEN, 5)])
def test_recorded_times(version, rows):
    found = runtime.read_rows(str(RECORDED / f"{version}-times.json"))
    assert len(found) == rows and min(row["startComputeMs"] for row in found) >= 1000  # 8.2's warm-up is dropped
    pairs = [(row, row) for row in found]
    value = runtime.columns(pairs)
    assert value["gpu_ms"] == [row["computeMs"] for row in found] == value["reference_gpu_ms"]
    for row, wall_ms in zip(found, value["wall_ms"], strict=True):
        assert wall_ms == pytest.approx(row["h2dMs"] + row["computeMs"] + row["d2hMs"], rel=1e-4)
    assert all(cpu_ms == pytest.approx(0.61, abs=0.011) for cpu_ms in value["cpu_ms"])


@pytest.mark.parametrize("text", ["", "[", "[{}]", "[1]", '[{"startComputeMs": "x"}]', "{}"])
def test_times_that_cannot_be_read(tmp_path, text):
    (tmp_path / "times").write_text(text)
    if text == "{}":
        assert runtime.read_rows(str(tmp_path / "times")) == []
    else:
        fault("crashed", "times can't be read", runtime.read_rows, str(tmp_path / "times"))
    fault("crashed", "times can't be read", runtime.read_rows, str(tmp_path / "none"))


# ------------------------------------------------ what an engine is made of


@EACH
def test_layers(board, tmp_path, version):
    board(version)
    rows = [["quantize", "Reformat", "Row major linear FP32", 0.25], ["conv", "CaskConvolution", "Int8 NC/32HW32", 1.5]]
    engine = built(tmp_path, inspected=rows)
    found = runtime.layers(JOB | {"model": str(engine)})
    assert [(row["name"], row["type"], row["precision"], row["ms"]) for row in found] == [
        ("quantize", "Reformat", "fp32", 0.25),
        ("conv", "CaskConvolution", "int8", 1.5),
    ]


# ------------------------------------------------ predicting


@EACH
def test_predictions(board, tmp_path, version):
    board(version)
    rows, data = images(3, 3, 2, 2), tmp_path / "images"
    data.write_bytes(rows.astype("<f4").tobytes())
    wanted = JOB | {"model": str(built(tmp_path)), "data": str(data), "shape": [3, 3, 2, 2]}
    value, raw = runtime.predict(wanted)
    assert value == {"shape": [3, 4]}
    assert np.allclose(np.frombuffer(raw, "<f4").reshape(3, 4), rows.reshape(3, 3, 4).sum(1), rtol=1e-5, atol=1e-5)
    fault("bad_request", "4x3x2x2", runtime.predict, wanted | {"shape": [4, 3, 2, 2]})
    fault("unbuildable", "1x3x2x2", runtime.predict, wanted | {"shape": [9, 1, 2, 2]})


def test_outputs_that_are_no_numbers(board, tmp_path):
    board(EIGHT)
    data = tmp_path / "images"
    for values in ([float("inf"), float("-inf"), float("nan"), 1.0], [-float("nan"), 2.5, -3.0, 1e-20]):
        data.write_bytes(struct.pack("<4f", *values))
        wanted = JOB | {"model": str(built(tmp_path, shape=[1, 4])), "data": str(data), "shape": [1, 4]}
        assert np.array_equal(np.frombuffer(runtime.predict(wanted)[1], "<f4"), np.float32(values), equal_nan=True)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[I] Created input binding for x with dimensions 1x3x2x2", [("x", "1x3x2x2", None)]),
        ("[I] Input binding for in:0 with dimensions 1x3x2x2 is created.", [("in:0", "1x3x2x2", None)]),
        ("[I] Input binding for x with dimensions 1x3 and type fp16 is created.", [("x", "1x3", "fp16")]),
        ("[I] Output binding for y with dimensions 1x4 is created.", []),
        ("[I] Using random values for input x", []),
    ],
)
def test_how_each_version_tells_the_inputs(line, found):
    assert runtime.bindings(runtime.Ran([line], 0, None, None), "input") == found


def test_inputs_that_cannot_be_given(board, tmp_path, monkeypatch):
    board(ELEVEN)
    engine = str(built(tmp_path))
    for inputs in ([("x", "1x3", "fp16")], [("a,b", "1x3", None)], [("x", "1x3", None), ("z", "1", None)]):
        monkeypatch.setattr(runtime, "bindings", lambda ran, kind, inputs=inputs: inputs)
        fault("unsupported", "one float32 input", runtime.input_and_output, runtime.tool(), engine, 12)
    monkeypatch.setattr(runtime, "bindings", lambda ran, kind: [])
    fault("crashed", "did not print", runtime.input_and_output, runtime.tool(), engine, 12)


# ------------------------------------------------ what may go wrong


@pytest.mark.parametrize(
    ("version", "record", "status", "kind", "words"),
    [
        (EIGHT, "unsupported", 1, "unsupported", 'While parsing node number 4 [Nonsense -> "y"]'),
        (EIGHT, "unsupported", 1, "unsupported", "Plugin not found"),
        (EIGHT, "out_of_memory", 1, "out_of_memory", "Could not find any implementation for node a + b"),
        (EIGHT, "no_gpu", 1, "no_runtime", "CUDA initialization failure"),
        (TEN, "out_of_memory", 1, "out_of_memory", "Cuda Runtime (out of memory)"),
        (TEN, "int8", 1, "unsupported", "require hardware with Int8 support"),
        (ELEVEN, "mistyped", 1, "unbuildable", "SUB must have same input types"),
        (EIGHT, "build", -signal.SIGKILL, "out_of_memory", "killed"),
        (TEN, "build", -signal.SIGSEGV, "crashed", "ended by signal 11"),
        (ELEVEN, "build", 1, "crashed", "trtexec --onnx"),
    ],
)
def test_no_engine_comes_out(board, tmp_path, version, record, status, kind, words):
    board(version)
    fault(kind, words, built, tmp_path, when="build", record=record, status=status)
    assert not (tmp_path / "engine").exists()


def test_no_engine_though_it_says_passed(board, tmp_path):
    board(TEN)
    fault("crashed", "wrote no engine", built, tmp_path, forgets=True)


def test_memory_that_cpp_did_not_get(board):
    lines = ["terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc", "Aborted"]
    ran = runtime.Ran(lines, -signal.SIGABRT, None, None)
    fault("out_of_memory", "bad_alloc", runtime.check, board(EIGHT), ran)


@pytest.mark.parametrize(
    ("version", "record", "status", "kind", "words"),
    [
        (TEN, "inference", 1, "crashed", "illegal memory access"),
        (EIGHT, "run", -signal.SIGKILL, "out_of_memory", "killed"),
        (EIGHT, "no_gpu", 1, "no_runtime", "error: 35"),
    ],
)
def test_an_inference_that_ends_badly(board, tmp_path, version, record, status, kind, words):
    board(version)
    traits = {"when": "run", "record": record, "status": status}
    model, calm = str(saved(tmp_path, **traits)), str(saved(tmp_path, "calm"))
    wanted = JOB | {"model": model, "reference": calm, "pairs": 5, "seconds_max": 10.0}
    fault(kind, words, runtime.measure, wanted)
    fault("reference", words, runtime.measure, wanted | {"model": calm, "reference": model})
    (tmp_path / "data").write_bytes(bytes(48))
    fault(kind, words, runtime.predict, JOB | {"model": model, "data": str(tmp_path / "data"), "shape": [1, 3, 2, 2]})


def test_nothing_is_left_behind(board, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    board(TEN)
    measured(tmp_path, pairs=5)
    fault("out_of_memory", "memory", built, tmp_path, when="build", record="out_of_memory", status=1)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_it_dies_with_us(tmp_path):
    """A child that is killed outright leaves no trtexec that goes on using the GPU."""
    tool = tmp_path / "trtexec"
    tool.write_text("#!/bin/sh\necho '[TensorRT v8201]'\n[ \"$1\" = --help ] || { echo $$ > pid; exec sleep 60; }\n")
    tool.chmod(0o755)
    script = (
        "import json, sys, types\n"
        + LOADER
        + "tool = part('runtimes/trtexec').tool()\npart('runtimes/trtexec').execute(tool, ['--x'])\n"
    )
    (tmp_path / "texts").write_text(json.dumps(texts()))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "texts")], cwd=tmp_path, env=dict(os.environ, TRTEXEC=str(tool))
    )
    pid = waited(lambda: int((tmp_path / "pid").read_text() or 0))
    process.kill()
    process.wait()
    assert waited(lambda: not alive(pid))


def waited(look):
    """What `look` returns once that is true; errors count as not yet."""
    import time

    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        try:
            if found := look():
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise AssertionError("it did not come to that in 10 s")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ------------------------------------------------ old Pythons

# argv[1]: JSON file of the texts
LOADER = """
texts, loaded = json.load(open(sys.argv[1])), {}
def part(name):
    if name not in loaded:
        loaded[name] = module = types.ModuleType(name)
        module.part = part
        exec(compile(texts[name], name, "exec"), module.__dict__)
    return loaded[name]
"""
OLD = (
    "import json, os, struct, sys, types\n"
    + LOADER
    + """
runtime, folder = part("runtimes/trtexec"), sys.argv[2]
model, engine, data = [os.path.join(folder, name) for name in ("model", "engine", "data")]
job = {"runtime": "trtexec", "precision": "fp16", "threads": 1, "cache": folder}
runtime.build(job, model, engine)
job.update(model=engine, reference=engine, data=data, shape=[1, 3, 2, 2], pairs=6, seconds_max=9.0, energy_s=1)
value, _ = runtime.measure(job)
print(len(value["wall_ms"]), min(value["gpu_ms"]), value["energy_window"]["runs"] > 5, value["peak_mb"] > 1)
open(data, "wb").write(struct.pack("<12f", *range(12)))
print(runtime.offers(), struct.unpack("<4f", runtime.predict(job)[1]))
"""
)


@pytest.mark.parametrize("python", old_pythons())
def test_under_every_python(python, tmp_path):
    (tmp_path / "texts").write_text(json.dumps(texts()))
    saved(tmp_path)
    done = subprocess.run(
        [python, "-c", OLD, str(tmp_path / "texts"), str(tmp_path)],
        capture_output=True,
        text=True,
        env=dict(os.environ, TRTEXEC=str(program(tmp_path, EIGHT))),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["6 4.0 True True", "{'trtexec': '8.2.1'} (12.0, 15.0, 18.0, 21.0)"]
