"""Match the tensors of a file to a network's names; only prefixes, counters and heads may differ."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from remote.errors import EdgefrontError
from spaces.network import head_name
from spaces.weight_files import StateDict

# Prefixes that wrappers insert into a network's names.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Counters that do not affect any output: BatchNorm's, and those of a profiler.
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
ANCHORS = 12  # number of a network's tensors from which the prefix of its names in a file is found
MOST = 0.5  # fraction of a network's names that a file must have under a prefix
# Entries of a checkpoint in order of preference if several fit; averaged weights, meant for use, come before all.
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")

Tensors = Mapping[str, torch.Tensor]


class MisfitError(EdgefrontError, ValueError):
    """Raised for tensors that do not belong to this network.

    Attributes:
        count: Number of tensors that differ.
    """

    def __init__(self, reason: str, count: int) -> None:
        super().__init__(reason)
        self.count = count


@dataclass(frozen=True)
class Match:
    """Hold the tensors of a file under a network's own names.

    Attributes:
        state: Tensors to load, by the network's names.
        left: Names of the head's tensors that keep their values.
        place: Place of the tensors in the file, for messages; empty for a plain state dict.
    """

    state: OrderedDict[str, torch.Tensor]
    left: tuple[str, ...]
    place: str


def match(net: nn.Module, entries: tuple[StateDict, ...]) -> Match:
    """Find the one state dict that belongs to a network.

    If several fit, averaged weights (`ema`) come first, then those under the usual names of a checkpoint.

    Args:
        net: The network; its weights are not changed.
        entries: State dicts of one file.

    Raises:
        MisfitError: No state dict fits, or several fit equally well.
    """
    found: list[Match] = []
    misfits: list[MisfitError] = []
    for entry in entries:
        state = _unwrap(entry.state)
        for prefix in _prefixes(net, state):
            try:
                found.append(_match(net, state, prefix, ".".join(filter(None, (*entry.path, prefix.rstrip("."))))))
            except MisfitError as error:
                misfits.append(error)
    if not found:
        raise min(misfits, key=lambda error: error.count)
    best = min(_rank(one.place) for one in found)
    first = [one for one in found if _rank(one.place) == best]
    if len(first) > 1:
        places = " and ".join(one.place or "the file itself" for one in first)
        raise MisfitError(f"{places} both fit: keep the one that is meant", 0)
    return first[0]


def _rank(place: str) -> tuple[int, int]:
    averaged = "ema" in place.lower() or "averaged" in place.lower()
    top = place.split(".")[0]
    return (0 if averaged else 1, ENTRIES.index(top) if top in ENTRIES else -1 if not place else len(ENTRIES))


def _unwrap(state: OrderedDict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Return the state without the wrappers' prefixes and in fp32; layer versions are kept if it has them."""
    found = OrderedDict()
    for name, tensor in state.items():
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(wrapper, "")
        found[plain] = tensor.float() if tensor.is_floating_point() else tensor
    if hasattr(state, "_metadata"):
        found._metadata = state._metadata  # type: ignore[attr-defined]
    return found


def _prefixes(net: nn.Module, state: Tensors) -> list[str]:
    """Return the prefixes under which a file has at least `MOST` of the network's names, else the likeliest one.

    A deep layer may have the same name as one of the first layers, so a single name is not enough evidence. The empty
    prefix comes first.
    """
    own = [name for name in net.state_dict() if not name.endswith(COUNTERS)]
    found = {name[: -len(a)] for a in own[:ANCHORS] for name in state if name.endswith(f".{a}")}
    shares = {prefix: sum(f"{prefix}{name}" in state for name in own) / len(own) for prefix in ("", *found)}
    most = [prefix for prefix, share in shares.items() if share >= MOST] or [max(shares, key=lambda p: shares[p])]
    return sorted(most, key=lambda prefix: (len(prefix), prefix))


