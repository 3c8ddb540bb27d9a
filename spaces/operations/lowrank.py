"""Decompose layers into two or three thinner ones of low rank that compute nearly the same.

A convolution of k x k, k > 1, becomes 1 x 1, k x k, 1 x 1 by Tucker decomposition of its two channel modes (Kim et al.
2016, Tucker-2; by HOSVD); a 1 x 1 convolution or a linear layer becomes two layers by singular value decomposition. The
amount is the fraction of every rank that is removed, rounded as channels are. Shapes follow from the amount and the
layers' own shapes alone, so a latency measured with random weights remains valid after training.

Only layers that then need fewer multiply-accumulates are decomposed. Several kinds of layers stay as they are: the
classifier, grouped and depthwise convolutions, convolutions on a single pixel (squeeze-and-excitation), which have no
work to save, layers that `spaces.plain_layers` rejects, and layers of blocks that fold into one at deployment. The
layer's successor (BatchNorm, activation) follows the last of its parts.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from spaces.candidate import NoGainError, UnbuildableError
from spaces.channel_rounding import granularity, round_width
from spaces.folding import in_branches
from spaces.network import Gradients, count_macs, head_name
from spaces.plain_layers import is_plain


def apply(
    net: nn.Module,
    amount: float,
    example: torch.Tensor,
    classes: int,
    options: Mapping[str, str],
    gradients: Gradients | None = None,
) -> nn.Module:
    """Remove a fraction of every layer's ranks, in place, in the layers where this saves work.

    Args:
        net: The network to change.
        amount: Fraction of ranks to remove, between 0 and 1.
        example: One input (1, 3, H, W).
        classes: Not used.
        options: Not used.
        gradients: Not used.

    Raises:
        NoGainError: No layer saves work.
        UnbuildableError: The amount is out of range, or the network does not run with decomposed layers.
    """
    if not 0 < amount < 1:
        raise UnbuildableError(f"lowrank {amount:g} is not a fraction of ranks: name one from 0 up to 1")
    training = net.training
    try:
        before, step = count_macs(net.eval(), example), granularity(net)
        _take_apart(net, amount, example, step)
        after = count_macs(net, example)
    except Exception as error:  # a network may access attributes of its layers that decomposed ones lack
        reason = " ".join(str(error).split())[:200]
        raise UnbuildableError(f"lowrank {amount:g}: {type(error).__name__}: {reason}") from error
    if after >= before:
        raise NoGainError(f"lowrank {amount:g}: {after} multiply-accumulates, {before} without: none saved")
    return net.train(training)


def _take_apart(net: nn.Module, amount: float, example: torch.Tensor, step: int) -> None:
    for name in eligible(net, example):
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)  # `eligible` returns no other types
        ranks = ranks_of(layer, amount, step)
        if saves(layer, ranks):
            net.set_submodule(name, decompose(layer, ranks))


def ranks_of(layer: nn.Conv2d | nn.Linear, amount: float, step: int) -> tuple[int, int]:
    """Compute the ranks that a layer keeps.

    Args:
        layer: The layer to decompose.
        amount: Fraction of ranks to remove, 0..1.
        step: Multiple that ranks are rounded to.

    Returns:
        Ranks of the inputs and of the outputs; for a matrix both are the same number.
    """
    outputs, inputs = layer.weight.shape[:2]
    if not _spatial(layer):
        rank = round_width(min(inputs, outputs), amount, step)
        return rank, rank
    return round_width(inputs, amount, step), round_width(outputs, amount, step)


def saves(layer: nn.Conv2d | nn.Linear, ranks: tuple[int, int]) -> bool:
    """Return whether the decomposed layer needs fewer multiply-accumulates.

    Args:
        layer: The layer to decompose.
        ranks: Ranks of the inputs and of the outputs.
    """
    (outputs, inputs), (first, last) = layer.weight.shape[:2], ranks
    if not isinstance(layer, nn.Conv2d) or not _spatial(layer):
        return first * (inputs + outputs) < inputs * outputs
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    narrow = inputs * first * layer.stride[0] * layer.stride[1] if first < inputs else 0  # on the map before the stride
    widen = last * outputs if last < outputs else 0
    return narrow + first * kernel * last + widen < inputs * kernel * outputs


@torch.no_grad()
def decompose(layer: nn.Conv2d | nn.Linear, ranks: tuple[int, int]) -> nn.Module:
    """Decompose a layer into parts that together approximate it at the given ranks; at full ranks they are exact.

    All parts but the last have rows of unit norm, so that one scale serves every channel in between, as int8 needs.

    Args:
        layer: The layer to decompose; it is not changed.
        ranks: Ranks of the inputs and of the outputs.

    Returns:
        A Sequential of the parts; `layer` itself if it is grouped or not plain, since its parts would compute something
        else.
    """
    if not is_plain(layer) or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        return layer
    if isinstance(layer, nn.Conv2d) and _spatial(layer):
        return _tucker(layer, *ranks)
    first, last = _factors(layer.weight.double().flatten(1), ranks[0])
    if isinstance(layer, nn.Linear):
        return nn.Sequential(_linear(first, None), _linear(last, layer.bias))
    return nn.Sequential(_like(layer, first[:, :, None, None]), _pointwise(last, layer.bias))


def _factors(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor `weight` (outputs, inputs) into the (rank, inputs) and (outputs, rank) with the nearest product."""
    outputs, inputs = weight.shape
    if inputs <= outputs:
        first = _leading(weight.T, rank).T
        return first, weight @ first.T
    last = _leading(weight, rank)
    first, norms = _unit_rows(last.T @ weight)
    return first, last * norms


