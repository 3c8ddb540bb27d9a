"""Teachers from a file: what they must say of themselves, and the logits that candidates learn from."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from evaluators.data.dataset import TRAIN, VALIDATION, DataError
from evaluators.data.loading import arrays, open_dataset
from evaluators.data.preprocessing import normalise
from evaluators.training.augmentation import PLAIN, views
from evaluators.training.jobs import TeacherJob
from evaluators.training.onnx_teacher import is_file, open_teacher
from evaluators.training.teacher_logits import family_of, teach

PX, MEAN, STD = 16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
GOOD = {"preprocessing": {"image_px": PX, "mean": MEAN, "std": STD}}


def classifier(path, batch=1, classes=10, softmax=False):
    """Flatten and one matrix, which is no mirror image of itself."""
    weights = np.random.default_rng(0).standard_normal((3 * PX * PX, classes)).astype(np.float32) / 30
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["y"], ["p"], axis=1))
    value = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    outputs = [value("p" if softmax else "y", batch, classes)]
    tensors = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "g", [value("x", batch, 3, PX, PX)], outputs, tensors)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    )
    return path


@pytest.fixture(scope="module")
def digits():
    return open_dataset(None, 0)


MIRRORED = views(("mirror",))


def job(digits, folder, cache, seen=MIRRORED, **traits):
    return TeacherJob(
        dataset=digits,
        cache=cache,
        file=classifier(folder / "model.onnx", **traits),
        image_px=PX,
        mean=MEAN,
        std=STD,
        views=seen,
        out=folder / "taught.pt",
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.mark.parametrize("batch", [1, "n", 8])
def test_logits_of_every_image_plain_and_mirrored(digits, cache, tmp_path, batch):
    wanted = job(digits, tmp_path, cache, batch=batch)
    top1 = teach(wanted)
    kept = torch.load(wanted.out, weights_only=True)["logits"].numpy()
    images, _ = arrays(digits, TRAIN, PX, cache)
    assert kept.shape == (len(images), 2, 10) and kept.dtype == np.float32
    session = onnxruntime.InferenceSession(classifier(tmp_path / "plain.onnx"))
    for place, mirrored in ((0, False), (1, True)):
        image = images[7:8, :, ::-1] if mirrored else images[7:8]
        want = session.run(None, {"x": normalise(image, MEAN, STD)})[0][0]
        assert np.allclose(kept[7, place], want, atol=1e-4)
    seen, labels = arrays(digits, VALIDATION, PX, cache)
    out = [session.run(None, {"x": normalise(row[None], MEAN, STD)})[0].argmax() for row in seen]
    assert top1 == pytest.approx((np.array(out) == labels).mean())


def test_probabilities_become_logits(digits, cache, tmp_path):
    """They soften alike: equal but for a constant a row."""
    (tmp_path / "p").mkdir()
    plain = job(digits, tmp_path, cache, seen=(PLAIN,))
    soft = job(digits, tmp_path / "p", cache, seen=(PLAIN,), softmax=True)
    teach(plain), teach(soft)
    logits, logs = (torch.load(one.out, weights_only=True)["logits"][:50, 0] for one in (plain, soft))
    assert torch.allclose(logits.log_softmax(1), logs.log_softmax(1), atol=1e-3)


def test_other_classes_or_another_size_are_refused(digits, cache, tmp_path):
    with pytest.raises(DataError, match="distinguishes 4 classes, the data have 10"):
        teach(job(digits, tmp_path, cache, classes=4))
    wrong = TeacherJob(
        dataset=digits,
        cache=cache,
        file=classifier(tmp_path / "m.onnx"),
        image_px=24,
        mean=MEAN,
        std=STD,
        views=(PLAIN,),
        out=tmp_path / "t.pt",
    )
    with pytest.raises(DataError, match="can't be run at 24 px"):
        teach(wrong)
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be loaded"):
        teach(wrong)
    assert not (tmp_path / "t.pt").exists()


def test_a_file_says_how_its_input_is_made(tmp_path):
    file = classifier(tmp_path / "model.onnx")
    for name in ("model.json", "config.json"):
        (tmp_path / name).write_text(json.dumps(GOOD | {"classes": ["a", "b"]}))
        found = open_teacher(str(file), ("a", "b"))
        assert (found.image_px, found.mean, found.std) == (PX, MEAN, STD) and found == open_teacher(
            str(tmp_path), ("a", "b")
        )
        (tmp_path / name).unlink()
    assert is_file(str(tmp_path)) and is_file(str(file)) and not is_file("best") and not is_file("resnet18")


@pytest.mark.parametrize(
    "told, expected",
    [({}, "squash"), ({"resize": "crop"}, "crop"), ({"resize": "bilinear, squashed"}, "squash")],
    ids=["not said", "crop", "as earlier versions wrote it"],
)
def test_teachers_file_says_how_its_images_become_squares(told, expected, tmp_path):
    file = classifier(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"preprocessing": GOOD["preprocessing"] | told}))
    assert open_teacher(str(file), ("a", "b")).resize == expected


@pytest.mark.parametrize(
    "note, says",
    [
        (None, "write model.json with"),
        ({}, "model.json is invalid"),
        ({"preprocessing": {"image_px": "x", "mean": MEAN, "std": STD}}, "must contain"),
        ({"preprocessing": GOOD["preprocessing"] | {"resize": "stretch"}}, "resize 'stretch'"),
        (GOOD | {"classes": ["b", "a"]}, "its classes are b, a; the data have a, b"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, note, says):
    file = classifier(tmp_path / "model.onnx")
    if note is not None:
        (tmp_path / "model.json").write_text(json.dumps(note))
    with pytest.raises(DataError, match=says) as caught:
        open_teacher(str(file), ("a", "b"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        open_teacher(str(tmp_path / "other.onnx"), ("a", "b"))


def test_a_network_is_found_by_its_name():
    assert family_of("res8_w16_s2") == "tiny_resnet" and family_of("resnet18") == "resnet"
    assert family_of("nonsense") is None
