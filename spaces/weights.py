"""Load the weights that a network starts from: a local file, pretrained weights of its library, or none."""

from __future__ import annotations

import errno
import hashlib
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.memory_errors import chain, is_out_of_memory
from spaces.network import build, family_module, family_names, variants
from spaces.space import OPTIONAL, WeightsError
from spaces.weight_files import one_line, read_entries
from spaces.weight_names import MisfitError, match
from spaces.weights_report import WeightsReport

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".pt.tar", ".ckpt", ".bin", ".th", ".tar")
INSIDE = ("model.safetensors", "pytorch_model.bin")  # names of the weight file in a folder that is named like a network
SCRATCH = "none: trained from scratch"
REACH_S = 8.0  # seconds that the weights' host may take to answer; then training starts from scratch


def judge(
    networks: Mapping[str, tuple[str, ...]], folder: Path, image_px: Mapping[str, int], classes: int
) -> WeightsReport:
    """Find and load once the weight file that each network of a space starts from.

    Args:
        networks: Variants by family.
        folder: Folder with the weight files.
        image_px: By family, the input size in px at which its networks are trained.
        classes: Number of classes of the data.

    Returns:
        The used and unused files.

    Raises:
        WeightsError: No file fits any network, a network's file cannot be used, or several files match one network.
            The one-line message names the file, its content and what to do.
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
            except UnbuildableError:  # at this size; the candidate itself fails later
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
    """Find a variant's weight file: `resnet18.pth` itself, else the only one like `resnet18-f37072fd.pth`.

    Args:
        variant: Name of the network.
        folder: Folder with weight files; None finds nothing.

    Returns:
        Path of the file, or None if there is no such file.

    Raises:
        WeightsError: The folder does not exist, or several files match.
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
    """Load a weight file into a network.

    Args:
        net: The network to fill.
        source: Safetensors or torch file with a state dict, plain or as an entry of a checkpoint, under any prefix.
            Half precision is converted to fp32.

    Returns:
        Names of the classifier's tensors that keep their values, because the file has other classes.

    Raises:
        WeightsError: A tensor other than those of the head and the counters is missing, unknown or of another shape.
    """
    return _fill(net, source)[0]


def _fill(net: nn.Module, source: Path) -> tuple[tuple[str, ...], str]:
    """Load a file into `net`; return the head's names that were left, and the place of the weights in the file."""
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
    """Return whether a network started from trained weights.

    Args:
        start: The description that `start` returned.
    """
    return not start.startswith(SCRATCH)


def start(net: nn.Module, family: str, variant: str, folder: Path | None, download: bool) -> str:
    """Load the best available weights into a network.

    The order is a file in `folder`, torchvision's weights in its cache directory, torchvision's weights by download. A
    family that loads its own weights (`load_own`) does so in place of the last two. A failed download is no error.

    Args:
        net: The network to fill.
        family: Name of the family.
        variant: Row of the family's table.
        folder: The user's folder of weight files, or None.
        download: Whether weights may be downloaded.

    Returns:
        Origin of the weights, for reports; `SCRATCH`, possibly with a reason, if there are none.

    Raises:
        WeightsError: A file in `folder` does not fit.
    """
    path = find(variant, folder)
    if path is not None:
        return _from_file(net, path)
    if load_own := getattr(family_module(family), "load_own", None):
        return _own(load_own, net, variant) if download else SCRATCH
    find_weights = getattr(family_module(family), "imagenet_weights", None)
    if find_weights is None:
        return SCRATCH
    entry = find_weights(variant)
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
    except Exception as error:  # the errors of network, hub and file have no common base class
        if _is_the_hosts(error):
            raise
        net.load_state_dict(before)
        return f"{SCRATCH} (download failed: {one_line(error)})"


def _is_the_hosts(error: Exception) -> bool:
    """Return whether memory or disk was short. A parent from scratch would differ from the one that a retry loads."""
    numbers = [cause.errno for cause in chain(error) if isinstance(cause, OSError)]
    return is_out_of_memory(error) or any(number in (errno.ENOSPC, errno.EDQUOT) for number in numbers)


def _stems(variant: str) -> tuple[str, ...]:
    # weight files of an optional package's networks have the networks' names, so the package need not be imported
    rows = [variants(family).get(variant) for family in family_names() if family not in OPTIONAL]
    return (variant, *(row.file for row in rows if row is not None and row.file))


def _stem(name: str) -> str:
    """Return a file's name in lower case, without the suffix of weight files."""
    suffix = _suffix(name)
    return name[: len(name) - len(suffix)].lower()


def _suffix(name: str) -> str:
    return max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _suffix(path.name) and path.is_file()]


def _inside(path: Path) -> Path:
    """Return the weight file in a folder that is named like a network. Raises WeightsError if it holds none."""
    if not path.is_dir():
        raise WeightsError(f"{path} is not a file: it may be a dangling link")
    for name in INSIDE:
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"{path} is a folder, but a weight file is expected: put the file there as {path.name}.pth")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _download(entry: WeightsEnum, cached: Path) -> str:
    # Returns the failure's reason, or an empty string. torch.hub waits forever for a host that does not answer, so a
    # HEAD request goes first; it runs in a thread, because a name lookup has no time limit of its own.
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
