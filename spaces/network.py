"""Build and compress networks by name: families from `spaces/families/`, operations from `spaces/operations/`.

A family module has `VARIANTS: dict[str, Variant]` and `build(variant, classes, image_px) -> nn.Module`. The network
maps float (N, 3, image_px, image_px) to (N, classes), and its last layer is the classifier. A family with downloadable
weights has `imagenet_weights(variant)` too. A family may also be a user's file (`spaces/family_files.py`).

An operation module has `apply(net, amount, example, classes, options, gradients) -> nn.Module`. The resulting shapes
must not depend on the weights or on the gradients. The module may declare `OPTIONS`, `MEASURED`, `EXCLUDED` and `LAST`
(`spaces/operation_specs.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spaces.candidate import UnbuildableError
from spaces.family_files import is_file, label
from spaces.family_loading import load_family
from spaces.operation_specs import operations
from spaces.space import SpaceError, missing

Triple = tuple[float, float, float]
Options = Sequence[tuple[str, str]]  # (axis name, value), as in `Candidate.options`
Gradients = Callable[[nn.Module], Iterator[None]]  # at each step the parameters hold one batch's gradients

# Reasons why well-known families are not offered.
LEFT_OUT = {
    "swin": "pruning swin_t takes over nine minutes and 13 GB",
}


@dataclass(frozen=True)
class NetworkPlan:
    """Describe everything that determines a network's shapes, so that saved weights can be loaded again.

    Attributes:
        family: Name of the family, as in `Candidate`.
        variant: Row of the family's table.
        classes: Number of outputs.
        image_px: Side of the square input, in px.
        steps: Compression operations in order, as (name, amount).
        options: Non-default options of the steps, as (axis name, value).
    """

    family: str
    variant: str
    classes: int
    image_px: int
    _: KW_ONLY
    steps: tuple[tuple[str, float], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Describe a network of a family.

    Attributes:
        width: Width of the network; each family defines its unit.
        depth: Depth of the network; each family defines its unit.
        mean: Mean that the input is normalised with, RGB of pixels in 0..1.
        std: Standard deviation that the input is normalised with, RGB of pixels in 0..1.
        file: Stem of the weight file, if it differs from the variant's name.
    """

    width: float = 1.0
    depth: int = 0
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    file: str = ""


def family_names() -> tuple[str, ...]:
    """Return the names of the built-in families, without those that need a package that is not installed."""
    return tuple(name for name in _names("families") if not missing(name))


def operation_names() -> tuple[str, ...]:
    """Return the names of the compression operations."""
    return tuple(operations())


def variants(family: str) -> dict[str, Variant]:
    """Return a family's listed variants by name. The family may know more names than it lists, as timm does."""
    return dict(family_module(family).VARIANTS)


def check_names(space: str, networks: Mapping[str, Sequence[str]]) -> None:
    """Check that every variant exists in its family.

    Args:
        space: Name of the space, for the message.
        networks: Variants by family.

    Raises:
        SpaceError: A variant does not exist. The one-line message names similar variants.
    """
    for family, names in networks.items():
        for variant in names:
            try:
                _row(family, variant)
            except UnbuildableError as error:
                raise SpaceError(f"space {space}: {error}") from None


def normalisation(family: str, variant: str) -> tuple[Triple, Triple]:
    """Return the (mean, std) that pretrained weights expect the input to be normalised with.

    Args:
        family: Name of the family.
        variant: Row of the family's table.

    Returns:
        Two RGB triples, for pixels in 0..1.

    Raises:
        UnbuildableError: The family or variant is unknown.
    """
    row = _row(family, variant)
    return row.mean, row.std


