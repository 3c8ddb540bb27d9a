"""Train networks in a worker process that may crash; every file is written completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from evaluators.data.dataset import TRAIN
from evaluators.data.loading import arrays, calibration_images
from evaluators.training.augmentation import views
from evaluators.training.batches import Batch, BatchSource, apply_view, device, logits, renew_batchnorm, tensor
from evaluators.training.checkpoints import Checkpoint, TrainingState
from evaluators.training.jobs import (
    CandidateJob,
    FineTuneJob,
    ParentJob,
    TrainedNetwork,
    TrainingFailedError,
    TrainingRecipe,
    checkpoint_path,
)
from evaluators.training.time_allowance import OutOfTimeError
from remote.files import write_file
from spaces import network, weights

RETRY_RATE = 1 / 3  # share of the learning rate with which a diverged training is repeated
GRADIENT_IMAGES = 256  # training images for pruning criteria that need gradients
Loss = Callable[[torch.Tensor, Batch], torch.Tensor]


def train_parent(job: ParentJob) -> TrainedNetwork:
    """Train a parent.

    Its file contains the weights and its logits of every training image in every exact view of the recipe's
    augmentation, from which its candidates learn.

    Args:
        job: Request.

    Raises:
        TrainingFailedError: The training diverged.
        OutOfTimeError: The training can't end in time.
    """
    began = time.monotonic()
    feed = _begin(job)
    recipe, start = job.recipe, ""

    def begin() -> torch.nn.Module:
        nonlocal start
        torch.manual_seed(recipe.seed)
        net = network.build(job.family, job.variant, len(job.dataset.classes), job.image_px)
        start = weights.start(net, job.family, job.variant, job.weights, job.download)
        return _to_channels_last(net.to(device()))

    # the logits afterwards take one forward pass per image and view, about a third of a training step each
    after = len(views(recipe.augment)) * len(feed.images) // (3 * recipe.batch)

    def run(net: torch.nn.Module, rate: float, checkpoint: Checkpoint) -> tuple[int, float]:
        return train(
            net,
            feed,
            loss_of=lambda out, batch: functional.cross_entropy(
                out, batch.labels, label_smoothing=recipe.label_smoothing
            ),
            epochs=recipe.parent_epochs,
            lr=rate * (recipe.lr if weights.is_trained(start) else recipe.lr_scratch),
            random=np.random.default_rng(recipe.seed),
            progress=_Progress(job.progress, recipe.parent_epochs, len(feed), Deadline(began, job.seconds_max, after)),
            checkpoint=checkpoint,
        )

    net, (steps, loss) = _train_stably(begin, run, job.out)
    seen = (apply_view(feed.images, view) for view in views(recipe.augment))
    taught = torch.stack([logits(net, images, feed.normalisation) for images in seen], dim=1)  # (N, views, C)
    _save({"state": net.cpu().state_dict(), "image_px": job.image_px, "logits": taught}, job.out)
    Checkpoint(checkpoint_path(job.out)).remove()
    return TrainedNetwork(
        path=job.out, steps=steps, epochs=recipe.parent_epochs, loss=loss, seconds=time.monotonic() - began, start=start
    )


def start_candidate(job: CandidateJob) -> TrainedNetwork:
    """Create a candidate's network from its parent, with inherited weights and BatchNorm statistics of its own.

    Args:
        job: Request; its compression steps are applied to the parent's network.
    """
    began = time.monotonic()
    feed = _begin(job)
    parent = torch.load(job.parent, weights_only=True)
    classes = len(job.dataset.classes)
    plan = network.NetworkPlan(
        family=job.family,
        variant=job.variant,
        classes=classes,
        image_px=job.image_px,
        steps=job.steps,
        options=job.options,
    )
    net = network.build(job.family, job.variant, classes, job.image_px)
    net.load_state_dict(parent["state"])
    net.to(device()).eval()
    net = network.apply_steps(
        net, job.steps, image_px=job.image_px, classes=classes, options=job.options, gradients=_gradients(job, feed)
    )
    if job.steps or job.image_px != parent["image_px"]:
        chosen = calibration_images(job.dataset, job.recipe.batchnorm_images, job.recipe.seed)
        renew_batchnorm(net, feed.images[chosen], feed.normalisation)
    _save(network.pack(net.cpu(), plan) | {"epochs": 0}, job.out)
    return TrainedNetwork(path=job.out, steps=0, epochs=0, loss=0.0, seconds=time.monotonic() - began, start="parent")


def fine_tune(job: FineTuneJob) -> TrainedNetwork:
    """Train the saved network for `job.epochs` more epochs on labels and on its teacher's logits.

    Args:
        job: Request.

    Raises:
        TrainingFailedError: The training diverged.
        OutOfTimeError: The training can't end in time.
    """
    began = time.monotonic()
    feed = _begin(job)
    saved = torch.load(job.net, weights_only=True)
    taught = torch.load(job.teacher, weights_only=True)["logits"].to(device())
    recipe, before = job.recipe, saved["epochs"]

    def loss_of(out: torch.Tensor, batch: Batch) -> torch.Tensor:
        hard = functional.cross_entropy(out, batch.labels, label_smoothing=recipe.label_smoothing)
        soft = distillation(out, taught[batch.index, batch.view], recipe.temperature)
        return (1 - recipe.distillation) * hard + recipe.distillation * soft

    def begin() -> torch.nn.Module:
        torch.manual_seed(recipe.seed)
        return _to_channels_last(network.unpack(saved).to(device()))

    def run(net: torch.nn.Module, rate: float, checkpoint: Checkpoint) -> tuple[int, float]:
        return train(
            net,
            feed,
            loss_of=loss_of,
            epochs=job.epochs,
            lr=rate * recipe.lr_candidate,
            random=np.random.default_rng([recipe.seed, before]),  # another order than in earlier epochs
            progress=_Progress(job.progress, job.epochs, len(feed), Deadline(began, job.seconds_max)),
            checkpoint=checkpoint,
        )

    net, (steps, loss) = _train_stably(begin, run, job.out)
    _save(saved | {"state": net.cpu().state_dict(), "epochs": before + job.epochs}, job.out)
    Checkpoint(checkpoint_path(job.out)).remove()
    return TrainedNetwork(
        path=job.out,
        steps=steps,
        epochs=before + job.epochs,
        loss=loss,
        seconds=time.monotonic() - began,
        start="parent",
    )


def _train_stably(
    begin: Callable[[], torch.nn.Module],
    run: Callable[[torch.nn.Module, float, Checkpoint], tuple[int, float]],
    out: Path,
) -> tuple[torch.nn.Module, tuple[int, float]]:
    """Train a network; if its loss becomes infinite, train it once more at a third of the learning rate.

    Args:
        begin: Returns the network before the training.
        run: Trains it in place, given the share of its learning rate and the checkpoint.
        out: File that the training is for.

    Returns:
        The network, and (gradient steps, mean loss of the last epoch). The checkpoint stays until `out` is written.

    Raises:
        TrainingFailedError: The second training diverged, too.
    """
    checkpoint = Checkpoint(checkpoint_path(out))
    for rate in (1.0, RETRY_RATE):
        net = begin()
        try:
            found = run(net, rate, checkpoint)
        except TrainingFailedError:
            checkpoint.remove()
            if rate == RETRY_RATE:
                raise
        else:
            return net, found
    raise AssertionError("the second training either returns or raises")


def _to_channels_last(net: torch.nn.Module) -> torch.nn.Module:
    """Return the network with channels-last weights, in which format its convolutions then compute.

    On CPUs a step takes less time, most of all with depthwise convolutions. Networks with a strided 1x1 convolution are
    not changed: oneDNN's backward pass of it crashes.
    """
    convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    strided = any(max(conv.kernel_size) == 1 and max(conv.stride) > 1 for conv in convs)
    return net if strided or device().type != "cpu" else net.to(memory_format=torch.channels_last)


def weights_identity(variant: str, folder: Path) -> str | None:
    """Return 16 hex digits of the content of a network's pretrained weights; None if the folder has none.

    Args:
        variant: Name of the network.
        folder: Folder of weight files.

    Raises:
        WeightsError: The folder can't be used.
    """
    path = weights.find(variant, folder)
    if path is None:
        return None
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            hashed.update(part)
    return hashed.hexdigest()[:16]


def load_net(path: Path) -> torch.nn.Module:
    """Load the network in a candidate's file, in eval mode on the CPU."""
    return network.unpack(torch.load(path, map_location="cpu", weights_only=True))


