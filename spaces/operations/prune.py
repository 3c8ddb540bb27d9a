"""Structured pruning: whole channels go, so the smaller net is faster on any device.

Uniform: every layer loses the same fraction. (Ranking over all layers at once gives nets whose cost does not fall
evenly, and whose shape depends on the weights.) Which channels go is decided by the norm of all weights that belong
to them (Fang et al. 2023, DepGraph), how many by `amount` alone: nets with random and with trained weights get the
same shape, so a latency measured on random weights holds, and a larger amount never leaves a wider layer. An amount
is a fraction of channels: 0.5 leaves about a quarter of the work.

The dependency graph and the norms are torch-pruning's. Its pruner's own rounding is not used: it rounds down, so that
a tenth of 16 channels takes half of them, and where rounding leaves none, as in grouped convolutions, takes nothing.
"""

from math import gcd
from statistics import median
from typing import Any

import torch
import torch_pruning
from torch import nn

from spaces.network import Unbuildable, count_macs, head_name


def apply(net: nn.Module, amount: float, example: torch.Tensor, classes: int) -> nn.Module:
    """`net` with `amount` (0..1) of every layer's channels removed, in place; the classifier keeps its outputs.

    `example` is one input (1, 3, H, W). A net may name layers that keep their width in `fixed_layers`.
    Raises Unbuildable if the net can't be cut or is no cheaper for it.
    """
    if amount == 0:
        return net
    if not 0 < amount < 1:
        raise Unbuildable(f"prune {amount:g} is not a fraction of channels: name one from 0 up to 1")
    training = net.training
    try:
        before = count_macs(net.eval(), example)
        _cut(net, amount, example)
        after = count_macs(net, example)
    except Exception as error:  # whatever the pruner stumbles over is this candidate's failure
        reason = " ".join(str(error).split())[:200]
        raise Unbuildable(f"prune {amount:g}: {type(error).__name__}: {reason}") from error
    if after >= before:
        raise Unbuildable(f"prune {amount:g}: {after} multiply-accumulates, {before} without: none saved")
    return net.train(training)


def granularity(net: nn.Module) -> int:
    """What channel counts are rounded to a multiple of: 8, which kernels like; less for nets it would mutilate.

    Half the convolutions being 64 or wider makes a net one for 8. For others it is 4, 2 or 1: at most a quarter of
    the narrowest convolution.
    """
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    if median(widths) >= 64:
        return 8
    return next(step for step in (4, 2, 1) if step == 1 or step <= min(widths) // 4)


def kept(width: int, amount: float, step: int) -> int:
    """Channels left of `width`: the nearest multiple of `step`, at least one step, never more than there are."""
    return min(width, max(step, step * int(width * (1 - amount) / step + 0.5)))


def _cut(net: nn.Module, amount: float, example: torch.Tensor) -> None:
    graph = torch_pruning.DependencyGraph().build_dependency(net, example)
    norms = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    fixed = [net.get_submodule(name) for name in (head_name(net), *getattr(net, "fixed_layers", ()))]
    groups = graph.get_all_groups(ignored_layers=fixed, root_module_types=[nn.Conv2d, nn.Linear])
    step = granularity(net)
    # All are chosen before any is cut: a cut changes the indices of what comes after.
    cuts = [(group[0].dep, _weakest(group, norms(group), amount, step)) for group in list(groups)]
    for root, channels in cuts:
        cut = graph.get_pruning_group(root.target.module, root.handler, channels) if channels else None
        if cut is not None and graph.check_pruning_group(cut):
            cut.prune()


def _weakest(group: Any, strength: torch.Tensor, amount: float, step: int) -> list[int]:
    # Channels of one group of layers that must go together. A grouped convolution loses the same places in each of
    # its groups, and rounds their sum.
    parts = max(_parts(dep.target.module) for dep, _ in group)
    width = len(strength) // parts
    part_step = step // gcd(step, parts)
    while parts > 1 and part_step > max(1, width // 4):
        part_step //= 2
    weak = strength.view(parts, width).mean(0).argsort(stable=True)[: width - kept(width, amount, part_step)]
    return sorted(int(place) + part * width for place in weak for part in range(parts))


def _parts(layer: nn.Module) -> int:
    grouped = isinstance(layer, nn.Conv2d) and layer.groups not in (1, layer.out_channels)
    return int(layer.groups) if grouped else 1  # type: ignore[arg-type]
