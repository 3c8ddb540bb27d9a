"""The evaluator that measures: networks built and trained here, timed and scored on the device."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from evaluators.accuracy import score
from evaluators.allowance import Allowance
from evaluators.coverage import Coverage, summarise
from evaluators.dataset import TEST, VALIDATION, Dataset
from evaluators.formats import for_runtime, needs
from evaluators.jobs import (
    CandidateJob,
    FineTuneJob,
    Graph,
    GraphJob,
    Ladder,
    Trained,
    TrainingFailed,
    beside,
    graph_from_json,
    recipe_for,
)
from evaluators.latency import Rules, Target, time_model
from evaluators.measurement import TOP1, Accuracy, Agreement, Block, Failure, Latency, Structure
from evaluators.parents import Parent, Parents, School
from evaluators.samples import SAMPLES, Samples
from evaluators.stopwatch import Stopwatch
from evaluators.teacher import PARENT, OnnxClassifier
from evaluators.worker import Worker, WorkerError
from evaluators.yardstick import Yardstick
from remote.device import Capabilities
from remote.errors import CandidateError
from remote.patient import Patient
from remote.session import Job
from spaces.candidate import Candidate, Unbuildable

STRUCTURE_S_MAX = 900.0  # the slowest family is cut and exported in under a minute
TRAINING_S_MAX = 12 * 3600.0
CONFIRM_BLOCKS = 6  # of a finalist, where two are the least of a candidate
PROFILE_S = 1.0  # that a finalist's layers are timed for


@dataclass(frozen=True)
class Setup:
    """What stays the same for a whole run."""

    folder: Path
    cache: Path
    able: Capabilities
    versions: Mapping[str, str]  # of the runtimes of the space
    workspace_mb: int  # for builders of engines
    references: Mapping[str, str]  # by runtime: digest of the reference model
    yardstick: Yardstick  # time of the reference on the calm device
    percentile: float
    rules: Rules
    rungs: tuple[int, ...]
    weights: Path | None
    download: bool
    parent_epochs: int | None
    parent_px: dict[str, int]  # family -> its largest input size
    variants: Mapping[str, tuple[str, ...]]  # family -> those that are trained anyway, the best of which may teach
    teacher: str  # whose logits candidates learn from: parent, best, a network's name, or a file
    distillation: float | None  # weight of them in the loss; None: the recipe's
    temperature: float | None
    seed: int
    augment: tuple[str, ...] | None = None  # how training images are varied; None: the recipe's
    opset: int = 13  # what the oldest boards read
    calibration_images: int = 64
    simulated: bool = False
    metric: str = TOP1  # what accuracies are compared by
    ladder: Ladder = field(default_factory=Ladder)  # of int8
    given: Mapping[str, OnnxClassifier] = field(default_factory=dict)  # by family, the user's own classifiers
    allowance: Allowance = field(default_factory=Allowance)  # in which trainings must end


class Board:
    """The Evaluator of a device and a data set. Files it makes are named by what they depend on."""

    def __init__(
        self,
        setup: Setup,
        session: Patient,
        worker: Worker,
        dataset: Dataset,
        watch: Stopwatch,
        doing: Callable[[str, float | None], None],
    ) -> None:
        self._setup, self._session, self._worker = setup, session, worker
        self._dataset, self._watch, self._doing = dataset, watch, doing
        self._recipe = recipe_for(
            dataset, setup.seed, setup.parent_epochs, setup.distillation, setup.temperature, setup.augment
        )
        self._graphs, self._nets = setup.folder / "graphs", setup.folder / "nets"
        self._images = setup.cache / "images"
        for folder in (self._graphs, self._nets, self._images, setup.cache / "parents"):
            folder.mkdir(parents=True, exist_ok=True)
        self._normalisations: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self._progress = setup.folder / "progress.json"
        self._samples = Samples(setup.folder / SAMPLES)
        # its parent's input size, None for the family's largest; who decides it times networks by this very board
        self.start_px: Callable[[Candidate], int | None] = lambda candidate: None
        school = School(
            dataset,
            self._images,
            setup.cache / "parents",
            self._recipe,
            setup.weights,
            setup.download,
            setup.variants,
            setup.parent_px,
            setup.teacher,
            self._progress,
            setup.folder / "teacher.json",
            setup.allowance,
            setup.folder / "short_parents.json",
        )
        self.parents = Parents(school, worker, lambda function, job, what: self._train(function, job, what, True))
        self.parents.check()

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Size and parity of the network with random weights; its graph is kept for timing."""
        try:
            with self._watch("structure"):
                given = self._given(candidate)
                structure, _ = self._worker.call(
                    f"evaluators.structure:{'measure_given' if given else 'measure'}",
                    candidate,
                    given or len(self._dataset.classes),
                    self._setup.able.int8,
                    self._graphs,
                    self._opset(candidate),
                    self._setup.seed,
                    self._setup.able.runtimes,
                    timeout_s=STRUCTURE_S_MAX,
                )
        except (Unbuildable, WorkerError) as error:
            return _failure("structure", error)
        return structure

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Timing with random weights, which take as long as trained ones."""
        graph = self._random(candidate)
        if not graph.exists() and isinstance(failed := self.structure(candidate), Failure):
            return failed
        return self._timed(candidate, graph, limit_ms, self._setup.rules.blocks_min)

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Timing of the trained file, three times as long."""
        graph = self._graph(candidate, epochs)
        return graph if isinstance(graph, Failure) else self._timed(candidate, graph.path, None, CONFIRM_BLOCKS)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Validation accuracy of the exported graph."""
        return self._scored(candidate, epochs, VALIDATION)

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Test accuracy of the same file."""
        return self._scored(candidate, epochs, TEST)

    def teaching(self) -> str:
        """How candidates were taught, for people."""
        recipe, own = self._recipe, "each candidate's own parent"
        teacher = self.parents.note or (own if self._setup.teacher == PARENT else "none was needed")
        return f"{teacher}; weight {recipe.distillation:g} at temperature {recipe.temperature:g}"

    def coverage(self, candidate: Candidate, epochs: int) -> Coverage | Failure:
        """What the runtime says of the layers of that file."""
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("timing"):
                sent = self._session.put(self._sent(candidate, graph.path))
                layers, untold = self._session.layers(sent, self._job(candidate), PROFILE_S)
        except (CandidateError, Unbuildable) as error:
            return _failure("coverage", error)
        return summarise(candidate.precision, layers, untold)

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """The device's answers to the validation images, kept when it was scored, against ONNX Runtime's here."""
        answers = self._answers(candidate, epochs)
        if not answers.exists() and isinstance(failed := self._scored(candidate, epochs, VALIDATION), Failure):
            return failed
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("scoring"):
                ours, host = self._worker.call(
                    "evaluators.agreement:host_classes",
                    graph.path,
                    self._seen(candidate),
                    VALIDATION,
                    candidate.image_px,
                    self._normalisation(candidate),
                    self._images,
                    timeout_s=STRUCTURE_S_MAX,
                )
        except WorkerError as error:
            return _failure("agreement", error)
        theirs, labels = numpy.load(answers), numpy.array(self._dataset.splits[VALIDATION].labels)
        same = int((ours == theirs).sum())
        return Agreement(same, len(labels), float((theirs == labels).mean()), float((ours == labels).mean()), str(host))

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """`graphs/<key>-<epochs>.onnx`."""
        return str(self._graph_path(candidate, epochs).relative_to(self._setup.folder))

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Make a trained candidate's file again if it is gone or is not the one of that SHA-256.

        Returns:
            True if what is there now, or could not be made, is another: it is to be measured again.
        """
        out, key = self._graph_path(candidate, epochs), candidate.structure_key()
        graphs = [out, beside(out), self._graphs / f"{key}-{_fidelity(candidate, epochs)}-fp32.onnx"]
        for doubtful in ([], graphs, [*graphs, *self._nets.glob(f"{key}-*.pt")]):  # nets may be damaged, too
            for file in doubtful:
                file.unlink(missing_ok=True)
            graph = self._graph(candidate, epochs)
            if isinstance(graph, Graph) and self._digest(candidate, graph.path) == sha256:
                return False
        self._answers(candidate, epochs).unlink(missing_ok=True)
        return True

    def _digest(self, candidate: Candidate, graph: Path) -> str:
        """SHA-256 of the file that the candidate's runtime reads, converted anew."""
        if needs(candidate.runtime) != "onnx":
            for old in self._graphs.glob(f"{graph.stem}.{needs(candidate.runtime)}*"):
                old.unlink()
        return hashlib.sha256(self._sent(candidate, graph).read_bytes()).hexdigest()

    def preprocessing(self, candidate: Candidate) -> dict[str, Any]:
        """What turns a picture into this candidate's input."""
        mean, std = self._normalisation(candidate)
        return {
            "image_px": candidate.image_px,
            "mean": list(mean),
            "std": list(std),
            "resize": self._seen(candidate).resize,
        }

    def _given(self, candidate: Candidate) -> OnnxClassifier | None:
        """Return the user's classifier, None for a network that is trained here."""
        return self._setup.given[candidate.family] if candidate.fixed else None

    def _seen(self, candidate: Candidate) -> Dataset:
        """Return the data as the candidate sees them: the user's classifiers have their own way to a square."""
        given = self._given(candidate)
        return replace(self._dataset, resize=given.resize) if given else self._dataset

    def _opset(self, candidate: Candidate) -> int:
        """Return the newest opset of a candidate's graphs: what old boards read, where it can be chosen."""
        opset_max = self._setup.able.opset_max
        return opset_max if candidate.fixed else min(self._setup.opset, opset_max)

    def _normalisation(self, candidate: Candidate) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if given := self._given(candidate):
            return given.mean, given.std
        network = candidate.family, candidate.variant
        if network not in self._normalisations:
            self._normalisations[network] = self._worker.call("spaces.network:normalisation", *network)
        return self._normalisations[network]

    def _timed(self, candidate: Candidate, graph: Path, limit_ms: float | None, blocks_min: int) -> Latency | Failure:
        setup = self._setup
        try:
            with self._watch("timing"):
                target = Target(
                    self._session.put(self._sent(candidate, graph)),
                    setup.references[candidate.runtime],
                    self._job(candidate),
                    setup.versions[candidate.runtime],
                    setup.percentile,
                    setup.yardstick.of(candidate.runtime),
                    setup.simulated,
                )
                return time_model(self._session, target, setup.rules, limit_ms, blocks_min, self._keep(candidate))
        except (CandidateError, Unbuildable) as error:
            return _failure("latency", error)

    def _scored(self, candidate: Candidate, epochs: int, split: str) -> Accuracy | Failure:
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("scoring"):
                accuracy = score(
                    self._session,
                    self._sent(candidate, graph.path),
                    self._seen(candidate),
                    split,
                    candidate.image_px,
                    self._normalisation(candidate),
                    self._job(candidate),
                    epochs,
                    self._images,
                    self._answers(candidate, epochs) if split == VALIDATION else None,
                    self._setup.metric,
                )
                trained = _fidelity(candidate, epochs)
                made = replace(accuracy, rungs=graph.rungs, relaid=graph.relaid, unfolded=graph.unfolded)
                return replace(made, epochs=trained)
        except (CandidateError, Unbuildable) as error:
            return _failure("accuracy", error)

    def _job(self, candidate: Candidate) -> Job:
        return Job(candidate.runtime, candidate.threads, candidate.precision, self._setup.workspace_mb)

    def _sent(self, candidate: Candidate, graph: Path) -> Path:
        """The file in the format that the candidate's runtime reads."""
        return for_runtime(graph, needs(candidate.runtime), candidate.image_px, self._graphs)

    def _keep(self, candidate: Candidate) -> Callable[[Block], None]:
        def keep(block: Block) -> None:
            self._setup.yardstick.watch(candidate.runtime, block)
            keep_block(self._samples, candidate.key(), block)

        return keep

    def _answers(self, candidate: Candidate, epochs: int) -> Path:
        """The classes that the device gave the validation images."""
        return self._graphs / f"{candidate.key()}-{_fidelity(candidate, epochs)}-answers.npy"

    def _graph_path(self, candidate: Candidate, epochs: int) -> Path:
        return self._graphs / f"{candidate.graph_key()}-{_fidelity(candidate, epochs)}.onnx"

    def _random(self, candidate: Candidate) -> Path:
        """The graph with random weights, which `structure` makes and which is timed."""
        return self._graphs / f"{candidate.graph_key()}-random.onnx"

    def _graph(self, candidate: Candidate, epochs: int) -> Graph | Failure:
        """The exported trained network, made where it is not there yet."""
        out = self._graph_path(candidate, epochs)
        if out.exists() and beside(out).exists():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged, and as good as none
                return graph_from_json(out)
        try:
            given, net, ladder = self._given(candidate), Path(), self._setup.ladder
            if not given and not self._net_path(candidate, epochs).exists():
                with self._watch("parents"):  # counted apart: the next candidate of the network has it already
                    self._parent(candidate)
            if not given:
                with self._watch("training"):
                    net = self._net(candidate, epochs)
            with self._watch("scoring"):
                job = GraphJob(
                    candidate,
                    self._seen(candidate),
                    self._images,
                    net,
                    self._graphs / f"{candidate.structure_key()}-{_fidelity(candidate, epochs)}-fp32.onnx",
                    out,
                    self._random(candidate),
                    self._setup.able.int8,
                    self._opset(candidate),
                    self._setup.able.runtimes,
                    self._setup.calibration_images,
                    replace(ladder, qat_epochs=0) if given else ladder.at(epochs, self._setup.rungs[-1]),
                    self._recipe,
                    given,
                    self._setup.allowance.left_s(),
                )
                tick = partial(self._doing, f"exporting {candidate.describe()}", None)
                return self._worker.call("evaluators.graph:make_graph", job, timeout_s=TRAINING_S_MAX, tick=tick)
        except (Unbuildable, TrainingFailed, WorkerError) as error:
            return _failure("accuracy", error)

    def _net(self, candidate: Candidate, epochs: int) -> Path:
        """The network after `epochs` of fine-tuning; one training serves every precision and runtime."""
        out = self._net_path(candidate, epochs)
        if out.exists():
            return out
        parent = self._parent(candidate)
        common: dict[str, Any] = {
            "dataset": self._dataset,
            "cache": self._images,
            "family": candidate.family,
            "variant": candidate.variant,
            "image_px": candidate.image_px,
            "recipe": self._recipe,
            "out": out,
        }
        if epochs == 0:
            cutting = CandidateJob(**common, steps=candidate.steps, options=candidate.options, parent=parent.path)
            self._train("start_candidate", cutting, "cutting", False)
            return out
        before = max((rung for rung in (0, *self._setup.rungs) if rung < epochs), default=0)
        net = self._net(candidate, before)
        teacher = self.parents.taught_by(candidate, parent.image_px)
        tuning = FineTuneJob(
            **common,
            epochs=epochs - before,
            teacher=teacher,
            net=net,
            progress=self._progress,
            seconds_max=self._setup.allowance.left_s(),
        )
        self._train("fine_tune", tuning, f"fine-tuning {candidate.describe()}", True)
        return out

    def _net_path(self, candidate: Candidate, epochs: int) -> Path:
        return self._nets / f"{candidate.structure_key()}-{epochs}.pt"

    def _parent(self, candidate: Candidate) -> Parent:
        """Return the trained network that a candidate is made from."""
        return self.parents.of(candidate.family, candidate.variant, self.start_px(candidate))

    def _train(self, function: str, job: Any, what: str, tells: bool) -> Trained:
        def tick() -> None:
            self._doing(what, share_done(self._progress) if tells else None)

        self._progress.unlink(missing_ok=True)
        return self._worker.call(f"evaluators.training:{function}", job, timeout_s=TRAINING_S_MAX, tick=tick)


def keep_block(samples: Samples, name: str, block: Block) -> None:
    """Add a block, raw, to a run's samples: one line a block, read by pandas with `lines=True`.

    Args:
        samples: Of the run.
        name: Key of the candidate, or `reference RUNTIME`.
        block: What was timed.
    """
    samples.add({"candidate": name, **asdict(block)})


def share_done(progress: Path) -> float | None:
    """How much of a training is done, 0..1; None where it has not said yet."""
    try:
        now = json.loads(progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return now["step"] / now["steps"] if now else None


def _fidelity(candidate: Candidate, epochs: int) -> int:
    """Return the epochs that a candidate's file was trained for here: a fixed one is the same whatever is asked."""
    return 0 if candidate.fixed else epochs


def _failure(stage: str, error: Exception) -> Failure:
    """The candidate's own failure as a value."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Failure(stage, getattr(error, "kind", "crashed"), reason)
