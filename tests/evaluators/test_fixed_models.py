"""Classifiers that a user gives as ONNX: what they must be, and the graphs that are made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators.data.dataset import TRAIN, DataError, Split
from evaluators.data.loading import open_dataset
from evaluators.fixed_models import judge_model, parity, size_of, write_plain
from evaluators.stages.structure import measure_given
from evaluators.stages.trained_graph import make_graph
from evaluators.training.jobs import GraphJob, LadderConfig, TrainingRecipe
from evaluators.training.onnx_teacher import open_models
from remote.device import Int8Recipe
from spaces.candidate import Candidate

PX, CLASSES = 16, tuple("0123456789")
PLACES = 4 * (PX // 2) ** 2
INT8 = Int8Recipe("uint8", False, 7)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def net(path, batch=1, px=PX, classes=10, opset=13, end="Softmax", more=(), inputs=(), outputs=(), kind=None, **seed):
    """A convolution and a matrix; its input is called `logits`, its output `image`."""
    random = np.random.default_rng(seed.get("seed", 0))
    kernel = random.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5
    matrix = random.standard_normal((PLACES, classes)).astype(np.float32) / 16
    nodes = [
        helper.make_node("Conv", ["logits", "kernel"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["m"]),
        *more,
        helper.make_node(end, ["m"], ["image"], **({"axis": 1} if end == "Softmax" else {})),
    ]
    tensors = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")]
    ins = [value("logits", batch, 3, px, px, kind=kind or TensorProto.FLOAT), *inputs]
    outs = [value("image", batch, classes), *outputs]
    graph = helper.make_graph(nodes, "g", ins, outs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    told = {"preprocessing": {"image_px": PX, "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "pad"}}
    path.with_suffix(".json").write_text(json.dumps(told | {"classes": list(CLASSES)}))
    return path


def only(path):
    (found,) = open_models([str(path)], CLASSES).values()
    return found


def test_open_models_family_is_of_graph_and_preprocessing(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here, there = net(tmp_path / "net.onnx"), net(tmp_path / "elsewhere" / "net.onnx")
    key = lambda path: Candidate(family=next(iter(open_models([str(path)], CLASSES))), variant="net", image_px=PX).key()  # noqa: E731
    assert key(here) == key(there)
    there.with_suffix(".json").write_text(there.with_suffix(".json").read_text().replace("pad", "crop"))
    cropped = key(there)
    net(there, seed=1)
    assert len({key(here), cropped, key(there)}) == 3
    with pytest.raises(DataError, match=r"elsewhere/net.onnx has the same name as .*net.onnx: rename it"):
        open_models([str(here), str(there)], CLASSES)
    candidate = Candidate(
        family=next(iter(open_models([str(here)], CLASSES))), variant="net", image_px=PX, precision="int8"
    )
    assert candidate.fixed and candidate.describe() == "net 16px fixed int8"


@pytest.mark.parametrize("batch", [1, "n", 8])
@pytest.mark.parametrize("px", [PX, "side"])
def test_write_plain_gives_the_usual_form(tmp_path, batch, px):
    model, out = only(net(tmp_path / "net.onnx", batch=batch, px=px)), tmp_path / "plain.onnx"
    judge_model(model, 10, 13)
    write_plain(model, out, 13)
    session = onnxruntime.InferenceSession(out)
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", [1, 3, PX, PX])]
    assert [o.name for o in session.get_outputs()] == ["logits"]
    assert parity(model, out) < 1e-6
    assert size_of(out) == (4 * 27 + PLACES * 10, 4 * 27 * (PX // 2) ** 2 + PLACES * 10)


@pytest.mark.parametrize(("opset", "opset_max"), [(11, 21), (17, 13), (17, 21)])
def test_write_plain_meets_the_opset(tmp_path, opset, opset_max):
    idle = [helper.make_node("Identity", ["f"], ["g"])]
    model, out = only(net(tmp_path / "net.onnx", opset=opset, end="Identity", more=idle)), tmp_path / "plain.onnx"
    write_plain(model, out, opset_max)
    version = onnx.load(out).opset_import[0].version
    assert 13 <= version <= opset_max and parity(model, out) < 1e-6


BAD = {
    "inputs": ({"inputs": [value("other", 1)]}, "has 2 inputs; a classifier must have one"),
    "outputs": ({"outputs": [value("m", 1, 10)]}, "has 2 outputs"),
    "half": ({"kind": TensorProto.FLOAT16}, "its input is not float32"),
    "size": ({"px": 32}, "takes 1 x 3 x 32 x 32; its preprocessing yields 1 x 3 x 16 x 16"),
    "classes": ({"classes": 7}, r"returns float32 \(1, 7\) for one image; it must return float32 \(1, 10\)"),
    "quantized": ({"more": [helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"])]}, "is quantized"),
    "foreign": ({"more": [helper.make_node("Gelu", ["f"], ["g"], domain="com.microsoft")]}, "operators of com.micro"),
    "opset": ({"opset": 20, "more": [helper.make_node("Gelu", ["f"], ["g"])]}, "opset 13 is needed here, and it can't"),
}


@pytest.mark.parametrize("name", BAD)
def test_judge_model_tells_what_is_wrong_in_one_line(tmp_path, name):
    traits, says = BAD[name]
    with pytest.raises(DataError, match=says) as error:
        judge_model(only(net(tmp_path / "net.onnx", **traits)), 10, 13)
    assert "\n" not in str(error.value) and str(tmp_path / "net.onnx") in str(error.value)


def test_open_models_wrong_file_is_one_line(tmp_path):
    path = net(tmp_path / "net.onnx")
    with pytest.raises(DataError, match=r"model nowhere.onnx: no such file; name an ONNX classifier$"):
        open_models(["nowhere.onnx"], CLASSES)
    with pytest.raises(DataError, match="its classes are 0, 1"):
        open_models([str(path)], ("a", "b"))
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"its preprocessing is unknown; write net.json"):
        open_models([str(path)], CLASSES)


def test_write_plain_changed_file_is_told(tmp_path):
    model = only(net(tmp_path / "net.onnx"))
    net(tmp_path / "net.onnx", seed=1)
    with pytest.raises(DataError, match="was changed during the run"):
        write_plain(model, tmp_path / "plain.onnx", 13)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_given_model_becomes_what_was_timed_at_every_precision(tmp_path, precision):
    digits = open_dataset(None, 0)
    train = digits.splits[TRAIN]
    some = Split(train.sources[::14], train.labels[::14])
    digits = replace(digits, splits=digits.splits | {TRAIN: some}, digest=digits.digest + "-few", resize="pad")
    ((family, model),) = open_models([str(net(tmp_path / "net.onnx", opset=17))], CLASSES).items()
    candidate = Candidate(family=family, variant="net", image_px=PX, precision=precision)
    structure, timed = measure_given(candidate, model, int8=INT8, folder=tmp_path, opset_max=13, seed=0)
    assert structure.exporter == "given" and structure.macs > structure.parameters > 0
    ladder = LadderConfig(allowed_drop=0.99, methods=("min-max",), qat_epochs=0, images=60)
    job = GraphJob(
        candidate=candidate,
        dataset=digits,
        cache=tmp_path / "images",
        net=tmp_path / "no net",
        plain=tmp_path / "plain.onnx",
        out=tmp_path / "out.onnx",
        timed=timed,
        int8=INT8,
        opset=13,
        runtimes=("onnxruntime",),
        calibration_images=16,
        ladder=ladder,
        recipe=TrainingRecipe(threads=1),
        given=model,
    )
    made = make_graph(job)
    assert bool(made.rungs) == (precision == "int8") and not made.relaid
    image = np.random.default_rng(0).standard_normal((1, 3, PX, PX), dtype=np.float32)
    outs = [onnxruntime.InferenceSession(path).run(None, {"image": image})[0] for path in (job.plain, made.path)]
    assert np.abs(outs[0] - outs[1]).max() < (1e-6 if precision == "fp32" else 0.1)
