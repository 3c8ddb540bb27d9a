"""2:4 sparsity: of every four weights along a layer's inputs the two smallest are zero, and stay zero when it learns.

Shapes stay as they are, so it is faster only where zeros are skipped: in TensorRT on NVIDIA's tensor cores from
compute capability 8.0 on, which do twice the work in the same time then (Mishra et al. 2021, Accelerating Sparse Deep
Neural Networks). Elsewhere a space is cut to do without. The amount is 0 or 0.5.

Sparse become convolutions and linear layers whose inputs come in fours, as TensorRT wants them: at each output and
each pixel of the kernel. Left alone are the classifier, grouped and depthwise convolutions, layers whose weights
are not used as they are (`spaces.plain_layers`), and those of blocks that fold into one at deployment. Which weights
are zero follows from the weights, how many does not; random weights have as many, so a latency measured on them holds.
"""

from collections.abc import Mapping

import torch
from torch import nn

from spaces.candidate import NoGainError, UnbuildableError
from spaces.folding import in_branches
from spaces.network import Gradients, head_name
from spaces.plain_layers import is_plain

LAST = True  # what would change the order of a layer's inputs comes before
AMOUNT = 0.5


def apply(
    net: nn.Module,
    amount: float,
    example: torch.Tensor,
    classes: int,
    options: Mapping[str, str],
    gradients: Gradients | None = None,
) -> nn.Module:
    """`net` with half of the weights of every layer that can be sparse set to zero for good, in place.

    Raises Unbuildable for another amount than 0 and 0.5, its NoGain if there is no such layer.
    """
    if amount != AMOUNT:
        raise UnbuildableError(f"sparse {amount:g} is not what the hardware skips: name 0 or {AMOUNT:g}")
    found = eligible(net)
    if not found:
        raise NoGainError(f"sparse {amount:g}: no layer of the net has its inputs in fours")
    for layer in found:
        with torch.no_grad():
            layer.weight.mul_(largest_two(layer.weight))
        hold_zeros(layer.weight)
    return net


def eligible(net: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers that become sparse."""
    head, inside = net.get_submodule(head_name(net)), in_branches(net)
    return [
        layer
        for layer in net.modules()
        if is_plain(layer)
        and layer not in inside
        and (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
        and layer is not head
        and layer.weight.shape[1] % 4 == 0
    ]


def largest_two(weight: torch.Tensor) -> torch.Tensor:
    """1 for the two largest of every four inputs, else 0: the shape of `weight` (outputs, inputs, ...)."""
    fours = weight.detach().abs().unflatten(1, (-1, 4))
    return torch.zeros_like(fours).scatter_(2, fours.topk(2, dim=2).indices, 1.0).flatten(1, 2)


def hold_zeros(weight: torch.Tensor) -> None:
    """What is zero of a parameter has no gradient from now on, so no optimizer moves it."""
    weight.register_hook(lambda gradient: gradient * (weight != 0))


def is_sparse(weight: torch.Tensor) -> bool:
    """True if half of a layer's weights or more are zero: no dense layer's are."""
    return weight.ndim > 1 and 2 * int((weight != 0).sum()) <= weight.numel()