def _tucker(layer: nn.Conv2d, first: int, last: int) -> nn.Sequential:
    weight = layer.weight.double()  # (outputs, inputs, k, k)
    outputs, inputs = weight.shape[:2]
    parts: list[nn.Module] = []
    if first < inputs:
        narrow = _leading(weight.transpose(0, 1).flatten(1), first)  # (inputs, first)
        parts.append(_pointwise(narrow.T, None))
        weight = torch.einsum("oikl,ir->orkl", weight, narrow)
    if last == outputs:
        return nn.Sequential(*parts, _like(layer, weight, layer.bias))
    widen = _leading(weight.flatten(1), last)  # (outputs, last)
    core, norms = _unit_rows(torch.einsum("oikl,or->rikl", weight, widen))
    return nn.Sequential(*parts, _like(layer, core), _pointwise(widen * norms, layer.bias))


def _leading(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the first left singular vectors (N, rank) of (N, M), as eigenvectors of the N x N product."""
    vectors: torch.Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, :rank]
    return vectors


def _unit_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide each row of (rows, ...) by its norm; return the result and the norms (rows,)."""
    norms = weight.flatten(1).norm(dim=1).clamp(min=1e-12)
    return weight / norms.view(-1, *[1] * (weight.ndim - 1)), norms


def _like(layer: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Conv2d:
    """Copy a convolution with other weights; a subclass keeps its own padding."""
    made = copy.deepcopy(layer)
    made.weight, made.bias = _float(weight), bias
    made.out_channels, made.in_channels = weight.shape[:2]
    return made


def _pointwise(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    made.weight, made.bias = _float(weight[:, :, None, None]), bias
    return made


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight, made.bias = _float(weight), bias  # type: ignore[assignment]
    return made


def _float(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight.float().contiguous())


def eligible(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Find the layers that may be decomposed.

    Args:
        net: The network, which runs once.
        example: One input (1, 3, H, W).

    Returns:
        Names of the layers, in the order in which they run.
    """
    found, hooks = [], []
    head = net.get_submodule(head_name(net))

    def look(name: str, output: torch.Tensor) -> None:
        single = isinstance(net.get_submodule(name), nn.Conv2d) and output.shape[2] * output.shape[3] == 1
        if not single and name not in found:
            found.append(name)

    inside = in_branches(net)
    for name, layer in net.named_modules():
        if layer is head or layer in inside or not is_plain(layer):
            continue
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            hooks.append(layer.register_forward_hook(lambda _, __, output, name=name: look(name, output)))
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    return found


def _spatial(layer: nn.Conv2d | nn.Linear) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
