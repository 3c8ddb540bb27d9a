"""Train the networks of candidates from their parents, and keep them in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluators.training.jobs import CandidateJob, FineTuneJob, TrainedNetwork
from evaluators.training.parent_networks import ParentConfig, ParentNetwork, ParentNetworks
from evaluators.training.tasks import FINE_TUNE, START_CANDIDATE, Task
from evaluators.training.worker_process import Worker
from spaces.candidate import Candidate

TRAINING_S_MAX = 12 * 3600.0

Doing = Callable[[str, float | None], None]  # current activity, and its finished share, 0..1, or None


class CandidateNetworks:
    """Train a network once for every precision and runtime. The names of files contain all that they depend on.

    Attributes:
        config: Settings that parents and candidates share: data set, recipe, caches, time allowance.
        rungs: Fidelities, in fine-tuning epochs, ascending.
        parents: Parents of the candidates.
        start_px: Returns the input size of a candidate's parent in pixels, None for the family's largest. The caller
            sets it later, since the function that decides it times networks with the evaluator that uses this object.
    """

    def __init__(
        self, config: ParentConfig, rungs: tuple[int, ...], *, folder: Path, worker: Worker, doing: Doing
    ) -> None:
        """Create the folders of networks and parents, and check that the teacher exists.

        Args:
            config: Settings that parents and candidates share.
            rungs: Fidelities, in fine-tuning epochs, ascending.
            folder: Folder of the candidates' networks.
            worker: Process that trains.
            doing: Called with the current activity.

        Raises:
            DataError: The requested teacher does not exist.
        """
        self.config, self.rungs = config, rungs
        self._folder, self._worker, self._doing = folder, worker, doing
        for one in (folder, config.images, config.folder):
            one.mkdir(parents=True, exist_ok=True)
        self.start_px: Callable[[Candidate], int | None] = lambda candidate: None
        self.parents = ParentNetworks(config, worker, lambda task, job, what: self._train(task, job, what, True))
        self.parents.check()

    def path(self, candidate: Candidate, epochs: int) -> Path:
        """Return the path of a network after `epochs` of fine-tuning, whether it exists or not."""
        return self._folder / f"{candidate.structure_key()}-{epochs}.pt"

    def saved(self, candidate: Candidate) -> list[Path]:
        """Return the existing files of a candidate's network, of every fidelity."""
        return list(self._folder.glob(f"{candidate.structure_key()}-*.pt"))

    def parent(self, candidate: Candidate) -> ParentNetwork:
        """Return the trained network from which a candidate is made, which is trained now if it does not exist.

        Raises:
            TrainingFailedError, WorkerError, UnbuildableError, OutOfTimeError: As `ParentNetworks.of` does.
        """
        return self.parents.of(candidate.family, candidate.variant, self.start_px(candidate))

    def get(self, candidate: Candidate, epochs: int) -> Path:
        """Return the network after `epochs` of fine-tuning, which is trained now if it does not exist.

        Args:
            candidate: Its precision and runtime do not matter.
            epochs: Fidelity, in fine-tuning epochs.

        Raises:
            TrainingFailedError, WorkerError, UnbuildableError: It can't be trained.
            OutOfTimeError: The time that is left does not suffice.
        """
        out = self.path(candidate, epochs)
        if out.exists():
            return out
        parent = self.parent(candidate)
        common: dict[str, Any] = {
            "dataset": self.config.dataset,
            "cache": self.config.images,
            "family": candidate.family,
            "variant": candidate.variant,
            "image_px": candidate.image_px,
            "recipe": self.config.recipe,
            "out": out,
        }
        if epochs == 0:
            cutting = CandidateJob(**common, steps=candidate.steps, options=candidate.options, parent=parent.path)
            self._train(START_CANDIDATE, cutting, "cutting", False)
            return out
        before = max((rung for rung in (0, *self.rungs) if rung < epochs), default=0)
        net = self.get(candidate, before)
        teacher = self.parents.logits_for(candidate, parent.image_px)
        # a network would learn its own first mistakes from itself: an uncompressed one trains on like its parent
        if teacher == parent.path and not candidate.steps and candidate.image_px == parent.image_px:
            common["recipe"] = replace(self.config.recipe, distillation=0.0)
        tuning = FineTuneJob(
            **common,
            epochs=epochs - before,
            teacher=teacher,
            net=net,
            progress=self.config.progress,
            seconds_max=self.config.allowance.left_s(),
        )
        self._train(FINE_TUNE, tuning, f"fine-tuning {candidate.describe()}", True)
        return out

    def _train(self, task: Task[TrainedNetwork], job: object, what: str, tells: bool) -> TrainedNetwork:
        def tick() -> None:
            self._doing(what, share_done(self.config.progress) if tells else None)

        self.config.progress.unlink(missing_ok=True)
        return self._worker.call(task, job, timeout_s=TRAINING_S_MAX, tick=tick)


def share_done(progress: Path) -> float | None:
    """Return the finished share of a training, 0..1; None where it has not reported any yet."""
    try:
        now = json.loads(progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return now["step"] / now["steps"] if now else None
