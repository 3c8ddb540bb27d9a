"""Tensors of weight files as people save them, read without running anything that a file holds.

A file is judged by its content, its name may say anything. Pickled objects that are no tensors (arguments, numpy
scalars, whole networks) become `Inert`, which does nothing; so a checkpoint with any of them is read all the same.
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
DEPTH_MAX, LENGTH_MAX = 4, 16  # of containers in containers, and of lists, that are looked through
SKIPPED = ("optim", "sched", "scaler")  # entries of a checkpoint whose tensors are no weights
MAGIC = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x1f\x8b": "compressed by gzip: unpack it first",
    b"BZh": "compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "compressed by xz: unpack it first",
    b"\x93NUMPY": "a numpy array",
}
# All that a pickled tensor is made of. None of these does more than make a tensor or a container.
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
    """One state dict of a file: the names of the entries that lead to it (none: the file itself), and its tensors."""

    path: tuple[str, ...]
    state: OrderedDict[str, torch.Tensor]


class Inert:
    """A pickled object of an unknown kind: it keeps what it was given and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.entries: dict[Any, Any] = {}
        self.state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Return an instance whose fields are there even where pickle leaves `__init__` out."""
        made = super().__new__(cls)
        made.entries, made.state = {}, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return Inert()

    def append(self, *_: Any) -> None:
        """Ignore what a list-like object is filled with."""

    extend = add = append

    def is_network(self) -> bool:
        """Return True for a pickled `nn.Module`."""
        return isinstance(self.state, dict) and {"_modules", "_parameters"} <= set(self.state)


class _Restricted(pickle.Unpickler):
    """Finds what tensors are made of, and an `Inert` class for everything else."""

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
    """Return every state dict that a safetensors or torch file holds, each with its own names.

    Raises:
        WeightsError: one line that says what the file is instead, and what to do.
    """
    if kind := _foreign(source):
        raise WeightsError(f"{source.name} is no weight file but {kind}")
    try:
        if _is_safetensors(source):
            return (StateDict((), OrderedDict(load_file(source))),)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = torch.load(source, map_location="cpu", weights_only=False, pickle_module=_PICKLE)
    except MemoryError:
        raise
    except Exception as error:  # pickle's, zip's and safetensors' errors have no common class
        raise WeightsError(f"{source.name} can't be read, it is damaged or cut short: {one_line(error)}") from None
    entries = tuple(_entries(held, ()))
    if not entries:
        raise WeightsError(f"{source.name} {_without_tensors(held)}")
    return entries


def one_line(error: Exception) -> str:
    """Return the text of an error in at most 300 characters of one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _foreign(source: Path) -> str:
    """What a file is, as the end of a sentence, where it holds no weights; empty if it may."""
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
    """A header's length, then the header, which is JSON: whatever the file is called."""
    if source.suffix.lower() == ".safetensors":
        return True
    with source.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < source.stat().st_size


def _entries(held: Any, path: tuple[str, ...]) -> Iterator[StateDict]:
    if isinstance(held, Inert) and held.entries:
        held = held.entries  # a dict of a class of its own
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


def _without_tensors(held: Any) -> str:
    """What a file without a state dict holds, as the end of a sentence with what to do."""
    inside = [*held.values()] if isinstance(held, Mapping) else [held]
    for value in inside:
        if isinstance(value, Inert) and value.is_network():
            kind = f"{type(value).__module__}.{type(value).__name__}"
            return f"holds a whole pickled network ({kind}), which would have to be run: {SAVE}"
    named = ", ".join(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
    return f"is not a plain state dict, there are no weights in it (it holds {named[:100] or 'nothing'}): {SAVE}"
