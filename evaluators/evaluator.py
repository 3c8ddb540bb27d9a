"""Define the interface between a search and an evaluator of candidates: a device, a table or a simulation."""

from __future__ import annotations

from typing import Protocol

from evaluators.layer_precision import LayerPrecision
from evaluators.measurement import Accuracy, Agreement, Failure, Latency, Structure
from spaces.candidate import Candidate


class Evaluator(Protocol):
    """Evaluate candidates in stages, from cheap to expensive.

    A stage receives a candidate and never a study. The failure of a candidate is a return value, not an exception.
    Every method may raise `remote.errors.DeviceError`, which means that the device failed and says nothing about the
    candidate.
    """

    def structure(self, candidate: Candidate) -> Structure | Failure:
        """Return the size of the network with random weights, and the parity of its exported graph with torch."""
        ...

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency | Failure:
        """Time the graph with random weights.

        Args:
            candidate: The graph to time is that of its precision and runtime.
            limit_ms: Budget in ms; timing may stop once the latency is surely above it. None never stops early.

        Returns:
            The latency, or the candidate's own failure.
        """
        ...

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the validation accuracy of the exported graph.

        Args:
            candidate: Candidate whose network is trained, unless an earlier call has trained it.
            epochs: Fidelity, in fine-tuning epochs; 0 takes the weights straight from the parent.

        Returns:
            The accuracy, or the candidate's own failure.
        """
        ...

    def confirm(self, candidate: Candidate, epochs: int) -> Latency | Failure:
        """Time the scored file itself again, with more samples.

        Args:
            candidate: A finalist.
            epochs: Fidelity at which it was scored, in fine-tuning epochs.

        Returns:
            The latency, or the candidate's own failure.
        """
        ...

    def test(self, candidate: Candidate, epochs: int) -> Accuracy | Failure:
        """Return the test accuracy of the scored file, which only the report may use and never the search.

        Args:
            candidate: A finalist.
            epochs: Fidelity at which it was scored, in fine-tuning epochs.

        Returns:
            The accuracy, or the candidate's own failure.
        """
        ...

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        """Return the path of the scored file relative to the run folder; empty if there is no file, as with a table.

        Args:
            candidate: A scored candidate.
            epochs: Fidelity at which it was scored, in fine-tuning epochs.
        """
        ...


class DeviceInspector(Protocol):
    """Inspect finalists in ways that require a real device; a table offers none of them."""

    def coverage(self, candidate: Candidate, epochs: int) -> LayerPrecision | Failure:
        """Return the precision in which each layer of the scored file really runs.

        Args:
            candidate: A finalist.
            epochs: Fidelity at which it was scored, in fine-tuning epochs.

        Returns:
            The precision by layer, or the candidate's own failure.
        """
        ...

    def agreement(self, candidate: Candidate, epochs: int) -> Agreement | Failure:
        """Compare the device's predictions for the validation images with those of the same graph on the host.

        Args:
            candidate: A finalist.
            epochs: Fidelity at which it was scored, in fine-tuning epochs.

        Returns:
            The agreement, or the candidate's own failure.
        """
        ...
