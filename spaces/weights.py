"""Weights a network starts from: a file at hand, torchvision's own, or none."""

from __future__ import annotations

import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import nn

from spaces.network import family_module, family_names, head_name, variants
from spaces.space import OPTIONAL

SUFFIXES = (".safetensors", ".pth", ".pt")
SCRATCH = "none: trained from scratch"
REACH_S = 8.0  # how long the weights' host may take to answer before training starts from scratch


class WeightsError(ValueError):
    """Weights that can't be used: one line saying what was asked, what there is, what to do."""


def find(variant: str, folder: Path | None) -> Path | None:
    """The variant's file in `folder`: `resnet18.pth` itself, else the only one like `resnet18-f37072fd.pth`.

    None if there is no such file. Raises WeightsError for a folder that is none, or several files to choose from.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise WeightsError(f"no folder {folder} with weights: name one that holds files like {variant}.pth")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    for stem in _stems(variant):
        exact = [path for path in files if path.stem == stem]
        close = [path for path in files if path.stem.startswith((f"{stem}-", f"{stem}_", f"{stem}."))]
        found = sorted(exact, key=lambda path: SUFFIXES.index(path.suffix))[:1] or close
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise WeightsError(f"several weights for {variant} in {folder}: {names}; name one {stem}.pth")
        if found:
            return found[0]
    return None


def load(net: nn.Module, source: Path) -> tuple[str, ...]:
    """Names of the classifier's tensors that were left as they are, because the file has other classes.

    Fills `net` from a safetensors or torch state dict; half precision becomes single. Raises WeightsError if
    anything else is missing, left over or of another shape.
    """
    state = _read(source)
    own, head = net.state_dict(), head_name(net)
    dropped = tuple(
        name for name in (f"{head}.weight", f"{head}.bias") if name in state and state[name].shape != own[name].shape
    )
    for name in dropped:
        del state[name]
    # A safetensors file has no layout version of its own: it is taken to be the one of today's layers.
    if not hasattr(state, "_metadata"):
        state._metadata = own._metadata  # type: ignore[attr-defined]
    try:
        wrong = net.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{source.name} does not fit: {_line(error)}") from None
    missing = [name for name in wrong.missing_keys if name not in dropped]
    for what, names in (("lacks", missing), ("has unknown", wrong.unexpected_keys)):
        if names:
            raise WeightsError(f"{source.name} does not fit: it {what} {len(names)} tensors, {names[0]} first")
    return dropped


def trained(start: str) -> bool:
    """True if what `start` returned says that the weights are trained ones."""
    return not start.startswith(SCRATCH)


def start(net: nn.Module, family: str, variant: str, folder: Path | None, download: bool) -> str:
    """Where the weights now in `net` come from, for people; `SCRATCH`, perhaps with a reason, if nowhere.

    In this order: a file in `folder`, torchvision's from its cache directory, torchvision's by download; for a family
    that loads its own (`load_own`), that in their place. A download that fails is no error; a file at hand that does
    not fit raises WeightsError.
    """
    path = find(variant, folder)
    if path is not None:
        load(net, path)
        return path.name
    if load_own := getattr(family_module(family), "load_own", None):
        return _own(load_own, net, variant) if download else SCRATCH
    pretrained = getattr(family_module(family), "pretrained", None)
    if pretrained is None:
        return SCRATCH
    entry = pretrained(variant)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    if not cached.is_file():
        if not download:
            return SCRATCH
        failure = _download(entry, cached)
        if failure:
            return f"{SCRATCH} ({failure})"
    try:
        load(net, cached)
    except WeightsError as error:
        return f"{SCRATCH} ({error})"
    return f"torchvision {entry.name}"


def _own(load_own: Callable[[nn.Module, str], str], net: nn.Module, variant: str) -> str:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    try:
        return load_own(net, variant)
    except Exception as error:  # the network's, the hub's and the file's errors have no common class
        net.load_state_dict(before)
        return f"{SCRATCH} (download failed: {_line(error)})"


def _stems(variant: str) -> tuple[str, ...]:
    # an optional package's networks have files of their own names: it need not be imported for others
    rows = [variants(family).get(variant) for family in family_names() if family not in OPTIONAL]
    return (variant, *(row.file for row in rows if row is not None and row.file))


def _read(source: Path) -> OrderedDict[str, torch.Tensor]:
    try:
        if source.suffix == ".safetensors":
            state: Any = load_file(source)
        else:
            state = torch.load(source, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{source.name} can't be read: {_line(error)}") from None
    except Exception as error:  # torch.load: pickle's own errors have no common class
        raise WeightsError(
            f"{source.name} is not a plain state dict ({type(error).__name__}): save net.state_dict()"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{source.name} is not a plain state dict: save net.state_dict()")
    read = OrderedDict((name, t.float() if t.is_floating_point() else t) for name, t in state.items())
    if hasattr(state, "_metadata"):
        read._metadata = state._metadata  # type: ignore[attr-defined]
    return read


def _download(entry: Any, cached: Path) -> str:
    # Empty, or why not. torch.hub waits for ever for a host that doesn't answer, so it is asked first; in a thread,
    # because a name look-up has no time limit of its own.
    failures = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(entry.url, method="HEAD"), timeout=REACH_S / 2).close()
            failures.clear()
        except (OSError, ValueError) as error:
            failures[:] = [_line(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_S)
    if failures:
        return f"download failed: {failures[0]}"
    try:
        torch.hub.load_state_dict_from_url(entry.url, map_location="cpu", progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        return f"download failed: {_line(error)}"
    return "" if cached.is_file() else "download failed: nothing arrived"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
