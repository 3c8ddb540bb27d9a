"""Other precisions: what old readers take, repeatable, quantized as the target asks, whole where fp16 overflows."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from evaluators.export.onnx_export import INPUT, IR_VERSION, OUTPUT, export, opset_of
from evaluators.quantization.precision import layout, to_precision
from evaluators.stages.structure import random_net, run
from spaces.candidate import Candidate
from tests.evaluators.quantization.nets import RECIPES

PX = 32
MAKE = """
import sys, hashlib, pathlib, numpy, torch
from evaluators.export.onnx_export import export
from evaluators.quantization.precision import to_precision
from evaluators.stages.structure import random_net
from remote.device import Int8Recipe
from spaces.candidate import Candidate
torch.manual_seed(0)
folder = pathlib.Path(sys.argv[1])
export(random_net(Candidate(family="tiny_mobile", variant="mb_w8", image_px=32), 7), 32, folder / "fp32.onnx")
images = numpy.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=numpy.float32)
for precision in ("fp16", "int8"):
    to_precision(folder / "fp32.onnx", folder / f"{precision}.onnx", precision, Int8Recipe("uint8", False, 7), images)
for path in sorted(folder.iterdir()):
    print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((16, 3, PX, PX), dtype=np.float32)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("graphs") / "fp32.onnx"
    export(random_net(Candidate(family="tiny_resnet", variant="res8_w16_s2", image_px=PX), 7), PX, path)
    return path


def logits(path, images):
    return np.concatenate([run(path, image[None]) for image in images])


