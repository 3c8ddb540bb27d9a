"""Summarise the precision in which a model's layers really ran, and the cost of format changes between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remote.device import Layer

# Types of nodes that compute nothing, as the runtimes name them: REFORMATS change a tensor's format, IDLE rename it.
REFORMATS = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "ReorderInput", "ReorderOutput", "Transpose",
    "MemcpyFromHost", "MemcpyToHost",  # ONNX Runtime
    "Quantize", "FakeQuantize", "Convert", "Reorder",  # OpenVINO
    "Reformat", "Quantization", "Dequantization",  # TensorRT
})  # fmt: skip
IDLE = frozenset({
    "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Constant", "Shape", "Gather", "Slice", "Concat", "Pad",
    "Input", "Output", "Const", "Parameter", "Result", "Shuffle", "NoOp", "Signal", "Wait",
})  # fmt: skip
EVEN = 0.02  # a ratio of latencies this close to 1 means neither faster nor slower


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """Summarise the precision of a graph's layers in a runtime on a device.

    A layer is a node that computes, after the runtime's own fusion: convolutions, products, sums, and poolings and
    activations that are not fused. Times come from a profiled run: their shares are accurate, but their sum exceeds the
    latency.

    Attributes:
        precision: Requested precision.
        layers: (precision, number of layers), most frequent first; "" stands for layers that do not report theirs.
        others: (type, number) of the layers that ran in another than the requested precision.
        reformats: Number of nodes that only change a format.
        reformat_share: Their share of the time of all nodes, 0..1; None where the runtime reports no times.
        other_share: The same share of the layers in another than the requested precision.
        untold: Reason why nothing is known.
        fp32_ratio: Rank latency relative to the same candidate in fp32, where that was timed.
    """

    precision: str
    layers: tuple[tuple[str, int], ...]
    others: tuple[tuple[str, int], ...]
    reformats: int
    reformat_share: float | None
    other_share: float | None
    untold: str = ""
    fp32_ratio: float | None = None

    @property
    def asked(self) -> int:
        """Return the number of layers in the requested precision."""
        return dict(self.layers).get(self.precision, 0)

    @property
    def count(self) -> int:
        """Return the number of all layers."""
        return sum(number for _, number in self.layers)

    @property
    def known(self) -> bool:
        """Return True if the runtime reports the precision of its layers."""
        return not self.untold and any(precision for precision, _ in self.layers)


def summarise(precision: str, layers: Sequence[Layer], untold: str) -> LayerPrecision:
    """Summarise the layers that a runtime reports.

    Args:
        precision: Requested precision.
        layers: All nodes of the graph, with type, precision and time.
        untold: Reason why the runtime reports nothing; empty if it reports layers.
    """
    work = [layer for layer in layers if layer.type not in REFORMATS | IDLE]
    reformats = [layer for layer in layers if layer.type in REFORMATS]
    others = [layer for layer in work if layer.precision != precision]
    whole_ms = sum(layer.ms for layer in layers)
    share = lambda some: sum(layer.ms for layer in some) / whole_ms if whole_ms else None  # noqa: E731
    if not untold and not any(layer.precision for layer in work):
        untold = "the runtime does not report the precision of its layers"
    return LayerPrecision(
        precision=precision,
        layers=tuple(Counter(layer.precision for layer in work).most_common()),
        others=tuple(Counter(layer.type for layer in others).most_common()),
        reformats=len(reformats),
        reformat_share=share(reformats),
        other_share=share(others),
        untold=untold,
    )


def sentence(coverage: LayerPrecision) -> str:
    """Return one plain sentence, without a name, that explains why this precision is or is not faster here."""
    name, ratio = coverage.precision, coverage.fp32_ratio
    if not coverage.known:
        return f"the layers that ran in {name} are unknown: {coverage.untold}"
    parts = [f"{coverage.asked} of {coverage.count} layers ran in {name}"]
    if coverage.asked < coverage.count:
        parts.append(f"the others, {_most(coverage.others)}, took {_percent(coverage.other_share)}")
    if coverage.reformats:
        many = "node takes" if coverage.reformats == 1 else "nodes take"
        share = _percent(coverage.reformat_share)
        parts.append(f"{coverage.reformats} {many} {share} for changing formats between them")
    said = "; ".join(parts)
    if ratio is None:
        return said
    if abs(1 - ratio) < EVEN:
        return f"{name} is as fast as fp32 here: {said}"
    if ratio < 1:
        return f"{name} is faster than fp32 here, taking {ratio:.2f} of its time: {said}"
    return f"{name} is slower than fp32 here, taking {ratio:.2f} times as long: {said}"


def from_dict(data: dict[str, Any]) -> LayerPrecision:
    """Restore a LayerPrecision from the result of `asdict`, after a round trip through JSON."""
    pairs = {name: tuple((str(key), int(count)) for key, count in data[name]) for name in ("layers", "others")}
    return LayerPrecision(**(data | pairs))


def _most(types: Sequence[tuple[str, int]]) -> str:
    named = [f"{count} {kind}" for kind, count in types[:3]]
    rest = sum(count for _, count in types[3:])
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _percent(share: float | None) -> str:
    return "an unreported time" if share is None else f"{100 * share:.0f} % of the time"
