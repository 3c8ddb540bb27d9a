"""Networks by name: a family is a file in `spaces/families/`, a compression operation one in `spaces/operations/`.

A family file has `VARIANTS: dict[str, Variant]` and `build(variant, classes, image_px) -> nn.Module`, a net that
takes float (N, 3, image_px, image_px) to (N, classes) and whose last layer is the classifier; one with weights of its
own to fetch has `pretrained(variant)` too. A family may as well be a file of the user's (`spaces/family_files.py`).
An operation file has `apply(net, amount, example, classes, options, gradients) -> nn.Module`, whose shapes must
not depend on the weights or on the gradients, and may declare `OPTIONS`, `MEASURED`, `EXCLUDED` and `LAST`
(`spaces/operation_specs.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
Options = Sequence[tuple[str, str]]  # (axis name, value), as a candidate has them
Gradients = Callable[[nn.Module], Iterator[None]]  # at each step the net's parameters hold one batch's gradients

# Why a family one may look for is not there.
LEFT_OUT = {
    "swin": "pruning swin_t takes over nine minutes and 13 GB",
}


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """All that decides a network's shape: with it, weights can be loaded again."""

    family: str
    variant: str
    classes: int
    image_px: int
    steps: tuple[tuple[str, float], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of a family's table. What `width` and `depth` count is the family's own affair."""

    width: float = 1.0
    depth: int = 0
    mean: Triple = (0.485, 0.456, 0.406)  # of the input, RGB of 0..1
    std: Triple = (0.229, 0.224, 0.225)
    file: str = ""  # stem of its weight file, where that is not the variant's name


def family_names() -> tuple[str, ...]:
    """Names of the files in `spaces/families/`, but for those of a package that is not installed."""
    return tuple(name for name in _names("families") if not missing(name))


def operation_names() -> tuple[str, ...]:
    """Names of the files in `spaces/operations/`."""
    return tuple(operations())


def variants(family: str) -> dict[str, Variant]:
    """The family's table: variant name -> its numbers. It may know more names than it lists."""
    return dict(family_module(family).VARIANTS)


def check_names(space: str, networks: Mapping[str, Sequence[str]]) -> None:
    """Raise SpaceError, one line with what comes near, for a variant that its family doesn't have.

    Args:
        space: its name, for the message.
        networks: variants by family.
    """
    for family, names in networks.items():
        for variant in names:
            try:
                _row(family, variant)
            except UnbuildableError as error:
                raise SpaceError(f"space {space}: {error}") from None


def normalisation(family: str, variant: str) -> tuple[Triple, Triple]:
    """(mean, std) that the input of 0..1 is normalised with: what pretrained weights expect."""
    row = _row(family, variant)
    return row.mean, row.std


def build(family: str, variant: str, classes: int, image_px: int) -> nn.Module:
    """(N, 3, image_px, image_px) -> (N, classes), randomly initialised. Raises Unbuildable for unknown names."""
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
    """`net` after every compression step in turn; changed in place. An amount of 0 is no step. Raises Unbuildable.

    `gradients` are of the task the net is for; without them criteria that need them do as if there were none.
    """
    for name, amount in steps:
        if name not in operations():
            raise UnbuildableError(f"no operation {name!r}; there are {', '.join(operation_names())}")
        if amount == 0:
            continue
        example = torch.zeros(1, 3, image_px, image_px, device=next(net.parameters()).device)
        apply = importlib.import_module(f"spaces.operations.{name}").apply
        net = apply(net, amount, example, classes, _resolve_options(name, options), gradients)
    return net


def build_from_plan(plan: NetworkPlan) -> nn.Module:
    """The plan's network with random weights. Raises Unbuildable."""
    net = build(plan.family, plan.variant, plan.classes, plan.image_px)
    return apply_steps(net, plan.steps, plan.image_px, plan.classes, plan.options)


def pack(net: nn.Module, plan: NetworkPlan) -> dict[str, Any]:
    """Weights and plan as plain values, which `torch.load` reads with `weights_only`; `unpacked` is the inverse."""
    return {"state": net.state_dict(), "plan": asdict(plan)}


def unpack(saved: dict[str, Any]) -> nn.Module:
    """The network `packed` was given, in eval mode on the CPU. torch's random state is left alone.

    Built anew and cut anew: shapes follow from the plan alone. Raises RuntimeError where the weights don't fit, as
    those saved by a version that cut otherwise.
    """
    with torch.random.fork_rng(devices=[]):
        net = build_from_plan(NetworkPlan(**saved["plan"]))
    net.load_state_dict(saved["state"])
    return net.eval()


def family_module(family: str) -> ModuleType:
    """The family's file, imported. Raises Unbuildable if there is none, SpaceError for a user's that can't be used."""
    if is_file(family):
        return load_family(family)
    if family not in family_names():
        why = f" is left out: {LEFT_OUT[family]}" if family in LEFT_OUT else missing(family) or " is not known"
        raise UnbuildableError(f"family {family!r}{why}; there are {', '.join(family_names())}")
    return importlib.import_module(f"spaces.families.{family}")


def head_name(net: nn.Module) -> str:
    """Name of the classifier: the last layer with weights, a convolution in SqueezeNet."""
    return [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def count_macs(net: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of one forward pass of `example`: convolutions and matrix products, as torch counts."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example)
    return int(counter.get_total_flops() // 2)


def fit_stem(net: nn.Module, image_px: int, conv: str, pool: str = "") -> nn.Module:
    """`net` with a stem that does not throw a small input away; in place.

    Nets made for 224 px halve the image up to five times before the classifier. Up to 64 px one halving of the stem
    is left out and up to 32 px two, the pooling (where the stem has one) first: so the last map keeps 4 x 4 places or
    as many as the stem can give back. No weight changes its shape, so one parent's weights serve every input size.
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
    """Every option of one operation, as said, measured or by default. Raises Unbuildable for a value there is not."""
    chosen = {}
    for name, values in operations()[operation].options.items():
        chosen[name] = dict(options).get(f"{operation}_{name}", values[0])
        if chosen[name] not in values:
            raise UnbuildableError(f"no {operation}_{name} {chosen[name]!r}; there are {', '.join(values)}")
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
