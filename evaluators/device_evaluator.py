"""Evaluate candidates by measurement: networks are built and trained on the host, timed and scored on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from evaluators.data.dataset import TEST, VALIDATION, SplitName
from evaluators.data.resizing import Preprocessing
from evaluators.fault_attribution import WorkerError
from evaluators.layer_precision import LayerPrecision, summarise
from evaluators.measurement import TOP1, Accuracy, Agreement, Block, FailedStage, Failure, Latency, Structure
from evaluators.stages.accuracy import score
from evaluators.stages.graph_cache import GraphCache, GraphConfig, fidelity
from evaluators.timing.latency import RepeatHistory, TimingRules, TimingTarget, time_model
from evaluators.timing.reference_pace import ReferencePace
from evaluators.timing.sample_log import SAMPLES, SampleLog
from evaluators.timing.stopwatch import Stopwatch
from evaluators.training.candidate_networks import CandidateNetworks
from evaluators.training.jobs import ExportedGraph, TrainingFailedError
from evaluators.training.onnx_teacher import PARENT
from evaluators.training.parent_networks import ParentConfig
from evaluators.training.tasks import HOST_CLASSES, MEASURE_FIXED, MEASURE_STRUCTURE, NORMALISATION
from evaluators.training.worker_process import Worker
from remote.errors import CandidateError
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job
from spaces.candidate import Candidate, UnbuildableError

STRUCTURE_S_MAX = 900.0  # the slowest family is pruned and exported in under a minute
CONFIRM_BLOCKS = 6  # minimum number of blocks of a finalist; that of a candidate is two
PROFILE_S = 1.0  # seconds for which a finalist's layers are timed


@dataclass(frozen=True, kw_only=True)
class EvaluatorConfig:
    """Hold what is constant during a run.

    Attributes:
        folder: Run folder.
        parents: Data set, training recipe, caches and time allowance, by which parents and candidates are trained.
        graphs: Capabilities of the device and int8 ladder, by which graphs are exported; the user's own classifiers.
        versions: Versions of the runtimes of the space.
        workspace_mb: Memory for engine builders, in MB.
        references: SHA-256 of the reference model, by runtime.
        yardstick: Time of the reference on the calm device.
        percentile: Percentile of the latency to report, 0..100.
        rules: Limits for disturbed blocks and for the number of blocks.
        rungs: Fidelities, in fine-tuning epochs.
        simulated: Whether the device is simulated.
        metric: Metric by which accuracies are compared.
    """

    folder: Path
    parents: ParentConfig
    graphs: GraphConfig
    versions: Mapping[str, str]
    workspace_mb: int
    references: Mapping[str, str]
    yardstick: ReferencePace
    percentile: float
    rules: TimingRules
    rungs: tuple[int, ...]
    simulated: bool = False
    metric: str = TOP1


class DeviceEvaluator:
    """Evaluate candidates on a device and a data set.

    Attributes:
        networks: Trained networks of candidates and their parents.
        graphs: Exported graphs of candidates.
    """

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
        self._watch = watch
        self._dataset, self._images = setup.parents.dataset, setup.parents.images
        self.networks = CandidateNetworks(
            setup.parents, setup.rungs, folder=setup.folder / "nets", worker=worker, doing=doing
        )
        self.graphs = GraphCache(
            setup.graphs, self.networks, folder=setup.folder / "graphs", worker=worker, watch=watch, doing=doing
        )
        self._normalisations: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self._samples = SampleLog(setup.folder / SAMPLES)
        self._repeats = RepeatHistory()

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the size of the network with random weights and the parity of its graph, which is kept for timing."""
        try:
            with self._watch("structure"):
                given = self.graphs.fixed_model(candidate)
                structure, _ = self._worker.call(
                    MEASURE_FIXED if given else MEASURE_STRUCTURE,
                    candidate,
                    given or len(self._dataset.classes),
                    self._setup.graphs.able.int8,
                    self.graphs.folder,
                    self.graphs.opset(candidate),
                    self._setup.parents.recipe.seed,
                    self._setup.graphs.able.runtimes,
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
        graph = self.graphs.random_path(candidate)
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
        teacher = self.networks.parents.note or (own if self._setup.parents.teacher == PARENT else "none was needed")
        alone = "; an uncompressed network at its parent's size learns from labels alone" if teacher == own else ""
        return f"{teacher}; weight {recipe.distillation:g} at temperature {recipe.temperature:g}{alone}"

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
                sent = self._session.put(self.graphs.convert(candidate, graph.path))
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
        answers = self.graphs.answers_path(candidate, epochs)
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
                    self.graphs.dataset_of(candidate),
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
        return str(self.graphs.trained_path(candidate, epochs).relative_to(self._setup.folder))

    def remade(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Rebuild the file of a trained candidate if it is missing or does not have the expected SHA-256.

        Args:
            candidate: A trained candidate.
            epochs: Fidelity, in fine-tuning epochs.
            sha256: SHA-256 of the file that was measured.

        Returns:
            True if the file differs from the measured one or could not be rebuilt, so that it must be measured again.
        """
        if self.graphs.rebuild(candidate, epochs, sha256):
            return False
        self.graphs.answers_path(candidate, epochs).unlink(missing_ok=True)
        return True

    def preprocessing(self, candidate: Candidate) -> Preprocessing:
        """Return the steps that turn a picture into this candidate's input."""
        mean, std = self._normalisation(candidate)
        return {
            "image_px": candidate.image_px,
            "mean": list(mean),
            "std": list(std),
            "resize": self.graphs.dataset_of(candidate).resize,
        }

    def _normalisation(self, candidate: Candidate) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if given := self.graphs.fixed_model(candidate):
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
                    model_sha256=self._session.put(self.graphs.convert(candidate, graph)),
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
                    self.graphs.convert(candidate, graph.path),
                    dataset=self.graphs.dataset_of(candidate),
                    split=split,
                    image_px=candidate.image_px,
                    normalisation=self._normalisation(candidate),
                    job=self._job(candidate),
                    epochs=epochs,
                    cache=self._images,
                    answers=self.graphs.answers_path(candidate, epochs) if split == VALIDATION else None,
                    metric=self._setup.metric,
                )
                trained = fidelity(candidate, epochs)
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

    def _keep(self, candidate: Candidate) -> Callable[[Block], None]:
        def keep(block: Block) -> None:
            self._setup.yardstick.watch(candidate.runtime, block)
            self._samples.add_block(candidate.key(), block)

        return keep

    def _graph(self, candidate: Candidate, epochs: int) -> ExportedGraph | Failure:
        try:
            return self.graphs.get(candidate, epochs)
        except (UnbuildableError, TrainingFailedError, WorkerError) as error:
            return _failure("accuracy", error)


def _failure(
    stage: FailedStage, error: UnbuildableError | TrainingFailedError | WorkerError | CandidateError
) -> Failure:
    """Return the candidate's own failure as a value."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Failure(stage, error.kind, reason)
