"""What is sent to which runtime, by the real converter."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from evaluators.export import runtime_formats
from evaluators.export.onnx_export import export
from evaluators.quantization.precision import to_precision
from evaluators.stages.structure import random_net
from remote.device import Int8Recipe
from remote.files import HostError
from spaces.candidate import Candidate, UnbuildableError
from tests.remote import models
from tests.remote.runtimes.loading import images, job, part, predicted, timing

RUNTIMES = Path(__file__).parents[3] / "remote" / "runtimes"
PX = 24


@pytest.fixture(scope="module")
def pnnx():
    return pytest.importorskip("pnnx", reason="pnnx is not installed")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> dict[str, Path]:
    """One small network as it is exported, by precision."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.manual_seed(0)
    net = random_net(Candidate(family="tiny_mobile", variant="mb_w8", image_px=PX), 10)
    paths = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    export(net, PX, paths["fp32"])
    to_precision(paths["fp32"], paths["fp16"], "fp16")
    to_precision(paths["fp32"], paths["int8"], "int8", Int8Recipe("uint8", 7, False), images(4, 3, PX, PX))
    return paths


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@pytest.mark.parametrize("path", sorted(RUNTIMES.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_runtime_says_what_it_needs(path):
    found = runtime_formats.needs(path.stem)
    assert found == part(f"runtimes/{path.stem}").NEEDS == runtime_formats.needs(f"{path.stem}:option")


@pytest.mark.parametrize("name", ["nothing", "../agent", "", "__init__"])
def test_a_runtime_that_is_none(name):
    with pytest.raises(ValueError, match=r"accepted: .*onnxruntime"):
        runtime_formats.needs(name)


def test_an_onnx_runtime_is_sent_the_graph_itself(tmp_path):
    graph = tmp_path / "graph.onnx"
    assert runtime_formats.for_runtime(graph, "onnx", PX, tmp_path) is graph and not any(tmp_path.iterdir())


def test_a_format_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="onnx, ncnn"):
        runtime_formats.for_runtime(tmp_path / "graph.onnx", "mnn", PX, tmp_path)


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_an_ncnn_net_computes_what_the_graph_does(pnnx, graphs, tmp_path, precision, near):
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    rows = images(5, 3, PX, PX)
    path = runtime_formats.for_runtime(graphs[precision], "ncnn", PX, tmp_path / "made")
    assert path == tmp_path / "made" / f"{precision}.ncnn.zip"
    found = predicted(part("runtimes/ncnn"), job("ncnn", precision=precision), path, rows, tmp_path)
    session = onnxruntime.InferenceSession(graphs[precision])
    want = np.concatenate([session.run(None, {"image": row[None]})[0] for row in rows])
    assert np.abs(found - want).max() <= near * np.abs(want).max()


def test_half_precision_weights_take_half_the_room_and_stay_what_they_are(pnnx, graphs, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        path = runtime_formats.for_runtime(graphs[precision], "ncnn", PX, tmp_path)
        sizes[precision] = len(members(path)["model.bin"])
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.75
    model = onnx.load(graphs["fp16"])
    assert runtime_formats._widen_to_fp32(model) and not runtime_formats._widen_to_fp32(model)
    onnx.checker.check_model(model, full_check=True)
    wide = onnxruntime.InferenceSession(model.SerializeToString())
    narrow = onnxruntime.InferenceSession(graphs["fp16"])
    row = images(1, 3, PX, PX)
    assert np.allclose(wide.run(None, {"image": row})[0], narrow.run(None, {"image": row})[0], atol=5e-3)


def test_equal_graphs_give_equal_files_and_nothing_else_is_left(pnnx, graphs, tmp_path):
    first = runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path / "one")
    second = runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["fp32.ncnn.zip"]
    assert set(members(first)) == {"model.param", "model.bin"}
    inputs = [line.split() for line in members(first)["model.param"].decode().splitlines() if line.startswith("Input")]
    assert [words[-3:] for words in inputs] == [[f"0={PX}", f"1={PX}", "2=3"]]


def test_a_file_that_is_there_is_not_made_again(monkeypatch, graphs, tmp_path):
    (tmp_path / "fp32.ncnn.zip").write_bytes(b"made before")
    monkeypatch.setattr(runtime_formats, "_pnnx", lambda: pytest.fail("it ran"))
    assert runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path).read_bytes() == b"made before"


