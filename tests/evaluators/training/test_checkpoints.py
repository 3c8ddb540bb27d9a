"""Interrupted trainings: what a kill costs, that nothing else changes, and what becomes of the file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.training import checkpoints, trainer
from evaluators.training.batches import BatchSource
from evaluators.training.checkpoints import INTERVAL_S, Checkpoint
from evaluators.training.jobs import TrainingFailedError, TrainingRecipe, checkpoint_path

REPO = Path(__file__).parents[3]
EPOCHS, COUNT, PX = 3, 80, 8
RECIPE = TrainingRecipe(threads=1, epoch_images=1, batch=16)  # 5 steps an epoch


class Ended(Exception):
    """Stands for a kill: raised within a training."""


def made():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def train(net, checkpoint=None, end_at=None, recipe=RECIPE, lr=1e-2, epochs=EPOCHS):
    """Return the steps that this call took and the loss; end before the step after `end_at`."""
    images = np.random.default_rng(1).integers(0, 256, (COUNT, PX, PX, 3), dtype=np.uint8)
    feed = BatchSource(images, np.arange(COUNT) % 5, ((0.5,) * 3, (0.5,) * 3), recipe)
    taken = []

    def progress(epoch, step, loss):
        taken.append(step)
        if step == end_at:
            raise Ended

    found = trainer.train(
        net,
        feed,
        loss_of=lambda out, batch: nn.functional.cross_entropy(out, batch.labels),
        epochs=epochs,
        lr=lr,
        random=np.random.default_rng(2),
        progress=progress,
        checkpoint=checkpoint,
    )
    return taken, found


class Clock:
    """Seconds that pass with each look."""

    def __init__(self, step_s):
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self):
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize(("end_at", "step_s", "first"), [(7, 0.0, 6), (9, INTERVAL_S, 9), (15, 0.0, 11)])
def test_train_interrupted_goes_on_to_the_same_network_to_the_last_bit(tmp_path, end_at, step_s, first):
    whole = made()
    _, expected = train(whole)
    file = tmp_path / "net.pt.checkpoint"
    with pytest.raises(Ended):
        train(made(), Checkpoint(file, Clock(step_s)), end_at)
    again = made()
    torch.manual_seed(99)  # another process has another random state
    taken, found = train(again, Checkpoint(file))
    assert taken[0] == first and taken[-1] == 15, "at most the epoch, or the minute, of the kill is repeated"
    assert found == expected
    same = again.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize("change", ["recipe", "lr", "epochs"])
def test_train_checkpoint_of_another_training_is_not_used(tmp_path, change):
    file = tmp_path / "net.pt.checkpoint"
    with pytest.raises(Ended):
        train(made(), Checkpoint(file), 12)
    other = {"recipe": replace(RECIPE, weight_decay=0.5), "lr": 2e-2, "epochs": 4}[change]
    taken, _ = train(made(), Checkpoint(file), **{change: other})
    assert taken[0] == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_train_damaged_checkpoint_costs_the_training_so_far_only(tmp_path, damage):
    file = tmp_path / "net.pt.checkpoint"
    with pytest.raises(Ended):
        train(made(), Checkpoint(file), 12)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a state"}[damage])
    taken, _ = train(made(), Checkpoint(file))
    assert taken[0] == 1


def test_train_checkpoint_that_fits_in_part_changes_nothing(tmp_path):
    whole = made()
    _, expected = train(whole)
    file = tmp_path / "net.pt.checkpoint"
    with pytest.raises(Ended):
        train(made(), Checkpoint(file), 12)
    packed = torch.load(file, weights_only=True)
    del packed["random"]  # as another version might write it: network and optimizer come before it
    torch.save(packed, file)
    again = made()
    taken, found = train(again, Checkpoint(file))
    assert taken[0] == 1 and found == expected
    same = again.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in whole.state_dict().items())


def test_save_full_disk_ends_no_training(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_file", full)
    assert train(made(), Checkpoint(tmp_path / "net.pt.checkpoint"))[0][-1] == 15


def test_is_due_writing_takes_a_small_share_of_the_time(tmp_path):
    now = [0.0]
    checkpoint = Checkpoint(tmp_path / "x", lambda: now[0])
    assert checkpoint.is_due(is_epoch_over=True) and not checkpoint.is_due(is_epoch_over=False)
    checkpoint._write_s = 1.0  # a large network on a slow disk
    now[0] = 19.0
    assert not checkpoint.is_due(is_epoch_over=True)
    now[0] = 21.0
    assert checkpoint.is_due(is_epoch_over=True) and not checkpoint.is_due(is_epoch_over=False)
    now[0] = INTERVAL_S
    assert checkpoint.is_due(is_epoch_over=False)
    assert not Checkpoint(None).is_due(is_epoch_over=True)


@pytest.mark.parametrize(("diverges", "rates"), [(1, [1.0, 1 / 3]), (0, [1.0])])
def test_train_stably_diverged_training_is_repeated_at_a_third_of_the_rate(tmp_path, diverges, rates):
    tried, begun = [], []

    def run(net, rate, checkpoint):
        tried.append(rate)
        if len(tried) <= diverges:
            raise TrainingFailedError("the loss became nan in step 3 of 9")
        return 9, 0.5

    def begin():
        begun.append(made())
        return begun[-1]

    net, found = trainer._train_stably(begin, run, tmp_path / "net.pt")
    assert tried == pytest.approx(rates) and net is begun[-1] and found == (9, 0.5)


def test_train_stably_second_divergence_is_the_networks_failure(tmp_path):
    def run(net, rate, checkpoint):
        raise TrainingFailedError(f"the loss became nan at {rate:.2f}")

    with pytest.raises(TrainingFailedError, match=r"0\.33"):
        trainer._train_stably(made, run, tmp_path / "net.pt")


CODE = """
import sys, pathlib
from dataclasses import replace
from evaluators.data.loading import open_dataset
from evaluators.training.jobs import ParentJob, TrainingRecipe
from evaluators.training.trainer import train_parent
d, at = open_dataset(None, 0), pathlib.Path(sys.argv[1])
r = replace(TrainingRecipe.of(d, threads=1), parent_epochs=10)
job = ParentJob(dataset=d, cache=at / "images", family="tiny_resnet", variant="res8_w4_s2", image_px=16, recipe=r,
                out=at / "parent.pt", progress=at / "progress.json")
