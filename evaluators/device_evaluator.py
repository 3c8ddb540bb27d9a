"""Evaluate candidates by measurement: networks are built and trained on the host, timed and scored on the device."""

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

from evaluators.data.dataset import TEST, VALIDATION, Dataset, SplitName
from evaluators.data.resizing import Preprocessing
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.fault_attribution import WorkerError
from evaluators.layer_precision import LayerPrecision, summarise
from evaluators.measurement import TOP1, Accuracy, Agreement, Block, FailedStage, Failure, Latency, Structure
from evaluators.stages.accuracy import score
from evaluators.timing.latency import RepeatHistory, TimingRules, TimingTarget, time_model
from evaluators.timing.reference_pace import ReferencePace
from evaluators.timing.sample_log import SAMPLES, SampleLog
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.jobs import (
    CandidateJob,
    ExportedGraph,
    FineTuneJob,
    GraphJob,
    LadderConfig,
    TrainedNetwork,
    TrainingFailedError,
    beside,
    graph_from_json,
)
from evaluators.training.onnx_teacher import PARENT, OnnxClassifier
from evaluators.training.parent_networks import ParentConfig, ParentNetwork, ParentNetworks
from evaluators.training.tasks import (
    FINE_TUNE,
    HOST_CLASSES,
    MAKE_GRAPH,
    MEASURE_FIXED,
    MEASURE_STRUCTURE,
    NORMALISATION,
    START_CANDIDATE,
    Task,
)
from evaluators.training.worker_process import Worker
from remote.device import Capabilities
from remote.errors import CandidateError
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job
from spaces.candidate import Candidate, UnbuildableError

STRUCTURE_S_MAX = 900.0  # the slowest family is pruned and exported in under a minute
TRAINING_S_MAX = 12 * 3600.0
CONFIRM_BLOCKS = 6  # minimum number of blocks of a finalist; that of a candidate is two
PROFILE_S = 1.0  # seconds for which a finalist's layers are timed


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig:
    """Hold what is constant during a run.

    Attributes:
        folder: Run folder.
        parents: Data set, training recipe, caches and time allowance, by which parents and candidates are trained.
        able: Capabilities of the device.
        versions: Versions of the runtimes of the space.
        workspace_mb: Memory for engine builders, in MB.
        references: SHA-256 of the reference model, by runtime.
        yardstick: Time of the reference on the calm device.
        percentile: Percentile of the latency to report, 0..100.
        rules: Limits for disturbed blocks and for the number of blocks.
        rungs: Fidelities, in fine-tuning epochs.
        opset: Newest opset of exported graphs; the oldest boards read up to 13.
        calibration_images: Number of images for calibration.
        simulated: Whether the device is simulated.
        metric: Metric by which accuracies are compared.
        ladder: Configuration of the int8 ladder.
        given: The user's own classifiers, by family.
    """

    folder: Path
    parents: ParentConfig
    able: Capabilities
    versions: Mapping[str, str]
    workspace_mb: int
    references: Mapping[str, str]
    yardstick: ReferencePace
    percentile: float
    rules: TimingRules
    rungs: tuple[int, ...]
    opset: int = 13
    calibration_images: int = 64
    simulated: bool = False
    metric: str = TOP1
    ladder: LadderConfig = field(default_factory=LadderConfig)
    given: Mapping[str, OnnxClassifier] = field(default_factory=dict)