def _match(net: nn.Module, state: OrderedDict[str, torch.Tensor], prefix: str, place: str) -> Match:
    own, head = net.state_dict(), head_name(net)
    inside = _rename_keys(net, _below(state, prefix))
    outside = {name: t for name, t in state.items() if not name.startswith(prefix)}
    block = _block(net, head)
    of_head = {name for name in own if name.startswith(block)}
    fitting = OrderedDict((n, t) for n, t in inside.items() if n in own and not n.endswith(COUNTERS))
    wrong = [name for name, tensor in fitting.items() if tensor.shape != own[name].shape]
    needed = [name for name in own if not name.endswith(COUNTERS)]
    missing = [name for name in needed if name not in fitting]
    unknown = [name for name in inside if name not in own and not name.endswith(COUNTERS)]
    if bad := [name for name in wrong if name not in of_head]:
        found, wanted = (tuple(t[bad[0]].shape) for t in (fitting, own))
        raise MisfitError(f"size mismatch for {bad[0]}: {found} where the network has {wanted}", len(bad))
    if bad := [name for name in missing if name not in of_head]:
        raise MisfitError(f"it lacks {len(bad)} tensors, {bad[0]} first", len(bad))
    strangers = {name: inside[name] for name in unknown}
    another = _another_head(own, head, strangers | (outside if prefix else {})) if missing else {}
    if bad := [name for name in unknown if name not in another and not (missing and name.startswith(block))]:
        raise MisfitError(f"it has unknown {len(bad)} tensors, {bad[0]} first", len(bad))
    if set(wrong) - {f"{head}.weight", f"{head}.bias"} or set(missing) - {f"{head}.weight", f"{head}.bias"}:
        wrong = [name for name in of_head if name in fitting]  # a head of other layers: none of its tensors is kept
        another = {}
    for name in wrong:
        del fitting[name]
    for theirs, ours in another.items():
        if theirs in (fits := strangers | outside) and fits[theirs].numel() == own[ours].numel():
            fitting[ours] = fits[theirs].reshape(own[ours].shape)
    _check_values(own, fitting)
    left = tuple(name for name in needed if name not in fitting)
    fitting.update((name, own[name]) for name in own if name.endswith(COUNTERS))
    fitting.update((n, t) for n, t in inside.items() if n in own and n.endswith(COUNTERS) and t.shape == own[n].shape)
    fitting._metadata = inside._metadata  # type: ignore[attr-defined]
    return Match(fitting, left, place)


def _check_values(own: Tensors, fitting: Tensors) -> None:
    for name, tensor in fitting.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise MisfitError(f"{name} holds integers, as a quantized network's do: save the float network's", 1)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise MisfitError(f"{name} holds values that are no numbers (nan or inf)", 1)


def _below(state: OrderedDict[str, torch.Tensor], prefix: str) -> OrderedDict[str, torch.Tensor]:
    if not prefix:
        return state
    found = OrderedDict((n.removeprefix(prefix), t) for n, t in state.items() if n.startswith(prefix))
    versions: dict[str, object] = getattr(state, "_metadata", {})
    below = {f"{name}.".removeprefix(prefix).rstrip("."): v for name, v in versions.items()}
    if "" in below:
        found._metadata = OrderedDict(below)  # type: ignore[attr-defined]
    return found


def _rename_keys(net: nn.Module, state: OrderedDict[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Rename the state's keys by the network's own hooks, since a file may be older than the code."""

    class Seen(Exception):
        pass

    def stop(_: nn.Module, read: dict[str, torch.Tensor], *__: object) -> None:
        found.update(read)
        raise Seen

    found: OrderedDict[str, torch.Tensor] = OrderedDict()
    if not hasattr(state, "_metadata"):  # without layer versions: assume the current ones
        state._metadata = net.state_dict()._metadata  # type: ignore[attr-defined]
    # torch has no types for this method
    hook = net.register_load_state_dict_pre_hook(stop)  # type: ignore[no-untyped-call]
    try:
        net.load_state_dict(state, strict=False)
    except Seen:
        pass
    finally:
        hook.remove()
    found._metadata = state._metadata  # type: ignore[attr-defined]
    return found


def _block(net: nn.Module, head: str) -> str:
    """Return the prefix of the head's layers; a small Sequential of linear layers counts as a whole."""
    parent = head.rpartition(".")[0]
    if not parent or not isinstance(block := net.get_submodule(parent), nn.Sequential):
        return f"{head}."
    layers = [layer for layer in block.modules() if next(layer.parameters(recurse=False), None) is not None]
    plain = all(isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)) for m in layers)
    whole = all(name.startswith(f"{parent}.") for name, _ in net.named_parameters())
    return f"{parent}." if plain and len(layers) <= 3 and not whole else f"{head}."


def _another_head(own: Tensors, head: str, strangers: Tensors) -> dict[str, str]:
    """Return the head's names by those of the only unknown layer with the same input width; empty without one."""
    takes = own[f"{head}.weight"].flatten(1).shape[1]
    layers = [
        name.removesuffix(".weight")
        for name, tensor in strangers.items()
        if name.endswith(".weight") and tensor.ndim in (2, 4) and tensor.flatten(1).shape[1] == takes
    ]
    if len(layers) != 1:
        return {}
    pairs = ((f"{layers[0]}.{part}", f"{head}.{part}") for part in ("weight", "bias"))
    return {theirs: ours for theirs, ours in pairs if theirs in strangers and ours in own}
