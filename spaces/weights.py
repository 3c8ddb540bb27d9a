"""Weights a network starts from: a file at hand, torchvision's own, or none."""

from __future__ import annotations

import errno
import hashlib
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.judgement import WeightsReport
from spaces.memory import chain, is_out_of_memory
from spaces.network import build, family_module, family_names, variants
from spaces.space import OPTIONAL, WeightsError
from spaces.weight_files import one_line, read_entries
from spaces.weight_names import MisfitError, match

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".pt.tar", ".ckpt", ".bin", ".th", ".tar")
INSIDE = ("model.safetensors", "pytorch_model.bin")  # what a folder of one network's weights holds
SCRATCH = "none: trained from scratch"
REACH_S = 8.0  # how long the weights' host may take to answer before training starts from scratch


def judge(
    networks: Mapping[str, tuple[str, ...]], folder: Path, image_px: Mapping[str, int], classes: int
) -> WeightsReport:
    """Return which file each network of a space starts from, after loading every one of them once.

    Args:
        networks: variants by family.
        folder: where the weight files lie.
        image_px: input size the family's networks are trained at.
        classes: how many the data have.

    Raises:
        WeightsError: the folder has nothing for any network, a file that is meant for one can't be used, or several
            files are meant for one: a line that names the file, what was found and what to do.
    """
    used: dict[str, str] = {}
    chosen: dict[str, Path] = {}
    for family, names in networks.items():
        for variant in names:
            path = find(variant, folder)
            used[variant] = SCRATCH if path is None else path.name
            if path is None:
                continue
            chosen[variant] = path
            try:
                net = build(family, variant, classes, image_px[family])
            except UnbuildableError:  # at this size: the candidate's own failure, later
                continue
            used[variant] = _from_file(net, path)
    files = [path.name for path in _files(folder)]
    if not chosen:
        there = f"it holds {_some(files)}" if files else "it holds no weight file"
        wanted = _some([f"{name}.pth" for name in used])
        raise WeightsError(
            f"no file in {folder} is named after a network of this space: {there}; names looked for: {wanted} (or "
            f".safetensors, .pt, .ckpt, .bin, .pth.tar); rename the file, or say --weights none"
        )
    taken = {path.name for path in chosen.values()}
    digests = {variant: _sha256(path) for variant, path in chosen.items()}
    return WeightsReport(used, digests, tuple(name for name in files if name not in taken))


def find(variant: str, folder: Path | None) -> Path | None:
    """The variant's file in `folder`: `resnet18.pth` itself, else the only one like `resnet18-f37072fd.pth`.

    None if there is no such file. Raises WeightsError for a folder that is none, or several files to choose from.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise WeightsError(f"no folder {folder} with weights: name one that holds files like {variant}.pth")
    files = {path: _stem(path.name) for path in sorted(folder.iterdir())}
    for wanted in map(str.lower, _stems(variant)):
        exact = [path for path, stem in files.items() if stem == wanted and (_suffix(path.name) or path.is_dir())]
        close = [
            path
            for path, stem in files.items()
            if stem.startswith((f"{wanted}-", f"{wanted}_", f"{wanted}.")) and path.is_file() and _suffix(path.name)
        ]
        named = [path for path in exact if path.is_file()]
        found = sorted(named, key=lambda path: SUFFIXES.index(_suffix(path.name)))[:1] or close
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise WeightsError(f"several weights for {variant} in {folder}: {names}; name one {wanted}.pth")
        if found:
            return found[0]
        if exact:
            return _inside(exact[0])
    return None


def load(net: nn.Module, source: Path) -> tuple[str, ...]:
    """Names of the classifier's tensors that were left as they are, because the file has other classes.

    Fills `net` from a safetensors or torch state dict, plain or an entry of a checkpoint, whatever its names are
    preceded by; half precision becomes single. Raises WeightsError if anything but the head and counters is missing,
    left over or of another shape.
    """
    return _fill(net, source)[0]


def _fill(net: nn.Module, source: Path) -> tuple[tuple[str, ...], str]:
    """The names that were left, and where in the file the weights lie."""
    try:
        found = match(net, read_entries(source))
        net.load_state_dict(found.state, strict=False)
    except (MisfitError, RuntimeError) as error:
        raise WeightsError(f"{source.name} does not fit: {one_line(error)}") from None
    return found.left, found.place


def _from_file(net: nn.Module, path: Path) -> str:
    _, place = _fill(net, path)
    return f"{path.name} ({place})" if place else path.name


def is_trained(start: str) -> bool:
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
        return _from_file(net, path)
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
        if is_out_of_memory(error):
            raise
        return f"{SCRATCH} ({error})"
    return f"torchvision {entry.name}"


def _own(load_own: Callable[[nn.Module, str], str], net: nn.Module, variant: str) -> str:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    try:
        return load_own(net, variant)
    except Exception as error:  # the network's, the hub's and the file's errors have no common class
        if _is_the_hosts(error):
            raise
        net.load_state_dict(before)
        return f"{SCRATCH} (download failed: {one_line(error)})"


def _is_the_hosts(error: Exception) -> bool:
    """Return True for no memory and no disk: with them the same weights load, and a parent from scratch is another."""
    numbers = [cause.errno for cause in chain(error) if isinstance(cause, OSError)]
    return is_out_of_memory(error) or any(number in (errno.ENOSPC, errno.EDQUOT) for number in numbers)


def _stems(variant: str) -> tuple[str, ...]:
    # an optional package's networks have files of their own names: it need not be imported for others
    rows = [variants(family).get(variant) for family in family_names() if family not in OPTIONAL]
    return (variant, *(row.file for row in rows if row is not None and row.file))


def _stem(name: str) -> str:
    """A file's name in lower case, without what weight files end in."""
    suffix = _suffix(name)
    return name[: len(name) - len(suffix)].lower()


def _suffix(name: str) -> str:
    return max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _suffix(path.name) and path.is_file()]


def _inside(path: Path) -> Path:
    """The weight file of a folder that is named like a network. Raises WeightsError if there is none in it."""
    if not path.is_dir():
        raise WeightsError(f"{path} is no file: it may be a link to one that is gone")
    for name in INSIDE:
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"{path} is a folder where a weight file is meant: put the file there as {path.name}.pth")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _download(entry: Any, cached: Path) -> str:
    # Empty, or why not. torch.hub waits for ever for a host that doesn't answer, so it is asked first; in a thread,
    # because a name look-up has no time limit of its own.
    failures = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(entry.url, method="HEAD"), timeout=REACH_S / 2).close()
            failures.clear()
        except (OSError, ValueError) as error:
            failures[:] = [one_line(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_S)
    if failures:
        return f"download failed: {failures[0]}"
    try:
        torch.hub.load_state_dict_from_url(entry.url, map_location="cpu", progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        if _is_the_hosts(error):
            raise
        return f"download failed: {one_line(error)}"
    return "" if cached.is_file() else "download failed: nothing arrived"