def distillation(out: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the divergence of softened logits, scaled so that its gradients keep their size.

    Args:
        out: Logits of the student, (B, C).
        taught: Logits of the teacher, (B, C).
        temperature: Distillation temperature applied to both.
    """
    soft = functional.log_softmax(out / temperature, dim=1)
    return temperature**2 * functional.kl_div(
        soft, functional.log_softmax(taught / temperature, dim=1), reduction="batchmean", log_target=True
    )


def _gradients(job: CandidateJob, feed: BatchSource) -> network.Gradients:
    """Return a function that computes gradients of the loss on training images, batch by batch, in eval mode."""

    def batches(net: torch.nn.Module) -> Iterator[None]:
        chosen = calibration_images(job.dataset, GRADIENT_IMAGES, job.recipe.seed)
        for at in range(0, len(chosen), job.recipe.batch):
            index = chosen[at : at + job.recipe.batch]
            labels = torch.from_numpy(feed.labels[index]).to(device())
            net.zero_grad()
            functional.cross_entropy(net(tensor(feed.images[index], feed.normalisation)), labels).backward()
            yield

    return batches


def _begin(job: ParentJob | CandidateJob | FineTuneJob) -> BatchSource:
    """Return the training images, after seeding torch and limiting it to the recipe's threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(job.recipe.threads or cores)
    torch.manual_seed(job.recipe.seed)
    images, labels = arrays(job.dataset, TRAIN, job.image_px, job.cache)
    return BatchSource(images, labels, network.normalisation(job.family, job.variant), job.recipe)


def train(
    net: torch.nn.Module,
    feed: BatchSource,
    loss_of: Loss,
    epochs: int,
    lr: float,
    random: np.random.Generator,
    progress: Callable[[int, int, float], None],
    checkpoint: Checkpoint | None = None,
) -> tuple[int, float]:
    """Train a network in place, from its checkpoint on if an earlier training of it was interrupted.

    Args:
        net: Network on the device of `device()`; it is left in eval mode.
        feed: Training images.
        loss_of: Returns the loss of a batch from the network's output.
        epochs: Number of epochs; 0 trains nothing.
        lr: Peak learning rate.
        random: Random generator of order and augmentation.
        progress: Called with epoch, step and loss after each step.
        checkpoint: State of an interrupted training; None keeps none.

    Returns:
        (gradient steps, mean loss of the last epoch).

    Raises:
        TrainingFailedError: The loss is not finite.
    """
    if not epochs:  # the weights already fit these classes
        net.eval()
        return 0, 0.0
    recipe = feed.recipe
    optimizer = torch.optim.AdamW(_groups(net, recipe), lr=lr)
    total = epochs * len(feed)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, total))
    state = TrainingState(net, optimizer, schedule, random, losses=[])
    identity = f"{total} steps at {lr:g}, {recipe}"
    checkpoint = checkpoint or Checkpoint(None)
    checkpoint.restore(state, identity)
    net.train()
    while state.epoch < epochs:
        state.begin_epoch()
        for batch in itertools.islice(feed.epoch(random), state.batch, None):
            state.losses.append(_step(net, batch, loss_of, optimizer=optimizer, clip=recipe.clip))
            schedule.step()
            done = len(state.losses)
            if not math.isfinite(state.losses[-1]):
                raise TrainingFailedError(f"the loss became {state.losses[-1]} in step {done} of {total}")
            state.batch += 1
            progress(state.epoch, done, state.losses[-1])
            if checkpoint.is_due(is_epoch_over=False):
                checkpoint.save(state, identity)
        state.epoch, state.batch = state.epoch + 1, 0
        if checkpoint.is_due(is_epoch_over=True):
            state.begin_epoch()
            checkpoint.save(state, identity)
    net.eval()
    return len(state.losses), float(np.mean(state.losses[-len(feed) :])) if state.losses else 0.0


