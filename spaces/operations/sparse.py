"""Apply 2:4 sparsity: set the two smallest of every four weights along a layer's inputs to zero, also during training.

Shapes stay as they are, so the network is faster only if zeros are skipped: in TensorRT on NVIDIA's tensor cores from
compute capability 8.0 on, which then do twice the work in the same time (Mishra et al. 2021, Accelerating Sparse Deep
Neural Networks). On other devices the space loses this axis. The amount is 0 or 0.5.

Convolutions and linear layers become sparse if their number of inputs is a multiple of four, as TensorRT requires, at
each output and each pixel of the kernel. Several kinds of layers stay dense: the classifier, grouped and depthwise
convolutions, layers that `spaces.plain_layers` rejects, and layers of blocks that fold into one at deployment. The
weights decide which of them become zero but not how many, so a latency measured with random weights remains valid.
"""

from collections.abc import Mapping

import torch
from torch import nn

from spaces.candidate import NoGainError, UnbuildableError
from spaces.folding import in_branches
from spaces.network import Gradients, head_name
from spaces.plain_layers import is_plain

LAST = True  # an operation that changes the order of a layer's inputs must come before
AMOUNT = 0.5


def apply(
    net: nn.Module,
    amount: float,
    example: torch.Tensor,
    classes: int,
    options: Mapping[str, str],
    gradients: Gradients | None = None,
) -> nn.Module:
    """Set half of the weights of every eligible layer to zero permanently, in place.

    Args:
        net: The network to change.
        amount: Fraction of weights to set to zero, which must be 0.5.
        example: Not used.
        classes: Not used.
        options: Not used.
        gradients: Not used.

    Raises:
        NoGainError: No layer is eligible.
        UnbuildableError: The amount is not 0.5.
    """
    if amount != AMOUNT:
        raise UnbuildableError(f"sparse {amount:g} is not supported by the hardware: name 0 or {AMOUNT:g}")
    found = eligible(net)
    if not found:
        raise NoGainError(f"sparse {amount:g}: no layer of the network has inputs in groups of four")
    for layer in found:
        with torch.no_grad():
            layer.weight.mul_(largest_two(layer.weight))
        hold_zeros(layer.weight)
    return net


def eligible(net: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Find the layers that become sparse."""
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
    """Mark the two largest of every four inputs by 1, others by 0, in the shape of `weight` (outputs, inputs, ...)."""
    fours = torch.unflatten(weight.detach().abs(), 1, (-1, 4))
    return torch.zeros_like(fours).scatter_(2, fours.topk(2, dim=2).indices, 1.0).flatten(1, 2)


def hold_zeros(weight: torch.Tensor) -> None:
    """Hold a parameter's zeros by setting their gradient to zero from now on, so that no optimizer changes them.

    Args:
        weight: A parameter with its zeros in place, of any shape.
    """
    # torch has no types for this method
    weight.register_hook(lambda gradient: gradient * (weight != 0))  # type: ignore[no-untyped-call]


def is_sparse(weight: torch.Tensor) -> bool:
    """Return whether at least half of a layer's weights are zero, which no dense layer reaches.

    Args:
        weight: A parameter of any shape; a vector is never sparse.
    """
    return weight.ndim > 1 and 2 * int((weight != 0).sum()) <= weight.numel()
