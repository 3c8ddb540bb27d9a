"""Layers that compute what their weights alone say: those that an operation may give other weights."""

from __future__ import annotations

from torch import nn

# Classes whose only difference from a convolution is how they pad, which every part of a layer keeps.
PADDING_ONLY = ("spaces.families.mobilenet_v1.SameConv2d", "timm.layers.conv2d_same.Conv2dSame")


def is_plain(layer: nn.Module) -> bool:
    """Return True for a linear layer or a convolution, and no kind of its own.

    Standardised, normalised or parametrized weights, hooks, and a forward of its own make a layer compute something
    else than its weights say: what is done to the weights then does not do the same to the layer.
    """
    kind = type(layer)
    known = kind in (nn.Conv2d, nn.Linear) or f"{kind.__module__}.{kind.__qualname__}" in PADDING_ONLY
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return (
        known
        and "weight" in dict(layer.named_parameters(recurse=False))
        and not hooked
        and ("forward" not in vars(layer))
    )
