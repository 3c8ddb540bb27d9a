"""The ceiling of old readers: what is above it is told before a builder stumbles over it."""

import numpy as np
import onnx
import pytest

from evaluators.export.onnx_export import export
from evaluators.export.operator_support import TENSORRT_8_2, UnsupportedOperatorError, ceiling, check
from evaluators.quantization.precision import to_precision
from evaluators.stages.structure import measure
from remote.device import Int8Recipe
from spaces.candidate import Candidate
from spaces.network import build

PX = 32
ANYWHERE = (13, ("tensorrt", "onnxruntime"))
SYMMETRIC, OFFSET = Int8Recipe("int8", True, 8), Int8Recipe("uint8", False, 7)


def noise(count=2):
    return np.random.default_rng(0).standard_normal((count, 3, PX, PX), dtype=np.float32)


def test_a_newer_opset_and_its_operators_are_told(tmp_path):
    export(build("mobilenet_v3", "mobilenet_v3_small", 7, PX), PX, tmp_path / "net.onnx", opset=14)
    assert ceiling(tmp_path / "net.onnx", *ANYWHERE) == [
        "needs ONNX opset 14, the device reads up to 13",
        "TensorRT 8.2 has no HardSwish",
    ]
    assert ceiling(tmp_path / "net.onnx", 17, ("tensorrt",)) == []
    assert ceiling(tmp_path / "net.onnx", 14, ("onnxruntime",)) == []


def test_a_newer_file_format_and_foreign_operators_are_told(tmp_path):
    export(build("tiny_resnet", "res8_w8_s2", 7, PX), PX, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    model.ir_version = 10
    model.graph.node[0].domain = "com.microsoft"
    onnx.save(model, tmp_path / "new.onnx")
    assert ceiling(tmp_path / "new.onnx", *ANYWHERE) == [
        "IR version 10, 8 is the newest that old readers take",
        "operators of com.microsoft, which only ONNX Runtime knows",
    ]


def test_tensorrt_quantizes_around_zero_only(tmp_path):
    export(build("tiny_resnet", "res8_w8_s2", 7, PX), PX, tmp_path / "net.onnx")
    to_precision(tmp_path / "net.onnx", tmp_path / "int8.onnx", "int8", OFFSET, noise())
    (breach,) = ceiling(tmp_path / "int8.onnx", 20, ("onnxruntime:tensorrt",))
    assert "TensorRT quantizes around 0 only" in breach
    assert ceiling(tmp_path / "int8.onnx", 13, ("onnxruntime",)) == []
    with pytest.raises(UnsupportedOperatorError, match="mb_w8: TensorRT quantizes around 0 only") as caught:
        check(tmp_path / "int8.onnx", 13, ("trtexec",), "mb_w8")
    assert caught.value.kind == "unsupported"


def test_a_candidate_above_it_is_unsupported_before_it_is_timed(tmp_path):
    candidate = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=PX, precision="int8")
    with pytest.raises(UnsupportedOperatorError, match="around 0 only"):
        measure(candidate, 7, int8=OFFSET, folder=tmp_path, opset_max=13, seed=0, runtimes=("tensorrt",))
    assert measure(candidate, 7, int8=SYMMETRIC, folder=tmp_path, opset_max=13, seed=0, runtimes=("tensorrt",))[
        1
    ].exists()


def test_the_list_is_of_real_operators():
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert known >= TENSORRT_8_2 and not TENSORRT_8_2 & {"HardSwish", "LayerNormalization", "Gelu", "Mish"}