print(train_parent(job).steps)
"""


def told(file):
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def start(tmp_path):
    return subprocess.Popen([sys.executable, "-c", CODE, tmp_path], cwd=REPO, stdout=subprocess.PIPE, text=True)


def wait(process, seen, what):
    end = time.monotonic() + 120
    while (found := seen()) is None:
        assert process.poll() is None and time.monotonic() < end, what
        time.sleep(0.005)
    return found


def test_parent_killed_in_a_training_of_ten_epochs_repeats_at_most_one_of_them(tmp_path):
    """kill -9 of the process that trains, and the same training again."""
    process = start(tmp_path)
    wait(process, lambda: ((now := told(tmp_path / "progress.json")) and now["epoch"] >= 5) or None, "the fifth epoch")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = told(tmp_path / "progress.json")
    assert checkpoint_path(tmp_path / "parent.pt").exists() and not (tmp_path / "parent.pt").exists()
    (tmp_path / "progress.json").unlink()
    process = start(tmp_path)
    first = wait(process, lambda: told(tmp_path / "progress.json"), "the first step after the kill")
    out, _ = process.communicate(timeout=120)
    steps_an_epoch = killed["steps"] // 10
    assert first["step"] > killed["step"] - 2 * steps_an_epoch, "reports are a quarter of a second apart"
    assert process.returncode == 0 and int(out) == killed["steps"]
    assert (tmp_path / "parent.pt").exists() and not checkpoint_path(tmp_path / "parent.pt").exists()
