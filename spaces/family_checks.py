"""Check a family from a user's file before anything is measured with it. The module needs torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from spaces.family_files import split
from spaces.family_loading import describe_error, load_family
from spaces.network import Variant, head_name
from spaces.space import SpaceError

NAME = re.compile(r"\w[\w.+-]{0,99}")  # pattern of a network's name, which also becomes part of file names
Shapes = dict[str, tuple[int, ...]]


def judge_family(family: str, wanted: Sequence[str], sizes: Sequence[int], classes: int) -> tuple[str, ...]:
    """Check a family by building and running each of its networks at every input size.

    Args:
        family: Path and digest, in the form of `spaces.family_files`.
        wanted: Names of the networks to use; empty for all.
        sizes: Sides of the square input, in px.
        classes: Number of classes of the data.

    Returns:
        The names of the networks that the space has of the family.

    Raises:
        SpaceError: The file or a network violates the contract of `spaces.network`. The message is one line.
    """
    path, module = split(family)[0], load_family(family)
    table = getattr(module, "VARIANTS", None)
    if not isinstance(table, Mapping) or not table or not all(isinstance(row, Variant) for row in table.values()):
        raise SpaceError(f"family file {path} needs VARIANTS, a dict of names and rows such as {{'small': Variant()}}")
    if not callable(getattr(module, "build", None)):
        raise SpaceError(f"family file {path} needs a function build(variant, classes, image_px) that returns a net")
    if unknown := [name for name in wanted if name not in table]:
        raise SpaceError(f"family file {path} has no network {unknown[0]!r}; it has {', '.join(map(str, table))}")
    names = tuple(wanted or table)
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise SpaceError(f"family file {path}: {name!r} is not a valid network name; use letters, digits, _ . + -")
        if table[name].file:
            raise SpaceError(f"family file {path}: {name} has file=...; name its weight file {name}.pth instead")
        _check_sizes(family, name, sizes, classes)
    return names


def _check_sizes(family: str, name: str, sizes: Sequence[int], classes: int) -> None:
    path, first = split(family)[0], sizes[0]
    shapes = {px: _check(family, name, px, classes) for px in sizes}
    for px, found in shapes.items():
        if found != shapes[first]:
            tensor = next(key for key in found | shapes[first] if found.get(key) != shapes[first].get(key))
            raise SpaceError(
                f"family file {path}: {name} has another {tensor} at {px} px than at {first} px; weights trained at "
                "one size must fit all: pool before the classifier, or give the family one image_px"
            )


def _check(family: str, name: str, image_px: int, classes: int) -> Shapes:
    """Return the shapes of a network's tensors. Raises SpaceError for an unusable network."""
    path, where = split(family)[0], f"{name} at {image_px} px"
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            net = load_family(family).build(name, classes, image_px)
            if not isinstance(net, nn.Module):
                raise TypeError(f"build returned {type(net).__name__}, not a torch.nn.Module")
            out = net.eval()(torch.zeros(2, 3, image_px, image_px))
    except (Exception, SystemExit) as error:  # a user's file may raise any exception
        if isinstance(error, MemoryError):
            raise
        raise SpaceError(f"family file {path}: {where} can't be used: {describe_error(error, path)}") from None
    if not isinstance(out, torch.Tensor) or out.shape != (2, classes) or out.dtype != torch.float32:
        found = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise SpaceError(
            f"family file {path}: {where} returns {found} for 2 images; needs torch.float32 (2, {classes}), a logit "
            "for each class"
        )
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not layers or net.get_submodule(head_name(net)).get_parameter("weight").shape[0] != classes:
        raise SpaceError(
            f"family file {path}: the last Linear or Conv2d of {name} must be its classifier, with {classes} outputs"
        )
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
