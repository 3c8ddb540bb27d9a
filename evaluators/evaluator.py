"""The seam between a search and whatever knows about candidates: a board, a table, a simulation."""

from __future__ import annotations

from typing import Protocol

from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import Accuracy, Agreement, Failure, Latency, Structure
from spaces.candidate import Candidate


class Evaluator(Protocol):
    """Stages from cheap to dear. A stage sees a candidate, never a study; a candidate's failure is a value.

    Every method may raise `remote.errors.DeviceError`: the device's failure, which says nothing of the
    candidate.
    """

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Size and parity of the network with random weights."""
        ...

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Timing of the graph with random weights; may stop once surely above `limit_ms`."""
        ...

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Validation accuracy of the exported graph after `epochs` of fine-tuning."""
        ...

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Timing again, longer, of the very file that was scored."""
        ...

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Test accuracy of that file: for the report, never for the search."""
        ...

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Where that file lies, relative to the run folder; empty where there is none (a table)."""
        ...


class DeviceInspector(Protocol):
    """What only a real device can show of a finalist; a table has nothing of it."""

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        """In which precision the layers of the file that was scored really run."""
        ...

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """The device's answers to the validation images against those of the same graph on the host."""
        ...
