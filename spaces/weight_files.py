"""Read the tensors of weight files without executing any code that a file contains.

The content decides the file type, not the name. Pickled objects other than tensors (arguments, numpy scalars, whole
networks) become `Inert`, which does nothing, so a checkpoint that contains such objects can still be read.
"""

from __future__ import annotations

import pickle
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from spaces.space import WeightsError

SAVE = "save its weights: torch.save(net.state_dict(), ...)"
DEPTH_MAX, LENGTH_MAX = 4, 16  # nesting depth of containers, and length of lists, that are searched
SKIPPED = ("optim", "sched", "scaler")  # prefixes of checkpoint entries whose tensors are not weights
MAGIC = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"\x93NUMPY": "a numpy array",
}
# Everything that a pickled tensor consists of. Each of these only creates a tensor or a container.
ALLOWED = {
    ("collections", "OrderedDict"),
    *(("torch._utils", f"_rebuild_{name}") for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
    ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "Tensor"),
    ("torch", "Size"),
    ("torch", "device"),
}


@dataclass(frozen=True)
class StateDict:
    """Hold one state dict of a file.

    Attributes:
        path: Names of the entries that lead to it; empty for the file itself.
        state: Tensors by name.
    """

    path: tuple[str, ...]
    state: OrderedDict[str, torch.Tensor]


class Inert:
    """Stand in for a pickled object of an unknown type: keep its arguments and do nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        self.entries: dict[object, object] = {}
        self.state: object = None

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Return an instance that has its fields even if pickle does not call `__init__`."""
        made = super().__new__(cls)
        made.entries, made.state = {}, None
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __call__(self, *_: object, **__: object) -> Inert:
        """Return another inert object."""
        return Inert()

    def append(self, *_: object) -> None:
        """Ignore the items of a list-like object."""

    extend = add = append

    def is_network(self) -> bool:
        """Return whether the object is a pickled `nn.Module`."""
        return isinstance(self.state, dict) and {"_modules", "_parameters"} <= set(self.state)


class _Restricted(pickle.Unpickler):
    """Find the classes that tensors consist of, and an `Inert` class for everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        return type(name, (Inert,), {"__module__": module})


_PICKLE = SimpleNamespace(
    __name__=__name__, Unpickler=_Restricted, load=lambda file, **options: _Restricted(file, **options).load()
)


def read_entries(source: Path) -> tuple[StateDict, ...]:
    """Read every state dict in a safetensors or torch file, each with its own tensor names.

    Raises:
        WeightsError: The file holds no weights. The one-line message names the file's type and what to do.
    """
    if kind := _foreign(source):
        raise WeightsError(f"{source.name} is not a weight file but {kind}")
    try:
        if _is_safetensors(source):
            return (StateDict((), OrderedDict(load_file(source))),)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(source, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except MemoryError:
        raise
    except Exception as error:  # the errors of pickle, zip and safetensors have no common base class
        raise WeightsError(f"{source.name} can't be read, it is damaged or cut short: {one_line(error)}") from None
    entries = tuple(_entries(held, ()))
    if not entries:
        raise WeightsError(f"{source.name} {_without_tensors(held)}")
    return entries


def one_line(error: Exception) -> str:
    """Return the text of an error as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _foreign(source: Path) -> str:
    """Return the type of a file that holds no weights, as the end of a sentence; empty if it may hold weights."""
    try:
        with source.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise WeightsError(f"{source.name} can't be read: {error.strerror or one_line(error)}") from None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "empty: fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the file itself with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: fetch the file itself, by its direct link"
    if start[4:8] == b"TFL3":
        return "a TFLite model: only torch's and safetensors files are read"
    if known := next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), ""):
        return known
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return f"a TorchScript archive, a program: in the code that made it, {SAVE}"
        if not any(name.endswith("data.pkl") for name in names):
            return f"a zip archive that torch.save did not write, with {names[0] if names else 'nothing in it'}"
        return ""
    return "a tar archive: unpack it and name the file in it" if tarfile.is_tarfile(source) else ""


def _is_safetensors(source: Path) -> bool:
    """Return whether a file has safetensors' header (a length, then JSON) or suffix."""
    if source.suffix.lower() == ".safetensors":
        return True
    with source.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < source.stat().st_size


def _entries(held: object, path: tuple[str, ...]) -> Iterator[StateDict]:
    if isinstance(held, Inert) and held.entries:
        held = held.entries  # a dict subclass of an unknown type
    if isinstance(held, list | tuple) and len(held) <= LENGTH_MAX:
        held = {str(place): value for place, value in enumerate(held)}
    if not isinstance(held, Mapping) or len(path) > DEPTH_MAX:
        return
    tensors = {
        name: value.detach()
        for name, value in held.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and value.ndim <= 8
    }
    if tensors:
        state = OrderedDict(tensors)
        if hasattr(held, "_metadata"):
            state._metadata = held._metadata  # type: ignore[attr-defined]
        yield StateDict(path, state)
    for name, value in held.items():
        if not isinstance(value, torch.Tensor) and not str(name).lower().startswith(SKIPPED):
            yield from _entries(value, (*path, str(name)))


def _without_tensors(held: object) -> str:
    """Describe the content of a file without a state dict, as the end of a sentence that says what to do."""
    inside = [*held.values()] if isinstance(held, Mapping) else [held]
    for value in inside:
        if isinstance(value, Inert) and value.is_network():
            kind = f"{type(value).__module__}.{type(value).__name__}"
            return f"holds a whole pickled network ({kind}), which would have to be run: {SAVE}"
    named = ", ".join(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
    return f"is not a state dict of weights (it holds {named[:100] or 'nothing'}): {SAVE}"
