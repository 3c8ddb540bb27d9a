"""Structured pruning: whole channels go, so the smaller net is faster on any device.

Uniform: every layer loses the same fraction. (Ranking over all layers at once gives nets whose cost does not fall
evenly, and whose shape depends on the weights.) Which channels go is decided by their group's weight norm (Fang et
al. 2023, DepGraph), how many by `amount` alone: nets with random and with trained weights get the same shape, so a
latency measured on random weights holds. An amount is a fraction of channels: 0.5 leaves about a quarter of the work.
"""

from statistics import median

import torch
import torch_pruning
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spaces.network import Unbuildable, head_name


def apply(net: nn.Module, amount: float, example: torch.Tensor, classes: int) -> nn.Module:
    """`net` with `amount` (0..1) of every layer's channels removed, in place; the classifier keeps its outputs.

    `example` is one input (1, 3, H, W). A net may name layers that keep their width in `fixed_layers`.
    Raises Unbuildable if the net can't be cut or is no cheaper for it.
    """
    if amount == 0:
        return net
    if not 0 < amount < 1:
        raise Unbuildable(f"prune {amount:g} is not a fraction of channels: name one from 0 up to 1")
    fixed = [net.get_submodule(name) for name in (head_name(net), *getattr(net, "fixed_layers", ()))]
    before = macs(net, example)
    training = net.training
    try:
        torch_pruning.pruner.BasePruner(
            net.eval(),
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=amount,
            round_to=granularity(net),
            ignored_layers=fixed,
        ).step()
        after = macs(net, example)
    except Exception as error:  # whatever the pruner stumbles over is this candidate's failure
        raise Unbuildable(f"prune {amount:g}: {type(error).__name__}: {str(error)[:200]}") from error
    if after >= before:
        raise Unbuildable(f"prune {amount:g}: {after} multiply-accumulates, {before} without: none saved")
    return net.train(training)


def granularity(net: nn.Module) -> int:
    """What channel counts are rounded down to: 8, which kernels like; less for nets it would mutilate.

    Half the convolutions being 64 or wider makes a net one for 8. For others it is 4, 2 or 1: at most a quarter of
    the narrowest convolution.
    """
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    if median(widths) >= 64:
        return 8
    return next(step for step in (4, 2, 1) if step == 1 or step <= min(widths) // 4)


def macs(net: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of one forward pass: convolutions and matrix products, as counted by torch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example)
    return int(counter.get_total_flops() // 2)
