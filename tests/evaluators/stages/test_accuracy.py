"""Scoring on the device: a large split goes there in parts, and gives what it gives as a whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from evaluators.data.dataset import VALIDATION
from evaluators.data.loading import arrays, open_dataset
from evaluators.data.preprocessing import normalise
from evaluators.stages import accuracy
from evaluators.stages.accuracy import score
from remote.link.session import Job

PX = 12
PLAIN = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


class Board:
    """Classify each image by a fixed projection of its pixels, and remember the requests."""

    def __init__(self, classes):
        self.weights = np.random.default_rng(0).normal(size=(3 * PX * PX, classes)).astype(np.float32)
        self.shapes = []

    def put(self, data):
        return hashlib.sha256(data if isinstance(data, bytes) else Path(data).read_bytes()).hexdigest()

    def predict(self, model, data, shape, job):
        self.shapes.append(shape)
        images = np.frombuffer(data, dtype=np.float32).reshape(shape)
        return (images.reshape(shape[0], -1) @ self.weights).tobytes()


@pytest.fixture(scope="module")
def digits():
    return open_dataset(None, 0)


def scored(digits, folder, board):
    (folder / "net.onnx").write_bytes(b"a graph")
    return score(
        board,
        folder / "net.onnx",
        dataset=digits,
        split=VALIDATION,
        image_px=PX,
        normalisation=PLAIN,
        job=Job(runtime="onnxruntime"),
        epochs=0,
        cache=folder,
        answers=folder / "answers.npy",
    )


@pytest.mark.parametrize("images", [1, 100, 359])
def test_score_in_parts_is_that_of_the_whole_and_no_part_is_larger(digits, tmp_path, monkeypatch, images):
    whole = Board(len(digits.classes))
    expected = scored(digits, tmp_path, whole)
    answers = np.load(tmp_path / "answers.npy")
    assert len(whole.shapes) == 1, "a small split is one request"
    monkeypatch.setattr(accuracy, "PART_BYTES", images * 3 * PX * PX * 4)
    parts = Board(len(digits.classes))
    assert scored(digits, tmp_path, parts) == expected
    assert (np.load(tmp_path / "answers.npy") == answers).all() and len(answers) == expected.count
    assert max(shape[0] for shape in parts.shapes) == min(images, expected.count)
    assert sum(shape[0] for shape in parts.shapes) == expected.count


def test_score_counts_the_classes_of_the_largest_logits(digits, tmp_path):
    board = Board(len(digits.classes))
    found = scored(digits, tmp_path, board)
    images, labels = arrays(digits, VALIDATION, PX, tmp_path)
    flat = normalise(images, *PLAIN).reshape(len(labels), -1)
    assert found.correct == int(((flat @ board.weights).argmax(axis=1) == labels).sum())
