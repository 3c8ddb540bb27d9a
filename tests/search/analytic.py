"""An evaluator whose answers are formulas: for tests of the search, said to be simulated."""

from __future__ import annotations

from evaluators.measurement import Accuracy, Failure, Interval, Latency, Structure
from spaces.candidate import Candidate

WIDTH = {
    "res8_w4_s2": 1.0,
    "res8_w8_s2": 2.0,
    "res8_w16_s2": 4.0,
    "res8_w32_s2": 6.0,
    "res14_w16_s2": 5.0,
    "mb_w8": 1.5,
    "mb_w16": 3.0,
}


class Analytic:
    """Cost grows with width and area, falls with pruning and int8; accuracy saturates with cost.

    `broken` maps a candidate's key to a Failure of its structure. Every call is counted in `calls`.
    """

    def __init__(self, broken: dict[str, Failure] | None = None, confirm_factor: float = 1.0) -> None:
        self.broken = broken or {}
        self.confirm_factor = confirm_factor
        self.calls: list[tuple[str, str]] = []

    def cost(self, c: Candidate) -> float:
        kept = 1 - c.amount("prune")
        speed = {"fp32": 1.0, "fp16": 0.9, "int8": 0.6}[c.precision]
        return WIDTH[c.variant] * (c.image_px / 32) ** 2 * kept**1.5 * speed

    def top1(self, c: Candidate, epochs: int) -> float:
        loss = 0.02 if c.precision == "int8" else 0.0
        size = WIDTH[c.variant] * (c.image_px / 32) * (1 - c.amount("prune"))
        epochs = epochs if c.steps else 10  # an uncut network starts from trained weights
        return (1 - 0.35 / (0.5 + size)) * (1 - 0.3 * 0.4**epochs) - loss

    def structure(self, candidate: Candidate) -> Structure | Failure:
        self.calls.append(("structure", candidate.key()))
        if candidate.key() in self.broken:
            return self.broken[candidate.key()]
        return Structure(
            parameters=int(1e4 * self.cost(candidate)),
            macs=int(1e6 * self.cost(candidate)),
            onnx_bytes=1000,
            parity_max_abs=0.0,
            exporter="none",
            opset=13,
        )

    def latency(self, candidate: Candidate, limit_ms: float | None) -> Latency:
        self.calls.append(("latency", candidate.key()))
        return self._latency(candidate, 1.0)

    def accuracy(self, candidate: Candidate, epochs: int) -> Accuracy:
        self.calls.append(("accuracy", f"{candidate.key()}@{epochs}"))
        return self._accuracy(candidate, epochs, "validation")

    def confirm(self, candidate: Candidate, epochs: int) -> Latency:
        self.calls.append(("confirm", candidate.key()))
        return self._latency(candidate, self.confirm_factor)

    def test(self, candidate: Candidate, epochs: int) -> Accuracy:
        self.calls.append(("test", candidate.key()))
        return self._accuracy(candidate, epochs, "test")

    def model_path(self, candidate: Candidate, epochs: int) -> str:
        return ""

    def _accuracy(self, candidate: Candidate, epochs: int, split: str) -> Accuracy:
        correct = round(1000 * self.top1(candidate, epochs))
        return Accuracy(
            top1=correct / 1000,
            correct=correct,
            count=1000,
            epochs=epochs,
            split=split,
            model_sha256=candidate.graph_key(),
        )

    def _latency(self, candidate: Candidate, factor: float) -> Latency:
        ms = self.cost(candidate) * factor
        about = Interval(ms, 0.98 * ms, 1.02 * ms)
        return Latency(
            percentile=95.0,
            percentile_ms=about,
            median_ms=about,
            rank_ms=about,
            peak_mb=50 + 10 * ms,
            runtime_mb=44.0,
            load_ms=1.0,
            samples=80,
            blocks=2,
            repeated=0,
            disturbed="",
            model_sha256="0" * 64,
            runtime_version="formula",
            simulated=True,
        )
