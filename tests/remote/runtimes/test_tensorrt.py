"""TensorRT's runtime against each version's own names, over a stand-in for CUDA; the real one where it is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from remote.link.transport import texts
from tests.remote import models
from tests.remote.runtimes import fake_tensorrt
from tests.remote.runtimes.fake_cuda import COPY_MS, DRIVER, RUNTIME, Library
from tests.remote.runtimes.fake_tensorrt import KERNEL_MS, VERSIONS
from tests.remote.runtimes.loading import check_block, images, job, measured, part, predicted, timing
from tests.remote.test_agent import old_pythons

runtime, cuda = part("runtimes/tensorrt"), part("cuda")
EIGHT_TWO, EIGHT_FIVE, EIGHT_SIX, TEN, ELEVEN = VERSIONS
EACH = pytest.mark.parametrize("version", VERSIONS)
JOB = job("tensorrt")
GRAPH = {"input": ["x", [1, 3, 2, 2], "FLOAT"], "outputs": [["y", [1, 4], "FLOAT"]], "gain": 2.0, "layers": ["a", "b"]}


@pytest.fixture
def board(monkeypatch):
    """Puts a version of TensorRT on a GPU; the module and the library are returned."""

    def use(version, names=DRIVER, sm=(8, 7), **traits):
        lib = Library(names, sm=sm)
        trt = fake_tensorrt.module(version, lib, **traits)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(cuda, "library", lambda: lib)
        monkeypatch.setattr(cuda, "OPENED", [])
        return trt

    return use


def saved(folder: Path, **traits) -> Path:
    path = folder / "model"
    path.write_text(json.dumps(GRAPH | traits))
    return path


def built(folder: Path, wanted: dict = JOB, **traits) -> Path:
    """The engine of a graph with these traits."""
    runtime.build(wanted, str(saved(folder, **traits)), str(folder / "engine"))
    return folder / "engine"


def plan(folder: Path, wanted: dict = JOB, **traits) -> dict:
    """What the stand-in notes in an engine of how it was built."""
    return json.loads(built(folder, wanted, **traits).read_bytes()[4:])


def fault(kind: str, words: str, work, *arguments, **named) -> str:
    """The one-line reason of an JobError of that kind."""
    with pytest.raises(timing.JobError) as caught:
        work(*arguments, **named)
    reason = str(caught.value)
    assert caught.value.kind == kind and words in reason and "\n" not in reason and len(reason) <= 500
    return reason


def expected(rows: np.ndarray) -> np.ndarray:
    return 2.0 * rows.reshape(len(rows), -1, 4).sum(1)


# ------------------------------------------------ from the file to the numbers


@EACH
@pytest.mark.parametrize("names", [DRIVER, RUNTIME], ids=["libcuda", "libcudart"])
def test_predictions(board, tmp_path, version, names):
    board(version, names)
    rows = images(3, 3, 2, 2)
    assert np.allclose(predicted(runtime, JOB, built(tmp_path), rows, tmp_path), expected(rows), atol=1e-5)


@EACH
def test_a_block(board, tmp_path, version):
    board(version)
    engine = built(tmp_path)
    value = measured(runtime, JOB, engine, engine, energy_s=0.05)
    check_block(value)
    assert value["gpu_ms"] == value["reference_gpu_ms"] == [KERNEL_MS] * 6  # neither copy is in it
    sizes = engine.stat().st_size + 3_000_000 + 4 * (12 + 4)
    assert value["device_mb"] == sizes / 1e6 and value["energy_window"]["runs"] > 0


@EACH
def test_one_query_is_in_flight_and_it_is_over(board, tmp_path, version):
    lib = board(version)._cuda
    model = runtime.load(JOB, str(built(tmp_path)))
    assert model.gpu_ms is None
    model.feed(None)
    before_ms = lib.now_ms
    model.run()
    assert lib.now_ms - before_ms == 2 * COPY_MS + KERNEL_MS and not any(lib.streams.values())


@EACH
@pytest.mark.parametrize("kind", ["HALF", "INT8", "INT32"])
def test_other_types_of_input_and_output(board, tmp_path, version, kind):
    board(version)
    engine = built(tmp_path, input=["x", [1, 3, 2, 2], kind], outputs=[["y", [1, 4], kind]])
    rows = np.round(images(2, 3, 2, 2) * 8) / (8 if kind == "HALF" else 1)
    found = predicted(runtime, JOB, engine, rows, tmp_path)
    assert found.dtype == np.float32 and np.allclose(found, expected(rows), rtol=1e-3)


def test_what_a_type_cannot_hold_becomes_the_nearest(board, tmp_path):
    board(TEN)
    for kind, want in (("HALF", 65504.0), ("INT8", 127.0), ("UINT8", 255.0)):
        engine = built(tmp_path, input=["x", [1, 4], kind], outputs=[["y", [1, 4], "FLOAT"]], gain=1.0)
        found = predicted(runtime, JOB, engine, np.full((1, 4), 1e6, np.float32), tmp_path)
        assert found.tolist() == [[want] * 4]


def test_several_inputs_and_outputs(board, tmp_path):
    board(EIGHT_TWO)
    engine = built(tmp_path, outputs=[["y", [1, 4], "FLOAT"], ["z", [1, 2], "HALF"]])
    rows = images(2, 3, 2, 2)
    assert np.allclose(predicted(runtime, JOB, engine, rows, tmp_path), expected(rows), atol=1e-5)


def test_random_input_is_the_same_each_time(board, tmp_path):
    board(EIGHT_SIX)
    outputs = []
    for kind in ("FLOAT", "FLOAT", "HALF"):
        model = runtime.load(JOB, str(built(tmp_path, input=["x", [1, 3, 2, 2], kind])))
        model.feed(None)
        model.run()
        outputs.append(np.frombuffer(model.output(), "<f4"))
    assert np.array_equal(outputs[0], outputs[1]) and np.allclose(outputs[0], outputs[2], atol=0.02)
    assert len(set(outputs[0])) == 4


def test_images_of_another_size(board, tmp_path):
    board(TEN)
    fault(
        "unbuildable",
        "48 values, the model takes 1x3x2x2",
        predicted,
        runtime,
        JOB,
        built(tmp_path),
        images(1, 3, 4, 4),
        tmp_path,
    )


def test_without_an_asynchronous_call_there_is_no_gpu_time(board, tmp_path, monkeypatch):
    """execute_v2 is the one call that all versions have."""
    names = fake_tensorrt.NAMES[ELEVEN]
    monkeypatch.setitem(names, "IExecutionContext", names["IExecutionContext"].replace("execute_async_v3", ""))
    board(ELEVEN)
    engine, rows = built(tmp_path), images(2, 3, 2, 2)
    assert np.allclose(predicted(runtime, JOB, engine, rows, tmp_path), expected(rows), atol=1e-5)
    assert "gpu_ms" not in measured(runtime, JOB, engine, engine)


# ------------------------------------------------ how it is built


@EACH
@pytest.mark.parametrize(
    ("precision", "kinds", "flags"),
    [("fp32", [], []), ("fp16", ["HALF"], ["FP16"]), ("int8", ["INT8"], ["FP16", "INT8"])],
)
def test_a_typed_graph_is_built_as_it_is(board, tmp_path, version, precision, kinds, flags):
    """Up to 10 its types are to be allowed; 11 has neither the flags nor the need."""
    board(version, sm=(7, 2))
    made = plan(tmp_path, JOB | {"precision": precision, "workspace_mb": 100}, kinds=kinds)
    assert made["flags"] == ([] if version == ELEVEN else flags)
    assert made["workspace"] == 100 << 20


@EACH
@pytest.mark.parametrize(("sm", "flags"), [((7, 2), []), ((8, 7), ["SPARSE_WEIGHTS"])])
def test_weights_are_looked_at_for_zeros_where_they_can_be_skipped(board, tmp_path, version, sm, flags):
    board(version, sm=sm)
    assert plan(tmp_path)["flags"] == flags


@EACH
def test_the_workspace_is_256_mb_by_default(board, tmp_path, version):
    board(version)
    assert plan(tmp_path)["workspace"] == 256 << 20  # 8.2's own would be 16


def test_int8_does_not_ask_for_fp16_where_that_is_slow(board, tmp_path):
    board(TEN, sm=(6, 1), fast_fp16=False)
    assert plan(tmp_path, JOB | {"precision": "int8"}, kinds=["INT8"])["flags"] == ["INT8"]


@pytest.mark.parametrize(
    ("version", "sm"),
    [(EIGHT_TWO, (5, 3)), (EIGHT_TWO, (6, 2)), (EIGHT_FIVE, (5, 3)), (TEN, (6, 0)), (ELEVEN, (10, 3))],
)
def test_int8_is_refused_where_there_is_none(board, tmp_path, version, sm):
    board(version, sm=sm, fast_int8=False)
    reason = fault("unsupported", "no int8", built, tmp_path, JOB | {"precision": "int8"}, kinds=["INT8"])
    assert f"sm {sm[0]}.{sm[1]}" in reason and "fp16 or fp32" in reason and not (tmp_path / "engine").exists()


def test_8_to_10_are_asked_and_not_a_table(board, tmp_path):
    board(EIGHT_SIX, sm=(5, 3), fast_int8=True)
    assert "INT8" in plan(tmp_path, JOB | {"precision": "int8"}, kinds=["INT8"])["flags"]


@EACH
def test_the_optimization_level_is_left_alone(board, tmp_path, version):
    board(version)
    assert plan(tmp_path)["level"] is None


@EACH
def test_warnings_are_notes(board, tmp_path, version):
    board(version)
    path = saved(tmp_path, warnings=["Cast to INT32", "Cast to INT32", "Using\n slow path"])
    notes = runtime.build(JOB, str(path), str(tmp_path / "engine"))["notes"]
    assert notes == ["Cast to INT32", "Using slow path"]


# ------------------------------------------------ what an engine is made of

INSPECTED = [
    ["Reformatting CopyNode for Input Tensor 0 to conv", "Reformat", "Row major linear FP32", 0.25],
    ["conv + relu", "CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format.", 1.5],
    ["fc", "gemm", "Channel major FP16 format where channel % 8 == 0", 0.5],
]


@EACH
def test_layers(board, tmp_path, version):
    """The inspector's words and the profiler's times, of the engine that is timed."""
    board(version)
    engine = built(tmp_path, inspected=INSPECTED)
    found = runtime.layers(JOB | {"model": str(engine), "seconds_max": 0.01})
    assert [(row["type"], row["precision"], row["ms"]) for row in found] == [
        ("Reformat", "fp32", 0.25),
        ("CaskConvolution", "int8", 1.5),
        ("gemm", "fp16", 0.5),
    ]


def test_layers_of_an_engine_that_tells_names_only(board, tmp_path):
    board(EIGHT_SIX)
    engine = built(tmp_path, inspected=INSPECTED)
    engine.write_bytes(engine.read_bytes().replace(b'"detailed": true', b'"detailed": false'))
    found = runtime.layers(JOB | {"model": str(engine), "seconds_max": 0.01})
    assert [(row["name"], row["precision"], row["ms"]) for row in found] == [(r[0], "", r[3]) for r in INSPECTED]


# ------------------------------------------------ the timing cache


@pytest.fixture
def cached(tmp_path):
    return JOB | {"cache": str(tmp_path / "timing")}


def cache_file(wanted: dict) -> Path:
    (file,) = Path(wanted["cache"]).iterdir()  # one, and no temporary beside it
    return file


@EACH
def test_layers_are_timed_once(board, tmp_path, cached, version):
    board(version)
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert plan(tmp_path, cached, layers=["b", "c"])["timed"] == ["c"]
    assert plan(tmp_path, cached, layers=["a", "b", "c"])["timed"] == []
    assert version in cache_file(cached).name and "sm8.7" in cache_file(cached).name


@EACH
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"", lambda data: b"?" * 99]
)
def test_a_damaged_cache_is_ignored_and_rewritten(board, tmp_path, cached, version, damage):
    trt = board(version)
    built(tmp_path, cached)
    file = cache_file(cached)
    file.write_bytes(damage(file.read_bytes()))
    trt._parsed.clear()
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert trt._parsed == [b""]  # nothing damaged comes before TensorRT's eyes
    assert plan(tmp_path, cached)["timed"] == []


@EACH
@pytest.mark.parametrize("content", [b"not a cache", b"TIMES 7.1.3 a b"])
def test_a_cache_that_tensorrt_refuses_is_begun_anew(board, tmp_path, cached, version, content):
    board(version)
    part("tensorrt_common").keep(part("tensorrt_common").cache_file(cached["cache"], "tensorrt", version), content)
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert plan(tmp_path, cached)["timed"] == []


def test_each_version_and_gpu_has_its_own_cache(board, tmp_path, cached):
    for version, sm in ((TEN, (8, 7)), (TEN, (7, 2)), (ELEVEN, (8, 7))):
        board(version, sm=sm)
        assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert len(list(Path(cached["cache"]).iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_nothing_else(board, tmp_path, cached, monkeypatch):
    board(TEN)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left on device")))
    assert plan(tmp_path, cached)["timed"] == ["a", "b"]
    assert list(Path(cached["cache"]).iterdir()) == []


# ------------------------------------------------ what may go wrong


@EACH
def test_an_operator_that_is_not_known(board, tmp_path, version):
    board(version)
    words = "In node 7 (importFallbackPluginImporter): creator && 'Plugin not found'"
    reason = fault(
        "unsupported", "UNSUPPORTED_NODE", built, tmp_path, parser=[["UNSUPPORTED_NODE", 7, "GridSample", words]]
    )
    assert words in reason and "node 7" in reason
    assert ("GridSample" in reason) == (version in (TEN, ELEVEN))  # 8 does not tell the operator


@EACH
def test_a_file_that_is_no_model(board, tmp_path, version):
    board(version)
    (tmp_path / "model").write_bytes(b"\xff\xfe")
    fault(
        "unbuildable", "MODEL_DESERIALIZE_FAILED", runtime.build, JOB, str(tmp_path / "model"), str(tmp_path / "engine")
    )


NO_TACTIC = "10: [optimizer.cpp::computeCosts::1855] Error Code 10: Could not find any implementation for node c."
PASSED_OVER = "Skipping tactic 3 due to insuficient memory on requested size of 536870912 detected for tactic 1."


@EACH
@pytest.mark.parametrize(
    ("error", "warning", "kind"),
    [
        (NO_TACTIC, "", "unbuildable"),
        (NO_TACTIC, PASSED_OVER, "out_of_memory"),
        ("9: Error Code 9: Internal Error", PASSED_OVER, "unbuildable"),
        ("1: [convolutionRunner.cpp::executeConv] Error Code 1: Cuda Runtime (out of memory)", "", "out_of_memory"),
        ("2: [virtualMemoryBuffer.cpp] Error Code 2: OutOfMemory (no further information)", "", "out_of_memory"),
        ("Requested amount of GPU memory (1073741824 bytes) could not be allocated.", "", "out_of_memory"),
        ("4: Networks with QuantizeLayer layers require hardware with Int8 support", "", "unsupported"),
    ],
)
def test_no_engine_comes_out(board, tmp_path, version, error, warning, kind):
    board(version)
    fault(kind, error, built, tmp_path, errors=[error], warnings=[warning] if warning else [])
    assert not (tmp_path / "engine").exists()


@EACH
def test_no_engine_and_no_word_why(board, tmp_path, version):
    board(version)
    fault("unbuildable", "gave no reason", built, tmp_path, errors=[])


@EACH
def test_an_engine_of_another_version(board, tmp_path, version):
    board(EIGHT_SIX if version != EIGHT_SIX else TEN)
    engine = built(tmp_path)
    board(version)
    fault("unbuildable", "serializationVersion", runtime.load, JOB, str(engine))


@EACH
def test_no_memory_for_the_context(board, tmp_path, version):
    board(version)
    fault("out_of_memory", "out of memory", runtime.load, JOB, str(built(tmp_path, huge=True)))


def test_no_memory_for_the_buffers(board, tmp_path):
    lib = board(TEN)._cuda
    engine = built(tmp_path)
    lib.memory = 8
    fault("out_of_memory", "CUDA error 2 (OUT_OF_MEMORY) from cuMemAlloc_v2", runtime.load, JOB, str(engine))


@EACH
def test_an_inference_that_is_refused(board, tmp_path, version):
    board(version)
    model = runtime.load(JOB, str(built(tmp_path, refuses="1: [pluginV2Runner.cpp] Error Code 1: Myelin (no kernel)")))
    fault("crashed", "Myelin", model.run)


def test_an_inference_that_cuda_ends(board, tmp_path):
    lib = board(TEN)._cuda
    model = runtime.load(JOB, str(built(tmp_path)))
    for number, kind in ((700, "crashed"), (2, "out_of_memory")):
        lib.failing["cuStreamSynchronize"] = number
        fault(kind, f"CUDA error {number}", model.run)


def test_a_failing_reference_is_not_the_candidates_fault(board, tmp_path):
    board(TEN)
    engine = built(tmp_path)
    (tmp_path / "reference").write_bytes(b"no plan")
    fault("reference", "reference", measured, runtime, JOB, engine, tmp_path / "reference")


@pytest.mark.parametrize(("shape", "kind", "word"), [([1, -1, 2], "FLOAT", "free dimension"), ([1, 2], "BF16", "BF16")])
def test_inputs_that_cannot_be_fed(board, tmp_path, shape, kind, word):
    board(TEN)
    fault("unsupported", word, runtime.load, JOB, str(built(tmp_path, input=["x", shape, kind])))


@pytest.mark.parametrize("listed", [False, True])
def test_without_tensorrt(monkeypatch, tmp_path, listed):
    path = [entry for entry in sys.path if entry != runtime.SYSTEM]
    monkeypatch.setattr(sys, "path", [runtime.SYSTEM, *path] if listed else path)
    before = list(sys.path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    fault("no_runtime", "cannot be imported", runtime.build, JOB, str(saved(tmp_path)), str(tmp_path / "engine"))
    assert sys.path == before


@pytest.mark.parametrize(("number", "kind"), [(35, "no_runtime"), (100, "no_runtime"), (2, "out_of_memory")])
def test_without_cuda(board, tmp_path, number, kind):
    board(TEN)._cuda.failing["cuDevicePrimaryCtxRetain"] = number
    fault(kind, f"CUDA error {number}", built, tmp_path)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("CUDA initialization failure with error: 35", "no_runtime"),
        ("Cuda Runtime (out of memory)", "out_of_memory"),
        ("?", "no_runtime"),
    ],
)
def test_a_builder_that_does_not_start_is_not_the_models_fault(board, tmp_path, words, kind):
    board(EIGHT_TWO, broken=words)
    fault(kind, words, built, tmp_path)


# ------------------------------------------------ what is installed


def test_it_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n__version__ = '8.2.1.8'\n")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert runtime.offers() == {"tensorrt": "8.2.1.8"}


def test_wheels_tell_their_version_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text("from tensorrt_bindings import __version__\n")
    (tmp_path / "tensorrt_cu12-10.3.0.dist-info").mkdir()
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert runtime.offers() == {"tensorrt": "10.3.0"}
    (tmp_path / "tensorrt_cu12-10.3.0.dist-info").rmdir()
    (tmp_path / "tensorrt_bindings").mkdir()
    (tmp_path / "tensorrt_bindings" / "__init__.py").write_text("__version__ = '11.4.0.106'\n")
    importlib.invalidate_caches()
    assert runtime.offers() == {"tensorrt": "11.4.0.106"}


def test_jetpacks_is_found_from_a_venv_too(tmp_path, monkeypatch):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed here")
    folder = tmp_path / "dist-packages" / "tensorrt"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("__version__ = '8.2.1.8'\n")
    monkeypatch.setattr(runtime, "SYSTEM", str(folder.parent))
    assert runtime.offers() == {"tensorrt": "8.2.1.8"}
    monkeypatch.setattr(runtime, "SYSTEM", str(tmp_path))
    assert runtime.offers() == {}


# ------------------------------------------------ old Pythons, and the real thing

# argv: folder of the stand-ins, JSON file of the texts, folder to work in
OLD = """
import json, os, struct, sys, types
sys.path.insert(0, sys.argv[1])
import fake_cuda, fake_tensorrt
texts, loaded, folder = json.load(open(sys.argv[2])), {}, sys.argv[3]
def part(name):
    if name not in loaded:
        loaded[name] = module = types.ModuleType(name)
        module.part = part
        exec(compile(texts[name], name, "exec"), module.__dict__)
    return loaded[name]
