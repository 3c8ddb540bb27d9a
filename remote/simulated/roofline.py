"""Estimate the latency of a graph by the roofline model: each layer takes its arithmetic or its bytes, the longer.

S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model", 2009. The estimate is rough:
it has no caches, no choice of kernels, and no clocks that move.
"""

from __future__ import annotations

from remote.simulated.boards import Processor
from remote.simulated.graph import GraphWork, Layer

THREADS_GAIN = 0.9  # exponent of the speed-up by threads


def latency_ms(work: GraphWork, unit: Processor, threads: int = 1) -> float:
    """Return the milliseconds of one run.

    Args:
        work: The work of the graph.
        unit: The processor.
        threads: Cores of a CPU; 1 for a GPU, which is one unit as a whole.
    """
    return sum(_layer_ms(layer, unit, threads) for layer in work.layers)


def _layer_ms(layer: Layer, unit: Processor, threads: int) -> float:
    moving_ms = layer.bytes / unit.gbytes_s / 1e6
    if layer.kind == "fused":
        return moving_ms
    share = unit.depthwise_share if layer.kind == "depthwise" else unit.dense_share
    rate = unit.gmacs[layer.precision] * share * threads**THREADS_GAIN
    return max(layer.macs / rate / 1e6, moving_ms) + unit.overhead_us / 1e3
