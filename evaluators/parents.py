"""The networks that candidates come from and learn from: trained once, kept in a cache, chosen by accuracy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluators.dataset import DataError, Dataset
from evaluators.jobs import ParentJob, Recipe, TeacherJob, Trained, TrainingFailed
from evaluators.teacher import BEST, PARENT, OnnxTeacher, is_file, opened
from evaluators.worker import Worker, WorkerError
from spaces.candidate import Candidate, Unbuildable

Train = Callable[[str, Any, str], Trained]  # name of a function of evaluators.training, its job, what it is for people
TEACHING_S_MAX = 3600.0


@dataclass(frozen=True)
class School:
    """What parents depend on."""

    dataset: Dataset
    images: Path  # cache of decoded images
    folder: Path  # of trained parents
    recipe: Recipe
    weights: Path | None
    download: bool
    variants: Mapping[str, tuple[str, ...]]  # whose best may teach, by family
    parent_px: Mapping[str, int]
    teacher: str  # parent, best, a network's name, or a file's
    progress: Path
    record: Path  # where it is written which parent was best: a run that is gone on with keeps its teacher


@dataclass(frozen=True)
class Parent:
    """A trained network on disk."""

    variant: str
    path: Path
    image_px: int
    start: str  # which weights it began with
    job: ParentJob


class Parents:
    """Trains what is not in the cache. All of a run learn from the same teacher: which parent is best is decided once,
    over all of them, so neither the order of trials nor a restart changes it."""

    def __init__(self, school: School, worker: Worker, train: Train) -> None:
        self._school, self._worker, self._train = school, worker, train
        self._known: dict[tuple[str, str], Parent] = {}
        self._taught: Path | None = None
        self.note = ""  # who taught, for people

    @property
    def starts(self) -> dict[str, str]:
        """Variant -> where its weights came from, of those asked for so far."""
        return {parent.variant: parent.start for parent in self._known.values()}

    def check(self) -> None:
        """Raises DataError where the teacher that was asked for is not to be had."""
        name = self._school.teacher
        if is_file(name) or name.endswith(".onnx"):
            opened(name, self._school.dataset.classes)
        elif name not in (PARENT, BEST) and self._family_of(name) is None:
            raise DataError(
                f"no teacher {name!r}: there are parent (a candidate's own), best (the most accurate parent), the name "
                "of a network, and an ONNX classifier's file"
            )

    def of(self, family: str, variant: str) -> Parent:
        """The variant's trained network. Raises TrainingFailed, WorkerError, Unbuildable."""
        if (family, variant) not in self._known:
            self._known[family, variant] = self._trained(family, variant)
        return self._known[family, variant]

    def taught_by(self, candidate: Candidate) -> Path:
        """The file with the logits that a candidate learns from. Raises what `of` raises."""
        name = self._school.teacher
        if name == PARENT:
            return self.of(candidate.family, candidate.variant).path
        if self._taught is None:
            self._taught = self._teacher(name)
        return self._taught

    def _teacher(self, name: str) -> Path:
        if is_file(name):
            return self._from_file(opened(name, self._school.dataset.classes))
        family = self._family_of(name)
        teacher = self._best() if name == BEST or family is None else self.of(family, name)
        share = f"{100 * self.top1(teacher):.1f} % of the validation images"
        self.note = f"{teacher.variant} at {teacher.image_px} px, {share}"
        return teacher.path

    def _best(self) -> Parent:
        """The most accurate of all parents; of equals the first. One that can't be trained is left out."""
        record = self._school.record
        if record.exists():
            return self.of(*json.loads(record.read_text(encoding="utf-8")))
        found, failed = [], ""
        for family, variants in self._school.variants.items():
            for variant in variants:
                try:
                    found.append(self.of(family, variant))
                except (TrainingFailed, WorkerError, Unbuildable) as error:
                    failed = str(error)
        if not found:
            raise TrainingFailed(f"no parent could be trained: {failed}")
        best = max(found, key=self.top1)
        record.write_text(json.dumps([best.job.family, best.variant]), encoding="utf-8")
        return best

    def top1(self, parent: Parent) -> float:
        """Its accuracy on the validation images, by torch; worked out once."""
        note = parent.path.with_suffix(".json")
        told = json.loads(note.read_text(encoding="utf-8"))
        if "top1" not in told:
            told["top1"] = self._worker.call("evaluators.teaching:parent_top1", parent.job, timeout_s=TEACHING_S_MAX)
            note.write_text(json.dumps(told), encoding="utf-8")
        return float(told["top1"])

    def _family_of(self, variant: str) -> str | None:
        family: str | None = self._worker.call("evaluators.teaching:family_of", variant)
        return family

    def _from_file(self, teacher: OnnxTeacher) -> Path:
        school = self._school
        made = [school.dataset.digest, teacher.sha256, teacher.image_px, teacher.mean, teacher.std, school.recipe.flip]
        out = school.folder / f"taught-{teacher.file.stem}-{_digest(made)}.pt"
        note = out.with_suffix(".json")
        if not (out.exists() and note.exists()):
            job = TeacherJob(
                school.dataset,
                school.images,
                teacher.file.resolve(),
                teacher.image_px,
                teacher.mean,
                teacher.std,
                school.recipe.flip,
                out,
            )
            top1 = self._worker.call("evaluators.teaching:teach", job, timeout_s=TEACHING_S_MAX)
            note.write_text(json.dumps({"top1": top1}), encoding="utf-8")
        top1 = json.loads(note.read_text(encoding="utf-8"))["top1"]
        self.note = f"{teacher.describe()}, {100 * top1:.1f} % of the validation images"
        return out

    def _trained(self, family: str, variant: str) -> Parent:
        school = self._school
        px = school.parent_px.get(family, max(school.parent_px.values()))
        out = school.folder / f"{variant}-{px}-{self._identity(family, variant, px)}.pt"
        note = out.with_suffix(".json")
        job = ParentJob(
            school.dataset,
            school.images,
            family,
            variant,
            px,
            school.recipe,
            out,
            school.weights,
            school.download,
            school.progress,
        )
        if not (out.exists() and note.exists()):
            trained = self._train("train_parent", job, f"training parent {variant} at {px} px")
            note.write_text(json.dumps({"start": trained.start}), encoding="utf-8")
        return Parent(variant, out, px, json.loads(note.read_text(encoding="utf-8"))["start"], job)

    def _identity(self, family: str, variant: str, px: int) -> str:
        school = self._school
        weights = None if school.weights is None else str(school.weights.resolve())
        # how candidates are taught changes no parent
        recipe = {k: v for k, v in asdict(school.recipe).items() if k not in ("distillation", "temperature")}
        return _digest([school.dataset.digest, family, variant, px, weights, school.download, recipe])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
