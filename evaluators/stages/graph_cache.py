"""Export the graphs of candidates, and keep them in the run folder."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from evaluators.data.dataset import Dataset
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.fault_attribution import WorkerError
from evaluators.training.candidate_networks import TRAINING_S_MAX, CandidateNetworks, Doing
from evaluators.training.jobs import (
    ExportedGraph,
    GraphJob,
    LadderConfig,
    TrainingFailedError,
    beside,
    graph_from_json,
)
from evaluators.training.onnx_teacher import OnnxClassifier
from evaluators.training.tasks import MAKE_GRAPH
from evaluators.training.worker_process import Worker
from remote.device import Capabilities
from spaces.candidate import Candidate, UnbuildableError


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Hold the settings that graphs depend on, besides those of training.

    Attributes:
        able: Capabilities of the device.
        opset: Newest opset of exported graphs; the oldest boards read up to 13.
        calibration_images: Number of images for calibration.
        ladder: Configuration of the int8 ladder.
        given: The user's own classifiers, by family.
    """

    able: Capabilities
    opset: int = 13
    calibration_images: int = 64
    ladder: LadderConfig = field(default_factory=LadderConfig)
    given: Mapping[str, OnnxClassifier] = field(default_factory=dict)


class GraphCache:
    """Export a graph once for every runtime. The names of files contain all that they depend on.

    Attributes:
        folder: Folder of the graphs.
    """

    def __init__(
        self,
        config: GraphConfig,
        networks: CandidateNetworks,
        *,
        folder: Path,
        worker: Worker,
        watch: Callable[[str], AbstractContextManager[None]],
        doing: Doing,
    ) -> None:
        """Create the folder of graphs.

        Args:
            config: Settings that graphs depend on.
            networks: Trained networks of the candidates.
            folder: Folder of the graphs.
            worker: Process that exports.
            watch: Counts the time by kind of work: parents, training, scoring.
            doing: Called with the current activity.
        """
        self._config, self._networks, self._worker = config, networks, worker
        self._watch, self._doing = watch, doing
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fixed_model(self, candidate: Candidate) -> OnnxClassifier | None:
        """Return the user's classifier; None for a network that is trained here."""
        return self._config.given[candidate.family] if candidate.fixed else None

    def dataset_of(self, candidate: Candidate) -> Dataset:
        """Return the data with the candidate's resizing, since the user's classifiers define their own."""
        given, dataset = self.fixed_model(candidate), self._networks.config.dataset
        return replace(dataset, resize=given.resize) if given else dataset

    def opset(self, candidate: Candidate) -> int:
        """Return the newest opset of a candidate's graphs: what old boards read, unless the graph is the user's own."""
        opset_max = self._config.able.opset_max
        return opset_max if candidate.fixed else min(self._config.opset, opset_max)

    def random_path(self, candidate: Candidate) -> Path:
        """Return the path of the graph with random weights, which the structure stage exports and which is timed."""
        return self.folder / f"{candidate.graph_key()}-random.onnx"

    def trained_path(self, candidate: Candidate, epochs: int) -> Path:
        """Return the path of the graph of a network after `epochs` of fine-tuning, whether it exists or not."""
        return self.folder / f"{candidate.graph_key()}-{fidelity(candidate, epochs)}.onnx"

    def answers_path(self, candidate: Candidate, epochs: int) -> Path:
        """Return the path of the classes that the device predicted for the validation images."""
        return self.folder / f"{candidate.key()}-{fidelity(candidate, epochs)}-answers.npy"

    def convert(self, candidate: Candidate, graph: Path) -> Path:
        """Return a graph in the format that the candidate's runtime reads.

        Raises:
            UnbuildableError: The graph has no such form.
        """
        return for_runtime(graph, needs(candidate.runtime), candidate.image_px, self.folder)

    def get(self, candidate: Candidate, epochs: int) -> ExportedGraph:
        """Return the exported trained network, which is trained and exported now if it does not exist.

        Args:
            candidate: Candidate to export.
            epochs: Fidelity, in fine-tuning epochs.

        Raises:
            TrainingFailedError, WorkerError, UnbuildableError: It can't be trained or exported.
            OutOfTimeError: The time that is left does not suffice.
        """
        out = self.trained_path(candidate, epochs)
        if out.exists() and beside(out).exists():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged file counts as missing
                return graph_from_json(out)
        net, networks = Path(), self._networks
        if not candidate.fixed:
            if not networks.path(candidate, epochs).exists():
                with self._watch("parents"):  # counted apart: the next candidate of the network reuses the parent
                    networks.parent(candidate)
            with self._watch("training"):
                net = networks.get(candidate, epochs)
        with self._watch("scoring"):
            tick = partial(self._doing, f"exporting {candidate.describe()}", None)
            job = self._job(candidate, epochs, net, out)
            return self._worker.call(MAKE_GRAPH, job, timeout_s=TRAINING_S_MAX, tick=tick)

    def rebuild(self, candidate: Candidate, epochs: int, sha256: str) -> bool:
        """Rebuild the graph of a trained candidate if it is missing or its file has another SHA-256.

        Args:
            candidate: A trained candidate.
            epochs: Fidelity, in fine-tuning epochs.
            sha256: Expected SHA-256 of the file that the candidate's runtime reads.

        Returns:
            True if the file is the expected one, False if it differs or could not be rebuilt.
        """
        out = self.trained_path(candidate, epochs)
        graphs = [out, beside(out), self._plain_path(candidate, epochs)]
        saved = self._networks.saved(candidate)  # may be damaged, too
        for doubtful in ([], graphs, [*graphs, *saved]):
            for file in doubtful:
                file.unlink(missing_ok=True)
            try:
                graph = self.get(candidate, epochs)
            except (UnbuildableError, TrainingFailedError, WorkerError):
                continue
            if self._digest(candidate, graph.path) == sha256:
                return True
        return False

    def _plain_path(self, candidate: Candidate, epochs: int) -> Path:
        """Return the path of the fp32 graph, which all precisions share."""
        return self.folder / f"{candidate.structure_key()}-{fidelity(candidate, epochs)}-fp32.onnx"

    def _job(self, candidate: Candidate, epochs: int, net: Path, out: Path) -> GraphJob:
        given, able, ladder = self.fixed_model(candidate), self._config.able, self._config.ladder
        training, rungs = self._networks.config, self._networks.rungs
        return GraphJob(
            candidate=candidate,
            dataset=self.dataset_of(candidate),
            cache=training.images,
            net=net,
            plain=self._plain_path(candidate, epochs),
            out=out,
            timed=self.random_path(candidate),
            int8=able.int8,
            opset=self.opset(candidate),
            runtimes=able.runtimes,
            calibration_images=self._config.calibration_images,
            ladder=replace(ladder, qat_epochs=0) if given else ladder.at(epochs, rungs[-1]),
            recipe=training.recipe,
            given=given,
            seconds_max=training.allowance.left_s(),
        )

    def _digest(self, candidate: Candidate, graph: Path) -> str:
        """Return the SHA-256 of the file that the candidate's runtime reads, converted anew."""
        if needs(candidate.runtime) != "onnx":
            for old in self.folder.glob(f"{graph.stem}.{needs(candidate.runtime)}*"):
                old.unlink()
        return hashlib.sha256(self.convert(candidate, graph).read_bytes()).hexdigest()


def fidelity(candidate: Candidate, epochs: int) -> int:
    """Return the epochs for which a candidate's file was trained here; a fixed one is the same at every fidelity."""
    return 0 if candidate.fixed else epochs
