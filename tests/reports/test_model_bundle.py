"""The chosen/ folder: what is in it is what was measured, and its example predicts."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from evaluators.data.preprocessing import load_image
from reports.model_bundle import EXAMPLE, write_chosen
from tests.reports.conftest import KINDS, usual

PX, MEAN, STD = 8, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
CLASSES = ["red thing", "grün", "</blue>"]


def model() -> bytes:
    """Logits are ten times the mean of each normalised channel."""
    weights = numpy_helper.from_array((10 * numpy.eye(3)).astype(numpy.float32), "weights")
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    shapes = [("input", [1, 3, PX, PX]), ("logits", [1, 3])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes]
    graph = helper.make_graph(nodes, "means", *ends, [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.fixture
def chosen(tmp_path):
    """A finished run whose chosen model is a real file, hashed as it was measured."""
    result = usual(tmp_path / "run")
    made = model()
    digest = hashlib.sha256(made).hexdigest()
    file = result.folder / result.choice.model_path
    file.parent.mkdir(parents=True)
    file.write_bytes(made)
    choice = replace(
        result.choice,
        latency=replace(result.choice.latency, model_sha256=digest),
        accuracies=tuple(replace(a, model_sha256=digest) for a in result.choice.accuracies),
        test=replace(result.choice.test, model_sha256=digest),
    )
    return replace(result, choice=choice)


def preprocessing() -> dict:
    return {"mean": MEAN, "std": STD, "image_px": PX, "classes": len(CLASSES)}


def picture(tmp_path, colour):
    """A photograph lying on its side, as phones store them, its sides unequal."""
    pixels = numpy.zeros((30, 20, 3), numpy.uint8)
    pixels[:, :10], pixels[:, 10:] = colour, [120, 110, 90]
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "ünter lage.png"
    Image.fromarray(pixels).save(file, exif=exif)
    return file


@pytest.mark.parametrize(
    ("colour", "resize"),
    [((250, 20, 20), "squash"), ((20, 240, 30), "crop"), ((10, 20, 250), "pad"), ((9, 9, 9), None)],
)
def test_the_example_predicts_what_the_model_says(chosen, tmp_path, colour, resize):
    folder = write_chosen(chosen, CLASSES, preprocessing() | ({"resize": resize} if resize else {}))
    image = picture(tmp_path, colour)
    done = subprocess.run(
        [sys.executable, folder / "predict.py", image], capture_output=True, encoding="utf-8", check=True,
        env={"PYTHONUTF8": "1"}, cwd=tmp_path,
    )  # fmt: skip
    # by the search's own way of reading an image, and numpy for the network
    x = (load_image(image, PX, resize or "squash").astype(numpy.float32) / 255 - numpy.float32(MEAN)) / numpy.float32(
        STD
    )
    logits = 10 * x.mean(axis=(0, 1), dtype=numpy.float64)
    p = numpy.exp(logits - logits.max()) / numpy.exp(logits - logits.max()).sum()
    name, _, probability = done.stdout.strip().rpartition(" ")
    assert name == CLASSES[int(p.argmax())]
    assert float(probability) == pytest.approx(p.max(), abs=2e-4)


def test_the_example_is_short_and_needs_little():
    lines = [line for line in EXAMPLE.splitlines() if line.strip()]
    assert len(lines) <= 80
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import numpy", "from "))}
    assert imported <= {"numpy", "PIL"} and "torch" not in EXAMPLE


def test_config_has_the_evidence(chosen):
    folder = write_chosen(chosen, CLASSES, preprocessing())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["classes"] == CLASSES and config["preprocessing"]["mean"] == MEAN
    assert config["candidate"]["variant"] == chosen.choice.candidate.variant
    assert config["measured"]["latency"]["percentile_ms"]["high"] <= config["budget"]["latency_ms"]
    assert config["measured"]["test"]["top1"] == chosen.choice.test.top1
    assert config["measured"]["latency_of"] == "the trained model"
    for name, digest in config["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert config["provenance"] == chosen.provenance and config["device"] == chosen.device


def test_writing_again_replaces_the_folder(chosen):
    folder = write_chosen(chosen, CLASSES, preprocessing())
    (folder / "left over.txt").write_text("old")
    write_chosen(chosen, CLASSES[::-1], preprocessing())
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.onnx", "predict.py"]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["classes"] == CLASSES[::-1]
    assert not (chosen.folder / ".chosen.part").exists()


@pytest.mark.parametrize("what", ["scored", "timed"])
def test_a_changed_file_is_refused(chosen, what):
    other = "b" * 64
    choice = chosen.choice
    if what == "timed":
        choice = replace(choice, latency=replace(choice.latency, model_sha256=other))
    else:
        choice = replace(choice, accuracies=(replace(choice.accuracy, model_sha256=other),))
    with pytest.raises(ValueError, match=f"the model that was {what} had bbbb"):
        write_chosen(replace(chosen, choice=choice), CLASSES, preprocessing())
    assert not (chosen.folder / "chosen").exists()


def test_an_unconfirmed_timing_is_of_other_weights_and_said_to_be(chosen):
    choice = replace(chosen.choice, confirmed=False, latency=replace(chosen.choice.latency, model_sha256="b" * 64))
    folder = write_chosen(replace(chosen, choice=choice), CLASSES, preprocessing())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["measured"]["latency_of"] == "the same graph with random weights"


def test_errors_say_what_to_do(chosen, tmp_path):
    with pytest.raises(ValueError, match=r"no candidate keeps p95 <= 0\.3 ms"):
        write_chosen(KINDS["no fit"](tmp_path / "none"), CLASSES, preprocessing())
    with pytest.raises(ValueError, match="preprocessing lacks mean, std"):
        write_chosen(chosen, CLASSES, {"image_px": PX})
    (chosen.folder / chosen.choice.model_path).unlink()
    with pytest.raises(ValueError, match="is gone; run the same command again"):
        write_chosen(chosen, CLASSES, preprocessing())


def test_the_example_sends_nothing_about_its_use(chosen, tmp_path):
    """ONNX Runtime reads the switch when it is imported: it is set by then, whatever the user's environment says."""
    folder = write_chosen(chosen, CLASSES, preprocessing())
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(
        "import builtins, os, sys\n"
        "plain = builtins.__import__\n"
        "def spy(name, *rest, **more):\n"
        "    if name == 'onnxruntime' and name not in sys.modules:\n"
        "        print('switch:', os.environ.get('ORT_DISABLE_TELEMETRY'), file=sys.stderr)\n"
        "    return plain(name, *rest, **more)\n"
        "builtins.__import__ = spy\n"
    )
    done = subprocess.run(
        [sys.executable, folder / "predict.py", picture(tmp_path, (250, 20, 20))],
        capture_output=True, encoding="utf-8", check=True, cwd=tmp_path,
        env={"PYTHONUTF8": "1", "PYTHONPATH": str(tmp_path / "spy"), "ORT_DISABLE_TELEMETRY": "0"},
    )  # fmt: skip
    assert "switch: 1\n" in done.stderr


def test_config_tells_classes_apart(chosen):
    folder = write_chosen(chosen, CLASSES, preprocessing())
    measured = json.loads((folder / "config.json").read_text(encoding="utf-8"))["measured"]
    for split, accuracy in (("validation", chosen.choice.accuracy), ("test", chosen.choice.test)):
        told = measured[split]
        assert told["balanced"] == accuracy.value_of("balanced") and told["macro_f1"] == accuracy.value_of("macro-f1")
        assert [c["images"] for c in told["by_class"]] == list(accuracy.class_counts)
        assert told["by_class"][0]["class"] == CLASSES[0] and 0 < told["by_class"][0]["recall"] <= 1
