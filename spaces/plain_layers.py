"""Identify layers whose output follows from their weights alone, so that an operation may replace the weights."""

from __future__ import annotations

from torch import nn

# Classes that differ from a convolution only in their padding, which every part of a decomposed layer keeps.
PADDING_ONLY = ("spaces.families.mobilenet_v1.SameConv2d", "timm.layers.conv2d_same.Conv2dSame")


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is an ordinary linear layer or convolution.

    Standardised, normalised or parametrized weights, hooks, and an overridden forward make the output differ from what
    the stored weights give. A change of those weights would then not have the same effect on the layer.
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
