"""Device against host on the same graph: shares, and when they are a warning."""

import numpy as np
import onnxruntime
import pytest

from evaluators.data.dataset import VALIDATION
from evaluators.data.loading import arrays, open_dataset
from evaluators.data.preprocessing import normalise
from evaluators.measurement import Agreement
from evaluators.stages.host_agreement import HOST, host_classes
from tests.evaluators.training.test_teacher_logits import PX, classifier

PLAIN = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "device, host, warns", [(0.90, 0.90, False), (0.905, 0.90, False), (0.906, 0.90, True), (0.80, 0.90, True)]
)
def test_half_a_point_apart_is_the_limit(device, host, warns):
    found = Agreement(same=950, count=1000, device_top1=device, host_top1=host, host="onnxruntime 1.31.1")
    assert found.disagrees == warns and bool(found.warning("resnet18 64px int8")) == warns
    if warns:
        line = found.warning("resnet18 64px int8")
        assert "\n" not in line and "90.0 % on the host (onnxruntime 1.31.1)" in line and "95.0 % get the same" in line


def test_the_host_says_what_onnxruntime_says(tmp_path):
    digits = open_dataset(None, 0)
    path = classifier(tmp_path / "model.onnx")
    found, who = host_classes(path, digits, split=VALIDATION, image_px=PX, normalisation=PLAIN, cache=tmp_path)
    images, labels = arrays(digits, VALIDATION, PX, tmp_path)
    session = onnxruntime.InferenceSession(path)
    want = [session.run(None, {"x": normalise(image[None], *PLAIN)})[0].argmax() for image in images]
    assert who == HOST == f"onnxruntime {onnxruntime.__version__}"
    assert len(found) == len(labels) and np.array_equal(found, want) and len(set(found)) > 1
