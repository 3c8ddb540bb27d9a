"""Fold networks that are trained in branches into fewer layers for deployment: RepVGG, MobileOne, FastViT and others.

A block can be folded if it has one of the methods that timm's and the papers' code define for it. The folded network is
exported, timed and scored; the branches are trained and pruned.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Set

import torch
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.memory_errors import is_out_of_memory

# `fuse` returns the layer that replaces the block; the other methods change the block in place.
METHODS = ("fuse", "reparameterize", "switch_to_deploy")
AGREEMENT = 1e-3  # largest accepted difference relative to the largest output; folding rounds weights to fp32


def can_fold(block: nn.Module) -> bool:
    """Return whether a block has a folding method that needs no arguments."""
    return _method(block) is not None


def in_branches(net: nn.Module) -> Set[nn.Module]:
    """Return all modules inside blocks that can be folded, since the folding methods rely on the modules' types."""
    blocks = [module for module in net.modules() if module is not net and can_fold(module)]
    return {part for block in blocks for part in block.modules()}


@torch.no_grad()
def fold(net: nn.Module, image_px: int) -> nn.Module:
    """Return a copy of `net` in eval mode whose blocks are folded; `net` itself if it has no such block.

    Args:
        net: A network in any mode; it is not changed.
        image_px: Side in px of the square input on which both networks are compared.

    Raises:
        UnbuildableError: Folding fails, or the folded network's outputs differ by more than `AGREEMENT`.
    """
    if not any(can_fold(module) for module in net.modules() if module is not net):
        return net
    before = copy.deepcopy(net).double().eval()  # in double precision, so that any difference is due to the folding
    image = torch.randn(1, 3, image_px, image_px, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = image.to(next(net.parameters()).device)
    try:
        after = copy.deepcopy(net).eval()
        _fold(after)
        wanted, found = before(image), copy.deepcopy(after.eval()).double()(image)
    except Exception as error:  # the blocks' own code may rely on pruned channels
        raise UnbuildableError(f"its branches can't be folded: {' '.join(str(error).split())[:200]}") from error
    off = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-30))
    if not off <= AGREEMENT:
        raise UnbuildableError(
            f"its branches can't be folded: the folded network is off by {off:.2g} of its largest output"
        )
    return after


def fold_for_export(net: nn.Module, image_px: int, is_cut: bool) -> tuple[nn.Module, str]:
    """Fold a network for export; return an uncompressed one as it is, with the reason, if its folding fails.

    Args:
        net: The network, which is not changed.
        image_px: Side of its square input, in px.
        is_cut: Whether the network was pruned, decomposed or made sparse.

    Returns:
        The folded network and an empty string, or `net` itself and the one-line reason why it cannot be folded.

    Raises:
        UnbuildableError: A compressed network cannot be folded; with its branches it would be slower than the
            uncompressed one. Or memory is short, which does not depend on the network.
    """
    try:
        return fold(net, image_px), ""
    except UnbuildableError as error:
        if is_cut or is_out_of_memory(error):
            raise
        return net, str(error)


def _fold(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        method = _method(child)
        if method == "fuse":
            child = child.fuse()  # type: ignore[operator]
            setattr(module, name, child)
        elif method is not None:
            _count_channels(child)
            getattr(child, method)()
        _fold(child)


def _count_channels(block: nn.Module) -> None:
    """Update the channel counts that a block of equal branches stores, since its folding method relies on them."""
    layers = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    if len({(layer.in_channels, layer.out_channels, layer.groups) for layer in layers}) != 1:
        return
    inputs, outputs, groups = layers[0].in_channels, layers[0].out_channels, layers[0].groups
    counts = {"in_chs": inputs, "in_channels": inputs, "out_chs": outputs, "out_channels": outputs, "groups": groups}
    for name, count in counts.items():
        if type(getattr(block, name, None)) is int:
            setattr(block, name, count)


def _method(block: nn.Module) -> str | None:
    for name in METHODS:
        if callable(method := getattr(block, name, None)) and not isinstance(method, nn.Module):
            needed = [
                p
                for p in inspect.signature(method).parameters.values()
                if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            ]
            if not needed:
                return name
    return None
