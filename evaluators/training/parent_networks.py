"""Train the parents of candidates once, keep them in a cache, and choose the teacher by accuracy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluators.data.dataset import DataError, Dataset
from evaluators.fault_attribution import WorkerError
from evaluators.training.augmentation import views
from evaluators.training.jobs import ParentJob, TeacherJob, TrainedNetwork, TrainingFailedError, TrainingRecipe
from evaluators.training.onnx_teacher import BEST, PARENT, OnnxClassifier, is_file, open_teacher
from evaluators.training.tasks import FAMILY_OF, PARENT_TOP1, TEACH, TRAIN_PARENT, WEIGHTS_IDENTITY, Task
from evaluators.training.time_allowance import OutOfTimeError, TimeAllowance
from evaluators.training.worker_process import Worker
from remote.files import read_or_none, write_file
from spaces import family_files
from spaces.candidate import Candidate, UnbuildableError

Train = Callable[[Task[TrainedNetwork], object, str], TrainedNetwork]  # task, its job, its display name
EPOCHS_MIN = 1  # minimum epochs of a parent whose time is short
SAFE_SHARE = 0.9  # share of the epochs that fit by the pace of the first steps: later ones may be slower
TEACHING_S_MAX = 3600.0


@dataclass(frozen=True, kw_only=True)
class ParentConfig:
    """Hold the settings that parents depend on.

    Attributes:
        dataset: Data set.
        images: Folder of decoded images.
        folder: Folder of trained parents.
        recipe: Training recipe.
        weights: Folder of weight files.
        download: Whether pretrained weights may be downloaded.
        variants: Networks by family, the best of which may be the teacher.
        parent_px: Largest input size of each family, at which the best and a named teacher are trained, in pixels.
        teacher: `parent`, `best`, a network's name, or a file's.
        progress: File that receives the progress of a training.
        record: File with the best parent, so that a resumed run keeps its teacher.
        allowance: Time in which a training must end.
        shortened: File with the epochs of networks that had time for fewer than the recipe's.
    """

    dataset: Dataset
    images: Path
    folder: Path
    recipe: TrainingRecipe
    weights: Path | None
    download: bool
    variants: Mapping[str, tuple[str, ...]]
    parent_px: Mapping[str, int]
    teacher: str
    progress: Path
    record: Path
    allowance: TimeAllowance = field(default_factory=TimeAllowance)
    shortened: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ParentNetwork:
    """Describe a trained network on disk.

    Attributes:
        variant: Network.
        path: File of the network.
        image_px: Side of the input, in pixels.
        start: Origin of its initial weights.
        job: Request that trained it.
    """

    variant: str
    path: Path
    image_px: int
    start: str
    job: ParentJob


class ParentNetworks:
    """Train the parents that are not in the cache.

    All candidates of a run learn from the same teacher. The best parent is chosen once, over all parents, so neither
    the order of trials nor a restart changes it.
    """

    def __init__(self, school: ParentConfig, worker: Worker, train: Train) -> None:
        """Set the sources of parents.

        Args:
            school: Settings.
            worker: Process that trains.
            train: Runs a training job in that process.
        """
        self._school, self._worker, self._train = school, worker, train
        self._known: dict[tuple[str, str, int], ParentNetwork] = {}
        self._weights: dict[str, str | None] = {}  # variant -> digest of its pretrained weights
        self._taught: Path | None = None
        self.note = ""  # description of the teacher for the report

    @property
    def starts(self) -> dict[str, str]:
        """Return the origin of the initial weights by variant, of the parents requested so far."""
        return {parent.variant: parent.start for parent in self._known.values()}

    def weights_used(self, variants: Iterable[str]) -> dict[str, str | None]:
        """Return the digest of each variant's pretrained weights; None without any.

        Raises:
            WorkerError: The folder of weights can't be used (WeightsError).
        """
        return {variant: self._weights_of(variant) for variant in variants}

    def check(self) -> None:
        """Check that the requested teacher exists.

        Raises:
            DataError: The teacher does not exist.
        """
        name = self._school.teacher
        if is_file(name) or name.endswith(".onnx"):
            open_teacher(name, self._school.dataset.classes)
        elif name not in (PARENT, BEST) and self._family_of(name) is None:
            raise DataError(
                f"unknown teacher {name!r}; accepted: parent (a candidate's own), best (the most accurate parent), a "
                "network's name, and an ONNX classifier's file"
            )

    def of(self, family: str, variant: str, px: int | None = None) -> ParentNetwork:
        """Return a trained parent, which is trained now if it is not in the cache.

        Args:
            family: Architecture family.
            variant: Network of the family.
            px: Side of the input, in pixels; None takes the largest of the family.

        Raises:
            TrainingFailedError, WorkerError, UnbuildableError: It can't be trained.
            OutOfTimeError: The time that is left does not suffice.
        """
        px = px or self._school.parent_px.get(family, max(self._school.parent_px.values()))
        if (family, variant, px) not in self._known:
            self._known[family, variant, px] = self._train_parent(family, variant, px)
        return self._known[family, variant, px]

    def logits_for(self, candidate: Candidate, px: int | None = None) -> Path:
        """Return the file with the logits that a candidate learns from.

        Args:
            candidate: Candidate to fine-tune.
            px: Input size of its parent, in pixels; None takes the largest of the family.

        Raises:
            TrainingFailedError, WorkerError, UnbuildableError, OutOfTimeError: As `of` does.
        """
        name = self._school.teacher
        if name == PARENT:
            return self.of(candidate.family, candidate.variant, px).path
        if self._taught is None:
            self._taught = self._teacher(name)
        return self._taught

    def _teacher(self, name: str) -> Path:
        if is_file(name):
            return self._from_file(open_teacher(name, self._school.dataset.classes))
        family = self._family_of(name)
        teacher = self._best() if name == BEST or family is None else self.of(family, name)
        share = f"{100 * self.top1(teacher):.1f} % of the validation images"
        self.note = f"{teacher.variant} at {teacher.image_px} px, {share}"
        return teacher.path

    def _best(self) -> ParentNetwork:
        """Return the most accurate of all parents; of equals the first. One that can't be trained is omitted."""
        record = self._school.record
        known = read_or_none(record, json.loads)
        if isinstance(known, list) and len(known) == 2:
            return self.of(*known)
        found, failed = [], ""
        for family, variants in self._school.variants.items():
            for variant in variants:
                try:
                    found.append(self.of(family, variant))
                except (TrainingFailedError, WorkerError, UnbuildableError) as error:
                    failed = str(error)
        if not found:
            raise TrainingFailedError(f"no parent could be trained: {failed}")
        best = max(found, key=self.top1)
        write_file(record, json.dumps([best.job.family, best.variant]))
        return best

    def top1(self, parent: ParentNetwork) -> float:
        """Return a parent's accuracy on the validation images, computed once by torch."""
        note = parent.path.with_suffix(".json")
        told = _read_note(note) or {"start": parent.start}
        if "top1" not in told:
            told["top1"] = self._worker.call(PARENT_TOP1, parent.job, timeout_s=TEACHING_S_MAX)
            write_file(note, json.dumps(told))
        return float(told["top1"])

    def _family_of(self, variant: str) -> str | None:
        own = [family for family in self._school.parent_px if family_files.is_file(family)]
        return self._worker.call(FAMILY_OF, variant, own)

    def _from_file(self, teacher: OnnxClassifier) -> Path:
        school = self._school
        made = [school.dataset.digest, teacher.sha256, teacher.image_px, teacher.mean, teacher.std]
        made += [teacher.resize, views(school.recipe.augment)]
        out = school.folder / f"taught-{teacher.file.stem}-{_digest(made)}.pt"
        note = out.with_suffix(".json")
        if not out.exists() or "top1" not in (_read_note(note) or {}):
            job = TeacherJob(
                dataset=replace(school.dataset, resize=teacher.resize),
                cache=school.images,
                file=teacher.file.resolve(),
                image_px=teacher.image_px,
                mean=teacher.mean,
                std=teacher.std,
                views=views(school.recipe.augment),
                out=out,
            )
            top1 = self._worker.call(TEACH, job, timeout_s=TEACHING_S_MAX)
            write_file(note, json.dumps({"top1": top1}))
        top1 = (_read_note(note) or {})["top1"]
        self.note = f"{teacher.describe()}, {100 * top1:.1f} % of the validation images"
        return out

    def _train_parent(self, family: str, variant: str, px: int) -> ParentNetwork:
        """Return the network trained as the recipe defines, or for as many epochs as there is time for.

        The number of epochs is stored, so that a resumed run keeps its parents.
        """
        school, name = self._school, f"{variant}-{px}"
        short = (_read_note(school.shortened) if school.shortened else None) or {}
        try:
            return self._train_epochs(family, variant, px, short.get(name, school.recipe.parent_epochs))
        except OutOfTimeError as error:
            if school.shortened is None or name in short or school.recipe.parent_epochs <= EPOCHS_MIN:
                raise
            fitting = int(SAFE_SHARE * error.share * school.recipe.parent_epochs)
        for epochs in dict.fromkeys((max(fitting, EPOCHS_MIN), EPOCHS_MIN)):
            try:
                parent = self._train_epochs(family, variant, px, epochs)
            except OutOfTimeError:
                if epochs == EPOCHS_MIN:
                    raise
                continue
            write_file(school.shortened, json.dumps(short | {name: epochs}))
            return parent
        raise AssertionError("the last number of epochs either fits or raises")

    def _train_epochs(self, family: str, variant: str, px: int, epochs: int) -> ParentNetwork:
        school = replace(self._school, recipe=replace(self._school.recipe, parent_epochs=epochs))
        out = school.folder / f"{variant}-{px}-{self._identity(family, variant, px, school.recipe)}.pt"
        note = out.with_suffix(".json")
        job = ParentJob(
            dataset=school.dataset,
            cache=school.images,
            family=family,
            variant=variant,
            image_px=px,
            recipe=school.recipe,
            out=out,
            weights=school.weights,
            download=school.download,
            progress=school.progress,
        )
        told = _read_note(note) if out.exists() else None
        if told is None or "start" not in told:  # a note damaged by a full disk or a kill counts as missing
            timed = replace(job, seconds_max=school.allowance.left_s())
            told = {"start": self._train(TRAIN_PARENT, timed, f"training parent {variant} at {px} px").start}
            write_file(note, json.dumps(told))
        return ParentNetwork(variant=variant, path=out, image_px=px, start=told["start"], job=job)

    def _identity(self, family: str, variant: str, px: int, trained: TrainingRecipe) -> str:
        school, own = self._school, family_files.identity(family)
        weights = self._weights_of(variant)
        # the settings of distillation do not affect parents
        recipe = {k: v for k, v in asdict(trained).items() if k not in ("distillation", "temperature")}
        return _digest([school.dataset.digest, own, variant, px, weights, school.download, recipe])

    def _weights_of(self, variant: str) -> str | None:
        """Return the digest of its pretrained weights, so that an added or replaced file leads to another parent."""
        if self._school.weights is None:
            return None
        if variant not in self._weights:
            self._weights[variant] = self._worker.call(
                WEIGHTS_IDENTITY, variant, self._school.weights, timeout_s=TEACHING_S_MAX
            )
        return self._weights[variant]


def _read_note(note: Path) -> dict[str, Any] | None:
    """Return the contents of a note in the cache; None where it is missing or damaged."""
    found = read_or_none(note, json.loads)
    return found if isinstance(found, dict) else None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