def build(family: str, variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a randomly initialised network.

    Args:
        family: Name of the family.
        variant: Row of the family's table.
        classes: Number of outputs.
        image_px: Side of the square input, in px.

    Returns:
        A network that maps float (N, 3, image_px, image_px) to logits (N, classes).

    Raises:
        UnbuildableError: The family or variant is unknown, or cannot be built at this size.
    """
    _row(family, variant)
    net: nn.Module = family_module(family).build(variant, classes, image_px)
    return net


def apply_steps(
    net: nn.Module,
    steps: Sequence[tuple[str, float]],
    image_px: int,
    classes: int,
    options: Options = (),
    gradients: Gradients | None = None,
) -> nn.Module:
    """Apply compression steps to a network in turn, in place.

    Args:
        net: The network to change.
        steps: Operations in order, as (name, amount); an amount of 0 is skipped.
        image_px: Side of the square input, in px.
        classes: Number of outputs, which no step changes.
        options: Non-default options of the steps, as (axis name, value).
        gradients: Source of gradients of the network's task; without it, criteria that need gradients fall back to
            magnitude.

    Returns:
        The compressed network, which may be another object than `net`.

    Raises:
        UnbuildableError: A step is unknown or fails; its subclass NoGainError if a step saves nothing.
    """
    for name, amount in steps:
        if name not in operations():
            raise UnbuildableError(f"unknown operation {name!r}; accepted: {', '.join(operation_names())}")
        if amount == 0:
            continue
        example = torch.zeros(1, 3, image_px, image_px, device=next(net.parameters()).device)
        apply = importlib.import_module(f"spaces.operations.{name}").apply
        net = apply(net, amount, example, classes, _resolve_options(name, options), gradients)
    return net


def build_from_plan(plan: NetworkPlan) -> nn.Module:
    """Build a plan's network with random weights.

    Args:
        plan: Family, variant, input size and compression steps.

    Raises:
        UnbuildableError: The network cannot be built or compressed.
    """
    net = build(plan.family, plan.variant, plan.classes, plan.image_px)
    return apply_steps(net, plan.steps, plan.image_px, plan.classes, plan.options)


def pack(net: nn.Module, plan: NetworkPlan) -> dict[str, object]:
    """Return weights and plan as plain values that `torch.load` reads with `weights_only`; `unpack` is the inverse.

    Args:
        net: The network whose state is saved.
        plan: Plan from which a network of the same shapes can be built.
    """
    return {"state": net.state_dict(), "plan": asdict(plan)}


def unpack(saved: dict[str, Any]) -> nn.Module:
    """Rebuild the network that `pack` saved, in eval mode on the CPU; torch's random state does not change.

    The network is built and compressed anew, since its shapes follow from the plan alone.

    Raises:
        RuntimeError: The weights do not fit, for example if another version pruned differently.
    """
    with torch.random.fork_rng(devices=[]):
        net = build_from_plan(NetworkPlan(**saved["plan"]))
    net.load_state_dict(saved["state"])
    return net.eval()


def family_module(family: str) -> ModuleType:
    """Import a family's module.

    Args:
        family: Name of a built-in family, or path and digest of a user's file.

    Raises:
        UnbuildableError: The family is unknown, or its package is not installed.
        SpaceError: A user's family file cannot be used.
    """
    if is_file(family):
        return load_family(family)
    if family not in family_names():
        why = f" is left out: {LEFT_OUT[family]}" if family in LEFT_OUT else missing(family) or " is not known"
        raise UnbuildableError(f"family {family!r}{why}; accepted: {', '.join(family_names())}")
    return importlib.import_module(f"spaces.families.{family}")


def head_name(net: nn.Module) -> str:
    """Find the classifier's name: the last linear layer or convolution (SqueezeNet's is a convolution).

    Args:
        net: A network with at least one such layer.

    Returns:
        Dotted name as in `named_modules`.
    """
    last: str = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    return last


def count_macs(net: nn.Module, example: torch.Tensor) -> int:
    """Count the multiply-accumulates of one forward pass: convolutions and matrix products, as torch counts them.

    Args:
        net: The network, in any mode.
        example: Input (N, 3, H, W); the result is for all N images.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example)
    return int(counter.get_total_flops() // 2)


def fit_stem(net: nn.Module, image_px: int, conv: str, pool: str = "") -> nn.Module:
    """Remove halvings from the stem of a network, in place, so that small inputs keep enough resolution.

    Networks made for 224 px halve the image up to five times before the classifier. Up to 64 px one halving of the stem
    is removed and up to 32 px two, the pooling (if the stem has one) first. The last map thus keeps 4 x 4 places, or as
    many as the stem can give back. No weight changes its shape, so one parent's weights serve every input size.

    Args:
        net: The network to change.
        image_px: Side of the square input, in px.
        conv: Name of the stem's convolution of stride 2.
        pool: Name of the stem's pooling; empty if it has none.
    """
    halvings = [name for name in (pool, conv) if name]
    for name in halvings[: (image_px <= 64) + (image_px <= 32)]:
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        else:
            net.set_submodule(name, nn.Identity())
    return net


def _resolve_options(operation: str, options: Options) -> dict[str, str]:
    """Return all options of one operation: given, measured or default. Raises UnbuildableError for an unknown value."""
    chosen = {}
    for name, values in operations()[operation].options.items():
        chosen[name] = dict(options).get(f"{operation}_{name}", values[0])
        if chosen[name] not in values:
            raise UnbuildableError(f"unknown {operation}_{name} {chosen[name]!r}; accepted: {', '.join(values)}")
    measured = operations()[operation].measured
    return chosen | {name: dict(options).get(f"{operation}_{name}", value) for name, value in measured.items()}


def _names(folder: str) -> tuple[str, ...]:
    files = (Path(__file__).parent / folder).glob("*.py")
    return tuple(sorted(path.stem for path in files if path.stem != "__init__"))


def _row(family: str, variant: str) -> Variant:
    table: Mapping[str, Variant] = family_module(family).VARIANTS
    if variant not in table:
        close = getattr(table, "close_to", lambda name: tuple(table))(variant)
        raise UnbuildableError(f"family {label(family)} has no variant {variant!r}; it has {', '.join(close)}")
    return table[variant]