def initializers(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_old_readers_take_it(fp32, images, tmp_path):
    to_precision(fp32, tmp_path / "fp16.onnx", "fp16")
    to_precision(fp32, tmp_path / "int8.onnx", "int8", RECIPES["TensorRT"], images)
    for path in (fp32, *tmp_path.iterdir()):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert opset_of(path) == 13 and model.ir_version <= IR_VERSION
        assert [entry.domain for entry in model.opset_import] == [""]
        session = onnxruntime.InferenceSession(path)
        (image,), (output,) = session.get_inputs(), session.get_outputs()
        assert (image.name, image.type, image.shape) == (INPUT, "tensor(float)", [1, 3, PX, PX])
        assert (output.name, output.type, output.shape) == (OUTPUT, "tensor(float)", [1, 7])
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_fp16_is_a_typed_graph_of_half_the_size(fp32, images, tmp_path):
    to_precision(fp32, tmp_path / "fp16.onnx", "fp16")
    assert {a.dtype for a in initializers(tmp_path / "fp16.onnx").values() if a.dtype.kind == "f"} == {np.dtype("f2")}
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.6 * fp32.stat().st_size
    assert np.abs(logits(tmp_path / "fp16.onnx", images) - logits(fp32, images)).max() < 0.02


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_int8_follows_the_recipe(fp32, images, tmp_path, recipe):
    path = tmp_path / "int8.onnx"
    to_precision(fp32, path, "int8", recipe, images)
    model, values = onnx.load(path), initializers(path)
    weights = [a for name, a in values.items() if a.ndim == 4]
    assert {w.dtype for w in weights} == {np.dtype("i1")}
    limit = 64 if recipe.weight_bits == 7 else 128
    assert limit / 2 < max(int(np.abs(w.astype(int)).max()) for w in weights) <= limit
    activation = np.dtype("u1" if recipe.activation == "uint8" else "i1")
    points = [values[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert points and {p.dtype for p in points} == {activation}
    if recipe.symmetric:
        assert all(int(p) == 0 for p in points)
    scales = [values[n.input[1]] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert max(s.size for s in scales) == 64, "weights have a scale for every channel of the widest layer"


@pytest.mark.parametrize("name", ["cpu without VNNI", "TensorRT"])
def test_int8_computes_nearly_the_same(fp32, images, tmp_path, name):
    to_precision(fp32, tmp_path / "int8.onnx", "int8", RECIPES[name], images)
    whole, quantized = logits(fp32, images), logits(tmp_path / "int8.onnx", images)
    assert np.corrcoef(whole.ravel(), quantized.ravel())[0, 1] > 0.98


def test_calibration_matters(fp32, images, tmp_path):
    """Activations are scaled to what the calibration images give."""
    for name, factor in (("one", 1.0), ("three", 3.0)):
        to_precision(fp32, tmp_path / f"{name}.onnx", "int8", RECIPES["TensorRT"], images * np.float32(factor))
    scales = [initializers(tmp_path / f"{name}.onnx")[f"{INPUT}_scale"] for name in ("one", "three")]
    assert scales[1] == pytest.approx(3 * scales[0], rel=1e-3)


@pytest.mark.parametrize("recipe, count", [(None, 4), (RECIPES["TensorRT"], 0), (RECIPES["TensorRT"], None)])
def test_int8_without_what_it_needs_is_refused(fp32, images, tmp_path, recipe, count):
    calibration = None if count is None else images[:count]
    with pytest.raises(ValueError, match="int8 needs the device's recipe"):
        to_precision(fp32, tmp_path / "int8.onnx", "int8", recipe, calibration)


def test_an_unknown_precision_is_refused(fp32, tmp_path):
    with pytest.raises(ValueError, match="unknown precision 'int4'; accepted: fp32, fp16, int8"):
        to_precision(fp32, tmp_path / "int4.onnx", "int4")


def test_fresh_processes_write_the_same_bytes_and_print_nothing(tmp_path):
    """Hash seeds differ between processes; a set's order must not reach the file. Model hashes are cache keys."""
    told = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-W", "default", "-c", MAKE, str(tmp_path / seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        assert done.stderr == ""
        told.append(done.stdout.splitlines())
    assert told[0] == told[1]
    assert [line.split()[0] for line in told[0]] == ["fp16.onnx", "fp32.onnx", "int8.onnx"]


def overflowing(net):
    """The same function, with a tensor between two convolutions far beyond what fp16 holds."""
    block = next(m for m in net.modules() if hasattr(m, "bn1") and hasattr(m, "conv2"))
    with torch.no_grad():
        block.bn1.weight.mul_(3e5)
        block.bn1.bias.mul_(3e5)
        block.conv2.weight.div_(3e5)


def test_fp16_keeps_in_fp32_what_overflows(images, tmp_path):
    torch.manual_seed(0)
    net = random_net(Candidate(family="cifar_resnet", variant="cifar_resnet20", image_px=PX), 7)
    overflowing(net)
    export(net, PX, tmp_path / "fp32.onnx")
    to_precision(tmp_path / "fp32.onnx", tmp_path / "blind.onnx", "fp16")
    to_precision(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", "fp16", calibration=images)
    whole = logits(tmp_path / "fp32.onnx", images)
    assert not np.abs(logits(tmp_path / "blind.onnx", images) - whole).max() < 0.05
    assert np.abs(logits(tmp_path / "fp16.onnx", images) - whole).max() < 0.05
    kinds = [a.dtype for a in initializers(tmp_path / "fp16.onnx").values() if a.ndim == 4]
    assert 1 <= kinds.count(np.dtype("f4")) <= 3 and len(kinds) > 10
    onnx.checker.check_model(onnx.load(tmp_path / "fp16.onnx"), full_check=True)


def test_zero_biases_change_no_layout(tmp_path):
    """As an untrained squeezenet has: the exporter writes one tensor, and an Identity for each of the others."""
    for name, equal in (("untrained", True), ("trained", False)):
        torch.manual_seed(0)
        net = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1) for _ in range(3)), torch.nn.Flatten())
        for layer in list(net)[:3]:
            torch.nn.init.zeros_(layer.bias) if equal else torch.nn.init.normal_(layer.bias)
        export(net.eval(), 8, tmp_path / f"{name}.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "untrained.onnx").graph.node}
    assert "Identity" in operators, "else there is nothing to see"
    assert layout(tmp_path / "untrained.onnx") == layout(tmp_path / "trained.onnx")
