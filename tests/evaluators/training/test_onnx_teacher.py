"""An ONNX teacher is known by all of its bytes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluators.data.dataset import DataError
from evaluators.training.onnx_teacher import open_teacher

CLASSES = ("a", "b")


@pytest.fixture
def file(tmp_path):
    """A classifier whose matrix lies in a file of its own."""
    weights = numpy_helper.from_array(np.ones((3 * 4 * 4, 2), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2))
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weights]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    told = {"preprocessing": {"image_px": 4, "mean": [0.5] * 3, "std": [0.5] * 3}, "classes": list(CLASSES)}
    path.with_suffix(".json").write_text(json.dumps(told))
    return path


def test_opened_external_weights_changed_is_another_teacher(file):
    before = open_teacher(str(file), CLASSES).sha256
    data = bytearray((file.parent / "model.data").read_bytes())
    data[0] ^= 1
    (file.parent / "model.data").write_bytes(data)
    assert open_teacher(str(file), CLASSES).sha256 != before


def test_opened_external_weights_missing_is_told_in_one_line(file):
    (file.parent / "model.data").unlink()
    with pytest.raises(DataError, match=r"its weights are in 'model.data', which is not beside it") as told:
        open_teacher(str(file), CLASSES)
    assert "\n" not in str(told.value)


def test_opened_no_onnx_file_is_told_in_one_line(file):
    file.write_text("<html>not found</html>")
    with pytest.raises(DataError, match="is not an ONNX file"):
        open_teacher(str(file), CLASSES)
