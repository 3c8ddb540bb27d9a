"""Exported graphs: fp32, in eval mode, in operators old readers have, of one image or of any number."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from evaluators.export.onnx_export import IR_VERSION, export, opset_of
from evaluators.quantization.precision import to_precision
from evaluators.stages.structure import random_net, run
from remote.device import Int8Recipe
from spaces.candidate import Candidate
from spaces.network import build

PX = 32


def test_hard_swish_is_written_in_operators_of_opset_13(tmp_path):
    export(build("mobilenet_v3", "mobilenet_v3_small", 7, PX), PX, tmp_path / "net.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    assert "HardSwish" not in kinds and kinds["HardSigmoid"] + kinds["Div"] + kinds["Clip"] > 0


def test_training_mode_is_kept_and_eval_mode_exported(tmp_path):
    net = build("mobilenet_v2", "mobilenet_v2", 7, PX).train()
    export(net, PX, tmp_path / "net.onnx")
    assert net.training
    assert "Dropout" not in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}


class Attention(torch.nn.Module):
    """Beyond TorchScript's exporter at opset 13."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 7, 1)

    def forward(self, x):
        y = self.conv(x).flatten(2).unsqueeze(1)
        return torch.nn.functional.scaled_dot_product_attention(y, y, y).mean((1, 3))


def test_dynamo_exports_what_torchscript_cannot(tmp_path, capfd):
    torch.manual_seed(0)
    net, path = Attention().eval(), tmp_path / "net.onnx"
    assert export(net, 8, path) == "dynamo"
    assert capfd.readouterr() == ("", "")
    image = torch.randn(1, 3, 8, 8)
    assert np.abs(run(path, image.numpy()) - net(image).detach().numpy()).max() < 1e-4
    assert opset_of(path) > 13 and onnx.load(path).ir_version <= IR_VERSION
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("family, variant", [("mobilenet_v3", "mobilenet_v3_small"), ("tiny_resnet", "res8_w8_s2")])
def test_a_dynamic_batch_takes_one_image_or_four(family, variant, tmp_path):
    torch.manual_seed(0)
    net = random_net(Candidate(family=family, variant=variant, image_px=PX), 7)
    export(net, PX, tmp_path / "static.onnx")
    export(net, PX, tmp_path / "fp32.onnx", dynamic_batch=True)
    shown = np.random.default_rng(0).standard_normal((4, 3, PX, PX), dtype=np.float32)
    for precision in ("fp16", "int8"):
        recipe = Int8Recipe("int8", symmetric=True, weight_bits=8)
        to_precision(tmp_path / "fp32.onnx", tmp_path / f"{precision}.onnx", precision, recipe, shown)
    for precision in ("fp32", "fp16", "int8"):
        one_by_one = np.concatenate([run(tmp_path / f"{precision}.onnx", image[None]) for image in shown])
        assert np.allclose(run(tmp_path / f"{precision}.onnx", shown), one_by_one, rtol=1e-3, atol=1e-3)
        assert opset_of(tmp_path / f"{precision}.onnx") == 13
    alone = np.concatenate([run(tmp_path / "static.onnx", image[None]) for image in shown])
    assert np.allclose(run(tmp_path / "fp32.onnx", shown), alone, rtol=1e-3, atol=1e-4)
