"""Remove whole channels (structured pruning), so that the smaller network is faster on any device.

The number of channels that a layer loses follows from the amount and `where` alone. The criterion `by` selects the
channels from the weights. Networks with random and with trained weights thus get the same shapes, so a latency measured
with random weights remains valid, and a larger amount never leaves a wider layer. (Ranking over all layers at once,
called global, is not offered for this reason: its shapes follow from the weights, and its cost does not fall evenly.)
The amount is a fraction of channels: 0.5 leaves about a quarter of the work.

`where`: `even` takes the same fraction of every layer; `early` and `late` take up to half as much again from the
layers at that end of the network and as much less from those at the other end; the mean is the amount.

`by`: `magnitude` is the norm of all weights that belong to a channel (Fang et al. 2023, DepGraph); `batchnorm` is the
scale that its BatchNorms give it (Liu et al. 2017, network slimming); `taylor` is the first-order change of the loss if
the channel is removed (Molchanov et al. 2019). Magnitude decides ties, and all cases that a criterion does not cover:
layers without a BatchNorm, and networks without gradients.

`to`: rounding of channel counts (`spaces/channel_rounding.py`). No space names it; the measured latency steps of the
device decide it.

The dependency graph and the criteria are torch-pruning's. Its pruner's own rounding is not used: it rounds down, so
a tenth of 16 channels removes half of them, and if rounding leaves none, as in grouped convolutions, it removes
nothing.
"""

from collections.abc import Mapping
from math import gcd

import torch
import torch_pruning
from torch import nn

from spaces.candidate import NoGainError, UnbuildableError
from spaces.channel_rounding import granularity, round_width, rounding
from spaces.network import Gradients, count_macs, head_name
from spaces.operation_specs import DECLARED

OPTIONS = {"by": ("magnitude", "batchnorm", "taylor"), "where": ("even", "early", "late")}
MEASURED = {"to": "declared"}
EXCLUDED = {
    ("shufflenet_v2", ""): "its channel shuffle divides by zero in the pruner (torch-pruning 1.6.1)",
    ("squeezenet", "batchnorm"): "it has no BatchNorm",
}
TILT = 0.5  # largest change at the ends, as a fraction of min(amount, 1 - amount)


def apply(
    net: nn.Module,
    amount: float,
    example: torch.Tensor,
    classes: int,
    options: Mapping[str, str],
    gradients: Gradients | None = None,
) -> nn.Module:
    """Remove a fraction of a network's channels, in place; the classifier keeps its outputs.

    A network may name layers that keep their width in `fixed_layers`.

    Args:
        net: The network to change.
        amount: Mean fraction of channels to remove, between 0 and 1.
        example: One input (1, 3, H, W).
        classes: Not used.
        options: Values of `by`, `where` and `to`.
        gradients: Source of gradients for `taylor`.

    Raises:
        NoGainError: The pruned network needs no fewer multiply-accumulates.
        UnbuildableError: The amount is out of range, or the network cannot be pruned.
    """
    if not 0 < amount < 1:
        raise UnbuildableError(f"prune {amount:g} is not a fraction of channels: name one from 0 up to 1")
    if options["by"] == "batchnorm" and not any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        raise UnbuildableError(
            f"prune {amount:g} by batchnorm: the net has no BatchNorm; prune it by another criterion"
        )
    training = net.training
    try:
        before = count_macs(net.eval(), example)
        _cut(net, amount, example, options, gradients)
        after = count_macs(net, example)
    except Exception as error:  # any error of the pruner is the candidate's failure
        reason = " ".join(str(error).split())[:200]
        raise UnbuildableError(f"prune {amount:g}: {type(error).__name__}: {reason}") from error
    if after >= before and "-" not in options["to"]:
        raise NoGainError(f"prune {amount:g}: {after} multiply-accumulates, {before} without: none saved")
    return net.train(training)


def tilt_amount(amount: float, depth: float, where: str) -> float:
    """Return the amount for one layer; over evenly spaced depths the mean is `amount`.

    Args:
        amount: Fraction of channels to remove, 0..1.
        depth: Position of the layer, from 0 (first) to 1 (last).
        where: `even`, `early` or `late`.
    """
    most = TILT * min(amount, 1 - amount)
    return amount + {"even": 0.0, "early": most, "late": -most}[where] * (1 - 2 * depth)