cuda, runtime = part("cuda"), part("runtimes/tensorrt")
graph = {"input": ["x", [1, 4], "HALF"], "outputs": [["y", [1, 2], "HALF"]], "gain": 0.5}
path, engine = os.path.join(folder, "model"), os.path.join(folder, "engine")
json.dump(graph, open(path, "w"))
for version in fake_tensorrt.VERSIONS:
    lib = fake_cuda.Library()
    sys.modules["tensorrt"] = fake_tensorrt.module(version, lib)
    cuda.library, cuda.OPENED = lambda: lib, []
    job = {"runtime": "tensorrt", "precision": "fp16", "threads": 1, "cache": folder}
    runtime.build(job, path, engine)
    model = runtime.load(job, engine)
    model.feed(struct.pack("<4f", 1, 2, 3, 4))
    model.run()
    print(version, struct.unpack("<2f", model.output()), model.gpu_ms)
print(cuda.gpu()["sm"])
"""


@pytest.mark.parametrize("python", old_pythons())
def test_under_every_python(python, tmp_path):
    (tmp_path / "texts").write_text(json.dumps(texts()))
    argv = [python, "-c", OLD, str(Path(__file__).parent), str(tmp_path / "texts"), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{version} (2.0, 3.0) {KERNEL_MS}" for version in VERSIONS] + ["5.3"]


@pytest.mark.skipif(
    cuda.gpu() is None or not runtime.offers(), reason="no CUDA GPU with TensorRT's Python bindings on this machine"
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_real_thing(tmp_path, precision):
    import onnxruntime

    path = models.saved(tmp_path, "model", models.convolution())
    wanted = JOB | {"precision": precision, "cache": str(tmp_path / "timing")}
    runtime.build(wanted, str(path), str(tmp_path / "engine"))
    rows = images(4, 3, 24, 24)
    session = onnxruntime.InferenceSession(path)
    want = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    found = predicted(runtime, wanted, tmp_path / "engine", rows, tmp_path)
    assert np.abs(found - want).max() < 0.02 * np.abs(want).max()
    value = measured(runtime, wanted, tmp_path / "engine", tmp_path / "engine")
    check_block(value)
    assert all(0 < gpu <= wall for gpu, wall in zip(value["gpu_ms"], value["wall_ms"], strict=True))