def _step(net: torch.nn.Module, batch: Batch, loss_of: Loss, optimizer: torch.optim.Optimizer, clip: float) -> float:
    """Take one gradient step and return the loss before it."""
    loss = loss_of(net(batch.pixels), batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return loss.item()


def one_cycle(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step.

    torch's OneCycleLR divides by zero where the rise is a single step.

    Args:
        step: Index of the step.
        steps: Number of all steps.
    """
    at, rise = (step + 0.5) / steps, 0.25
    return at / rise if at < rise else 0.5 * (1 + math.cos(math.pi * min(1.0, (at - rise) / (1 - rise))))


def _groups(net: torch.nn.Module, recipe: TrainingRecipe) -> list[dict[str, object]]:
    parameters = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _save(content: dict[str, object], path: Path) -> None:
    packed = io.BytesIO()  # torch's own writer hides errors of the disk
    torch.save(content, packed)
    write_file(path, packed.getvalue())


class Deadline:
    """Stop a training as soon as its pace shows that it can't end in time."""

    UNTIMED, LEAST_S = 2, 1.0  # number of first, slower steps that do not count; minimum seconds to measure a pace

    def __init__(
        self, began_s: float, seconds_max: float, after: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Set the time limit.

        Args:
            began_s: Begin of the training, a time of `clock`.
            seconds_max: Time limit from then on, in s.
            after: Work that follows the training, in steps.
            clock: Returns seconds.
        """
        self._end_s, self._after, self._clock, self._from_s = began_s + seconds_max, after, clock, 0.0
        self._first: int | None = None  # number of the step before the first one here: others were done before a kill

    def check(self, step: int, steps: int) -> None:
        """Check whether the remaining steps fit into the time left; to be called after each step.

        Args:
            step: Number of steps done.
            steps: Number of all steps.

        Raises:
            OutOfTimeError: They do not fit.
        """
        now_s = self._clock()
        self._first = step - 1 if self._first is None else self._first
        done = step - self._first
        if done <= self.UNTIMED:
            self._from_s = now_s
        elif now_s - self._from_s >= self.LEAST_S:
            step_s = (now_s - self._from_s) / (done - self.UNTIMED)
            needed_s, left_s = (steps - step + self._after) * step_s, max(self._end_s - now_s, 0.0)
            if needed_s > left_s:
                fitting = left_s / step_s - self._after  # steps of another training that begins now
                raise OutOfTimeError(
                    f"its training needs {needed_s:.0f} s more, {left_s:.0f} s are left",
                    min(max(fitting / steps, 0.0), 1.0),
                )
        if now_s > self._end_s:
            raise OutOfTimeError(f"its training time ended after {step} of {steps} steps")


class _Progress:
    """Report the progress of a training to another process, at most four times a second, and enforce its deadline."""

    def __init__(self, path: Path | None, epochs: int, steps_an_epoch: int, deadline: Deadline) -> None:
        self.path, self.epochs, self.steps, self.deadline = path, epochs, epochs * steps_an_epoch, deadline
        self.last = 0.0

    def __call__(self, epoch: int, step: int, loss: float) -> None:
        self.deadline.check(step, self.steps)
        if self.path is None or (time.monotonic() - self.last < 0.25 and step < self.steps):
            return
        self.last = time.monotonic()
        now = {"epoch": epoch + 1, "epochs": self.epochs, "step": step, "steps": self.steps, "loss": loss}
        with contextlib.suppress(OSError):  # a full disk must not end a training because of its progress bar
            part = self.path.with_name(f".{self.path.name}.part")
            part.write_text(json.dumps(now), encoding="utf-8")
            part.replace(self.path)
