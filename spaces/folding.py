"""Networks that are trained in branches and deployed folded into fewer layers: RepVGG, MobileOne, FastViT and the like.

A block says that it folds by having one of the methods that timm's and the papers' code give it. What is exported,
timed and scored is the folded network; what is trained and pruned are the branches.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Set

import torch
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.memory import is_out_of_memory

METHODS = ("fuse", "reparameterize", "switch_to_deploy")  # the first returns what takes the block's place
AGREEMENT = 1e-3  # largest difference of the outputs, of their largest: folded weights are rounded to single precision


def can_fold(block: nn.Module) -> bool:
    """Return True if a block has a method that folds it and that needs no arguments."""
    return _method(block) is not None


def in_branches(net: nn.Module) -> Set[nn.Module]:
    """Return all modules that are part of a block that folds: its method relies on their kind."""
    blocks = [module for module in net.modules() if module is not net and can_fold(module)]
    return {part for block in blocks for part in block.modules()}


@torch.no_grad()
def fold(net: nn.Module, image_px: int) -> nn.Module:
    """Return a copy of `net` in eval mode whose blocks are folded; `net` itself where none can be.

    Args:
        net: a network in whatever mode; left as it is.
        image_px: side of the square input that both are compared on.

    Raises:
        Unbuildable: the folded network is none, or does not compute the same.
    """
    if not any(can_fold(module) for module in net.modules() if module is not net):
        return net
    before = copy.deepcopy(net).double().eval()  # so that what differs comes of the folding
    image = torch.randn(1, 3, image_px, image_px, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = image.to(next(net.parameters()).device)
    try:
        after = copy.deepcopy(net).eval()
        _fold(after)
        wanted, found = before(image), copy.deepcopy(after.eval()).double()(image)
    except Exception as error:  # the blocks' own code; after pruning it may count on channels that are gone
        raise UnbuildableError(f"its branches can't be folded: {' '.join(str(error).split())[:200]}") from error
    off = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-30))
    if not off <= AGREEMENT:
        raise UnbuildableError(
            f"its branches can't be folded: the folded network is off by {off:.2g} of its largest output"
        )
    return after


def fold_for_export(net: nn.Module, image_px: int, is_cut: bool) -> tuple[nn.Module, str]:
    """Return what is exported of a network, and why it is not its folded form.

    Args:
        net: The network. It is left as it is.
        image_px: Side of its square input.
        is_cut: Whether anything was pruned, taken apart or made sparse.

    Returns:
        The folded network and "", or `net` itself and one line: its blocks' code can't fold them.

    Raises:
        Unbuildable: A network that is cut can't be folded: with its branches it would be slower than uncut. Or there is
            no memory, which says nothing of the network.
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
    """Set what a block of branches alike remembers of its channels to what pruning left: its method counts on it."""
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
