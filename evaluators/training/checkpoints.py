"""Save the state of a training now and then, so that a killed training loses a minute and not hours."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remote.files import write_file

INTERVAL_S = 60.0  # seconds of training after which a state is saved within an epoch
WRITE_SHARE = 0.05  # share of the training time that writing states may take


@dataclass
class TrainingState:
    """Refer to everything that changes during a training.

    Attributes:
        net: Network.
        optimizer: Its optimizer.
        schedule: Schedule of the learning rate.
        random: Random generator of order and augmentation.
        losses: Losses of all steps so far.
        epoch: Index of the current epoch.
        batch: Number of batches of the current epoch that are done.
        epoch_random: State of `random` at the beginning of the current epoch.
    """

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    random: np.random.Generator
    losses: list[float]
    epoch: int = 0
    batch: int = 0
    epoch_random: str = ""

    def begin_epoch(self) -> None:
        """Remember the random state, from which an interrupted epoch draws the same images again."""
        self.epoch_random = json.dumps(self.random.bit_generator.state)

    def pack(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "losses": self.losses,
            "epoch": self.epoch,
            "batch": self.batch,
            "random": self.epoch_random,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Restore a state that `pack` returned; an exception may leave it restored in part."""
        self.net.load_state_dict(packed["net"])
        self.optimizer.load_state_dict(packed["optimizer"])
        self.schedule.last_epoch = packed["schedule"]["last_epoch"]
        self.losses[:] = packed["losses"]
        self.epoch, self.batch, self.epoch_random = packed["epoch"], packed["batch"], packed["random"]
        self.random.bit_generator.state = json.loads(self.epoch_random)
        torch.set_rng_state(packed["torch"])
        if packed["cuda"]:
            torch.cuda.set_rng_state_all(packed["cuda"])


class Checkpoint:
    """Save the state of one training, and restore it after a kill."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the file.

        Args:
            path: File of the state; None saves nothing.
            clock: Returns seconds.
        """
        self._path, self._clock = path, clock
        self._saved_s, self._write_s = clock(), 0.0

    def restore(self, state: TrainingState, identity: str) -> bool:
        """Restore the state of an interrupted training; return False if there is none of this identity.

        Args:
            state: State of the training that begins.
            identity: Everything that the training depends on, besides the path.
        """
        if self._path is None or not self._path.exists():
            return False
        state.begin_epoch()
        before = copy.deepcopy(state.pack())
        try:
            packed = torch.load(self._path, map_location="cpu", weights_only=True)
            if packed["identity"] != identity:
                return False
            state.unpack(packed)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError):
            state.unpack(before)  # a damaged file costs the training so far, not the run
            return False
        return True

    def is_due(self, is_epoch_over: bool) -> bool:
        """Return True if the state should be saved now: at the end of an epoch, or after a minute."""
        if self._path is None:
            return False
        waited_s = self._clock() - self._saved_s
        return waited_s >= (min(INTERVAL_S, self._write_s / WRITE_SHARE) if is_epoch_over else INTERVAL_S)

    def save(self, state: TrainingState, identity: str) -> None:
        """Save the state; a full disk does not end a training for that.

        Args:
            state: State of the training.
            identity: As for `restore`.
        """
        assert self._path is not None
        began_s, packed = self._clock(), io.BytesIO()
        torch.save(state.pack() | {"identity": identity}, packed)
        with contextlib.suppress(OSError):
            write_file(self._path, packed.getvalue())
        self._saved_s = self._clock()
        self._write_s = self._saved_s - began_s

    def remove(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