def test_int8_graphs_do_not_become_ncnn_nets(graphs, tmp_path):
    with pytest.raises(UnbuildableError, match="int8"):
        runtime_formats.for_runtime(graphs["int8"], "ncnn", PX, tmp_path)
    assert not any(tmp_path.iterdir())


def test_operators_pnnx_does_not_know(pnnx, tmp_path):
    with pytest.raises(UnbuildableError, match="Nonsense") as caught:
        runtime_formats.for_runtime(models.saved(tmp_path, "unknown", models.unknown_op()), "ncnn", 2, tmp_path)
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["unknown.onnx"]


def test_operators_ncnn_does_not_have(pnnx, tmp_path):
    """pnnx lets them pass by the graph's name for them, which the device then does not know."""
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 2, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"])], "graph", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path = runtime_formats.for_runtime(models.saved(tmp_path, "foreign", model), "ncnn", 2, tmp_path)
    with pytest.raises(timing.JobError, match="Hardmax") as caught:
        part("runtimes/ncnn").load(job("ncnn"), str(path))
    assert caught.value.kind == "unsupported"


def program(folder: Path, text: str) -> str:
    path = folder / "pnnx"
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_converter_that_hangs(monkeypatch, graphs, tmp_path):
    path = program(tmp_path, "import time; time.sleep(600)")
    monkeypatch.setattr(runtime_formats, "_pnnx", lambda: path)
    monkeypatch.setattr(runtime_formats, "PNNX_S_MAX", 0.5)
    with pytest.raises(UnbuildableError, match=r"did not finish within 0\.5 s"):
        runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path / "made")
    assert not any((tmp_path / "made").iterdir())


def test_a_converter_that_crashes_is_quoted(monkeypatch, graphs, tmp_path):
    text = "import os, sys; print('\\033[0;93mlast words\\033[m', flush=True); os.kill(os.getpid(), 11)"
    path = program(tmp_path, text)
    monkeypatch.setattr(runtime_formats, "_pnnx", lambda: path)
    with pytest.raises(UnbuildableError, match=r"pnnx was killed by SIGSEGV; last output: last words$"):
        runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path / "made")


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "print('std::bad_alloc', flush=True); os.abort()"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_converter_without_memory_is_the_hosts_fault_if_it_comes_twice(monkeypatch, tmp_path, ending, times):
    """Once says nothing; and whatever is said, it is not held against the graph."""
    count = tmp_path / "count"
    text = f"import os; open({str(count)!r}, 'a').write('x')\nif os.path.getsize({str(count)!r}) <= {times}: {ending}\n"
    path = program(tmp_path, f"{text}for name in ('param', 'bin'): open('model.ncnn.' + name, 'w').close()")
    monkeypatch.setattr(runtime_formats, "_pnnx", lambda: path)
    if times == 1:
        runtime_formats._run_pnnx(tmp_path, PX, False)
    else:
        with pytest.raises(HostError, match=r"out of memory: pnnx.*run the same command to resume"):
            runtime_formats._run_pnnx(tmp_path, PX, False)
    assert count.read_text() == "xx"


def test_no_converter(monkeypatch, graphs, tmp_path):
    monkeypatch.setattr(runtime_formats.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runtime_formats.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnbuildableError, match="pip install pnnx"):
        runtime_formats.for_runtime(graphs["fp32"], "ncnn", PX, tmp_path / "made")
    path = program(tmp_path, "")
    assert runtime_formats._pnnx() == path and os.access(path, os.X_OK)