def _cut(
    net: nn.Module, amount: float, example: torch.Tensor, options: Mapping[str, str], gradients: Gradients | None
) -> None:
    graph = torch_pruning.DependencyGraph().build_dependency(net, example)
    names = (head_name(net), *getattr(net, "fixed_layers", ()))
    fixed = [layer for name in names for layer in net.get_submodule(name).modules()]  # several if decomposed
    groups = list(graph.get_all_groups(ignored_layers=fixed, root_module_types=[nn.Conv2d, nn.Linear]))
    scores = _scores(net, groups, options["by"], gradients)
    step, to, depths = granularity(net), options["to"], _depths(net, graph, groups)
    # All channels are selected before any is removed, since a removal changes the indices of later layers.
    cuts = [
        (group[0].dep, _weakest(group, score, tilt_amount(amount, depth, options["where"]), step, to))
        for group, score, depth in zip(groups, scores, depths, strict=True)
    ]
    for root, channels in cuts:
        cut = graph.get_pruning_group(root.target.module, root.handler, channels) if channels else None
        if cut is not None and graph.check_pruning_group(cut):
            cut.prune()


def _scores(
    net: nn.Module, groups: list[torch_pruning.dependency.Group], by: str, gradients: Gradients | None
) -> list[torch.Tensor]:
    """Score the channels of each group of dependent layers: (2, channels), by the criterion and by magnitude."""
    norms = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    plain = [norms(group) for group in groups]
    if by == "batchnorm":
        scale = torch_pruning.importance.BNScaleImportance()
        first = [scale(group) for group in groups]
    elif by == "taylor" and gradients is not None:
        first = _taylor(net, groups, gradients)
    else:
        first = plain
    return [torch.stack([a if a is not None else b, b]) for a, b in zip(first, plain, strict=True)]


def _taylor(net: nn.Module, groups: list[torch_pruning.dependency.Group], gradients: Gradients) -> list[torch.Tensor]:
    """Score each channel by |sum of weight x gradient|, averaged over batches.

    The gradients of all images together would cancel out near a minimum. torch-pruning's default sums |weight x
    gradient|, which measured no better than norms.
    """
    change = torch_pruning.importance.GroupTaylorImportance(multivariable=True, normalizer=None)
    batches = [[change(group) for group in groups] for _ in gradients(net)]
    net.zero_grad()
    return [torch.stack(scores).mean(0) for scores in zip(*batches, strict=True)]


def _depths(
    net: nn.Module, graph: torch_pruning.DependencyGraph, groups: list[torch_pruning.dependency.Group]
) -> list[float]:
    """Return the depth of each group, evenly spaced in 0..1: the rank of the mean index of its narrowed layers."""
    places = {layer: place for place, layer in enumerate(net.modules())}

    def place(group: torch_pruning.dependency.Group) -> float:
        narrowed = [d.target.module for d, _ in group if graph.is_out_channel_pruning_fn(d.handler)]
        found = [places[layer] for layer in narrowed if isinstance(layer, nn.Conv2d | nn.Linear)]
        return sum(found) / len(found)

    order = sorted(range(len(groups)), key=lambda i: place(groups[i]))
    return [order.index(i) / (len(groups) - 1) if len(groups) > 1 else 0.5 for i in range(len(groups))]


def _weakest(
    group: torch_pruning.dependency.Group, score: torch.Tensor, amount: float, step: int, to: str
) -> list[int]:
    # Returns the channels of one group of layers to remove. A grouped convolution loses the same channels in each of
    # its groups, and their sum is rounded.
    parts = max(_parts(dep.target.module) for dep, _ in group)
    width = score.shape[1] // parts
    stay = (
        rounding(to).left(width, amount, parts)
        if to != DECLARED
        else round_width(width, amount, _part_step(width, parts, step))
    )
    first, second = score.view(2, parts, width).mean(1)
    order = second.argsort(stable=True)
    order = order[first[order].argsort(stable=True)]
    weak = order[: width - stay]
    return sorted(int(place) + part * width for place in weak for part in range(parts))


def _part_step(width: int, parts: int, step: int) -> int:
    # Returns the multiple for each of `parts`, so that their sum is a multiple of `step`. It is smaller if too few
    # widths would remain.
    part_step = step // gcd(step, parts)
    while parts > 1 and part_step > max(1, width // 4):
        part_step //= 2
    return part_step


def _parts(layer: nn.Module) -> int:
    grouped = isinstance(layer, nn.Conv2d) and layer.groups not in (1, layer.out_channels)
    return int(layer.groups) if grouped else 1  # type: ignore[arg-type]