class DeviceEvaluator:
    """Evaluate candidates on a device and a data set. The names of generated files contain all that they depend on."""

    def __init__(
        self,
        setup: EvaluatorConfig,
        session: RetryingSession,
        worker: Worker,
        watch: Stopwatch,
        doing: Callable[[str, float | None], None],
    ) -> None:
        """Create the folders of a run and check that the teacher exists.

        Args:
            setup: Constants of the run.
            session: Connected device.
            worker: Process that builds and trains networks.
            watch: Stopwatch that counts the time by kind of work.
            doing: Called with the current activity and its finished share, 0..1, or None.

        Raises:
            DataError: The requested teacher does not exist.
        """
        self._setup, self._session, self._worker = setup, session, worker
        self._watch, self._doing = watch, doing
        self._dataset, self._images = setup.parents.dataset, setup.parents.images
        self._graphs, self._nets = setup.folder / "graphs", setup.folder / "nets"
        for folder in (self._graphs, self._nets, self._images, setup.parents.folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._normalisations: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self._samples = SampleLog(setup.folder / SAMPLES)
        self._repeats = RepeatHistory()
        # Returns the input size of a candidate's parent, None for the family's largest. The caller sets it later,
        # since the function that decides it times networks with this very evaluator.
        self.start_px: Callable[[Candidate], int | None] = lambda candidate: None
        self.parents = ParentNetworks(setup.parents, worker, lambda task, job, what: self._train(task, job, what, True))
        self.parents.check()

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the size of the network with random weights and the parity of its graph, which is kept for timing."""
        try:
            with self._watch("structure"):
                given = self._fixed_model(candidate)
                structure, _ = self._worker.call(
                    MEASURE_FIXED if given else MEASURE_STRUCTURE,
                    candidate,
                    given or len(self._dataset.classes),
                    self._setup.able.int8,
                    self._graphs,
                    self._opset(candidate),
                    self._setup.parents.recipe.seed,
                    self._setup.able.runtimes,
                    timeout_s=STRUCTURE_S_MAX,
                )
        except (UnbuildableError, WorkerError) as error:
            return _failure("structure", error)
        return structure

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Time the graph with random weights, which take as long as trained ones.

        Args:
            candidate: Its graph is exported first if it does not exist.
            limit_ms: Budget in ms; timing stops once the latency is surely above it. None never stops early.
        """
        graph = self._random(candidate)
        if not graph.exists() and isinstance(failed := self.structure(candidate), Failure):
            return failed
        return self._time(candidate, graph, limit_ms, self._setup.rules.blocks_min)

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Time the trained file, for three times as long.

        Args:
            candidate: A finalist.
            epochs: Fidelity, in fine-tuning epochs.
        """
        graph = self._graph(candidate, epochs)
        return graph if isinstance(graph, Failure) else self._time(candidate, graph.path, None, CONFIRM_BLOCKS)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the validation accuracy of the exported graph.

        Args:
            candidate: Its network is trained first if its file does not exist.
            epochs: Fidelity, in fine-tuning epochs.
        """
        return self._score(candidate, epochs, VALIDATION)

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the test accuracy of the scored file.

        Args:
            candidate: A finalist.
            epochs: Fidelity, in fine-tuning epochs.
        """
        return self._score(candidate, epochs, TEST)

    def teaching(self) -> str:
        """Return a line for the report that describes the distillation."""
        recipe, own = self._setup.parents.recipe, "each candidate's own parent"
        teacher = self.parents.note or (own if self._setup.parents.teacher == PARENT else "none was needed")
        return f"{teacher}; weight {recipe.distillation:g} at temperature {recipe.temperature:g}"

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        """Return the precision of each layer of the scored file, as the runtime reports it.

        Args:
            candidate: A finalist.
            epochs: Fidelity, in fine-tuning epochs.
        """
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("timing"):
                sent = self._session.put(self._convert(candidate, graph.path))
                layers, untold = self._session.layers(sent, self._job(candidate), PROFILE_S)
        except (CandidateError, UnbuildableError) as error:
            return _failure("coverage", error)
        return summarise(candidate.precision, layers, untold)

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """Compare the device's predictions for the validation images with those of ONNX Runtime on the host.

        Args:
            candidate: A finalist; the device's predictions were stored when it was scored.
            epochs: Fidelity, in fine-tuning epochs.
        """
        answers = self._answers(candidate, epochs)
        if not answers.exists() and isinstance(failed := self._score(candidate, epochs, VALIDATION), Failure):
            return failed
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("scoring"):
                ours, host = self._worker.call(
                    HOST_CLASSES,
                    graph.path,
                    self._dataset_of(candidate),
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
        return Agreement(
            same=same,
            count=len(labels),
            device_top1=float((theirs == labels).mean()),
            host_top1=float((ours == labels).mean()),
            host=str(host),
        )

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Return `graphs/<key>-<epochs>.onnx`, relative to the run folder.

        Args:
            candidate: A scored candidate.
            epochs: Fidelity, in fine-tuning epochs.
        """
        return str(self._graph_path(candidate, epochs).relative_to(self._setup.folder))

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Rebuild the file of a trained candidate if it is missing or does not have the expected SHA-256.

        Args:
            candidate: A trained candidate.
            epochs: Fidelity, in fine-tuning epochs.
            sha256: SHA-256 of the file that was measured.

        Returns:
            True if the file differs from the measured one or could not be rebuilt, so that it must be measured again.
        """
        out, key = self._graph_path(candidate, epochs), candidate.structure_key()
        graphs = [out, beside(out), self._graphs / f"{key}-{_fidelity(candidate, epochs)}-fp32.onnx"]
        for doubtful in ([], graphs, [*graphs, *self._nets.glob(f"{key}-*.pt")]):  # saved networks may be damaged, too
            for file in doubtful:
                file.unlink(missing_ok=True)
            graph = self._graph(candidate, epochs)
            if isinstance(graph, ExportedGraph) and self._digest(candidate, graph.path) == sha256:
                return False
        self._answers(candidate, epochs).unlink(missing_ok=True)
        return True

    def _digest(self, candidate: Candidate, graph: Path) -> str:
        """Return the SHA-256 of the file that the candidate's runtime reads, converted anew."""
        if needs(candidate.runtime) != "onnx":
            for old in self._graphs.glob(f"{graph.stem}.{needs(candidate.runtime)}*"):
                old.unlink()
        return hashlib.sha256(self._convert(candidate, graph).read_bytes()).hexdigest()

    def preprocessing(self, candidate: Candidate) -> Preprocessing:
        """Return the steps that turn a picture into this candidate's input."""
        mean, std = self._normalisation(candidate)
        return {
            "image_px": candidate.image_px,
            "mean": list(mean),
            "std": list(std),
            "resize": self._dataset_of(candidate).resize,
        }

    def _fixed_model(self, candidate: Candidate) -> OnnxClassifier | None:
        """Return the user's classifier; None for a network that is trained here."""
        return self._setup.given[candidate.family] if candidate.fixed else None

    def _dataset_of(self, candidate: Candidate) -> Dataset:
        """Return the data with the candidate's resizing, since the user's classifiers define their own."""
        given = self._fixed_model(candidate)
        return replace(self._dataset, resize=given.resize) if given else self._dataset

    def _opset(self, candidate: Candidate) -> int:
        """Return the newest opset of a candidate's graphs: what old boards read, unless the graph is the user's own."""
        opset_max = self._setup.able.opset_max
        return opset_max if candidate.fixed else min(self._setup.opset, opset_max)

    def _normalisation(self, candidate: Candidate) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if given := self._fixed_model(candidate):
            return given.mean, given.std
        network = candidate.family, candidate.variant
        if network not in self._normalisations:
            self._normalisations[network] = self._worker.call(NORMALISATION, *network)
        return self._normalisations[network]

    def _time(self, candidate: Candidate, graph: Path, limit_ms: float | None, blocks_min: int) -> Latency | Failure:
        setup = self._setup
        try:
            with self._watch("timing"):
                target = TimingTarget(
                    model_sha256=self._session.put(self._convert(candidate, graph)),
                    reference_sha256=setup.references[candidate.runtime],
                    job=self._job(candidate),
                    runtime_version=setup.versions[candidate.runtime],
                    percentile=setup.percentile,
                    reference_ms=setup.yardstick.of(candidate.runtime),
                    simulated=setup.simulated,
                )
                return time_model(
                    self._session,
                    target,
                    rules=setup.rules,
                    limit_ms=limit_ms,
                    blocks_min=blocks_min,
                    keep=self._keep(candidate),
                    history=self._repeats,
                )
        except (CandidateError, UnbuildableError) as error:
            return _failure("latency", error)

    def _score(self, candidate: Candidate, epochs: int, split: SplitName) -> Accuracy | Failure:
        graph = self._graph(candidate, epochs)
        if isinstance(graph, Failure):
            return graph
        try:
            with self._watch("scoring"):
                accuracy = score(
                    self._session,
                    self._convert(candidate, graph.path),
                    dataset=self._dataset_of(candidate),
                    split=split,
                    image_px=candidate.image_px,
                    normalisation=self._normalisation(candidate),
                    job=self._job(candidate),
                    epochs=epochs,
                    cache=self._images,
                    answers=self._answers(candidate, epochs) if split == VALIDATION else None,
                    metric=self._setup.metric,
                )
                trained = _fidelity(candidate, epochs)
                made = replace(accuracy, rungs=graph.rungs, relaid=graph.relaid, unfolded=graph.unfolded)
                return replace(made, epochs=trained)
        except (CandidateError, UnbuildableError) as error:
            return _failure("accuracy", error)

    def _job(self, candidate: Candidate) -> Job:
        return Job(
            runtime=candidate.runtime,
            threads=candidate.threads,
            precision=candidate.precision,
            workspace_mb=self._setup.workspace_mb,
        )

    def _convert(self, candidate: Candidate, graph: Path) -> Path:
        """Return the graph in the format that the candidate's runtime reads."""
        return for_runtime(graph, needs(candidate.runtime), candidate.image_px, self._graphs)

    def _keep(self, candidate: Candidate) -> Callable[[Block], None]:
        def keep(block: Block) -> None:
            self._setup.yardstick.watch(candidate.runtime, block)
            keep_block(self._samples, candidate.key(), block)

        return keep

    def _answers(self, candidate: Candidate, epochs: int) -> Path:
        """Return the path of the classes that the device predicted for the validation images."""
        return self._graphs / f"{candidate.key()}-{_fidelity(candidate, epochs)}-answers.npy"

    def _graph_path(self, candidate: Candidate, epochs: int) -> Path:
        return self._graphs / f"{candidate.graph_key()}-{_fidelity(candidate, epochs)}.onnx"

    def _random(self, candidate: Candidate) -> Path:
        """Return the path of the graph with random weights, which `structure` exports and which is timed."""
        return self._graphs / f"{candidate.graph_key()}-random.onnx"

    def _graph(self, candidate: Candidate, epochs: int) -> ExportedGraph | Failure:
        """Return the exported trained network, which is created if it does not exist."""
        out = self._graph_path(candidate, epochs)
        if out.exists() and beside(out).exists():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged file counts as missing
                return graph_from_json(out)
        try:
            given, net, ladder = self._fixed_model(candidate), Path(), self._setup.ladder
            if not given and not self._net_path(candidate, epochs).exists():
                with self._watch("parents"):  # counted apart: the next candidate of the network reuses the parent
                    self._parent(candidate)
            if not given:
                with self._watch("training"):
                    net = self._net(candidate, epochs)
            with self._watch("scoring"):
                job = GraphJob(
                    candidate=candidate,
                    dataset=self._dataset_of(candidate),
                    cache=self._images,
                    net=net,
                    plain=self._graphs / f"{candidate.structure_key()}-{_fidelity(candidate, epochs)}-fp32.onnx",
                    out=out,
                    timed=self._random(candidate),
                    int8=self._setup.able.int8,
                    opset=self._opset(candidate),
                    runtimes=self._setup.able.runtimes,
                    calibration_images=self._setup.calibration_images,
                    ladder=replace(ladder, qat_epochs=0) if given else ladder.at(epochs, self._setup.rungs[-1]),
                    recipe=self._setup.parents.recipe,
                    given=given,
                    seconds_max=self._setup.parents.allowance.left_s(),
                )
                tick = partial(self._doing, f"exporting {candidate.describe()}", None)
                return self._worker.call(MAKE_GRAPH, job, timeout_s=TRAINING_S_MAX, tick=tick)
        except (UnbuildableError, TrainingFailedError, WorkerError) as error:
            return _failure("accuracy", error)

    def _net(self, candidate: Candidate, epochs: int) -> Path:
        """Return the network after `epochs` of fine-tuning; one training serves every precision and runtime."""
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
            "recipe": self._setup.parents.recipe,
            "out": out,
        }
        if epochs == 0:
            cutting = CandidateJob(**common, steps=candidate.steps, options=candidate.options, parent=parent.path)
            self._train(START_CANDIDATE, cutting, "cutting", False)
            return out
        before = max((rung for rung in (0, *self._setup.rungs) if rung < epochs), default=0)
        net = self._net(candidate, before)
        teacher = self.parents.logits_for(candidate, parent.image_px)
        tuning = FineTuneJob(
            **common,
            epochs=epochs - before,
            teacher=teacher,
            net=net,
            progress=self._setup.parents.progress,
            seconds_max=self._setup.parents.allowance.left_s(),
        )
        self._train(FINE_TUNE, tuning, f"fine-tuning {candidate.describe()}", True)
        return out

    def _net_path(self, candidate: Candidate, epochs: int) -> Path:
        return self._nets / f"{candidate.structure_key()}-{epochs}.pt"

    def _parent(self, candidate: Candidate) -> ParentNetwork:
        """Return the trained network from which a candidate is made."""
        return self.parents.of(candidate.family, candidate.variant, self.start_px(candidate))

    def _train(self, task: Task[TrainedNetwork], job: object, what: str, tells: bool) -> TrainedNetwork:
        def tick() -> None:
            self._doing(what, share_done(self._setup.parents.progress) if tells else None)

        self._setup.parents.progress.unlink(missing_ok=True)
        return self._worker.call(task, job, timeout_s=TRAINING_S_MAX, tick=tick)


def keep_block(samples: SampleLog, name: str, block: Block) -> None:
    """Add a raw block to the samples of a run, as one line that pandas reads with `lines=True`.

    Args:
        samples: Sample log of the run.
        name: Key of the candidate, or `reference RUNTIME`.
        block: Timed block.
    """
    samples.add({"candidate": name, **asdict(block)})


def share_done(progress: Path) -> float | None:
    """Return the finished share of a training, 0..1; None where it has not reported any yet."""
    try:
        now = json.loads(progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return now["step"] / now["steps"] if now else None


def _fidelity(candidate: Candidate, epochs: int) -> int:
    """Return the epochs for which a candidate's file was trained here; a fixed one is the same at every fidelity."""
    return 0 if candidate.fixed else epochs


def _failure(
    stage: FailedStage, error: UnbuildableError | TrainingFailedError | WorkerError | CandidateError
) -> Failure:
    """Return the candidate's own failure as a value."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Failure(stage, error.kind, reason)
