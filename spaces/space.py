"""The joint space: which candidates there are, and how a study is asked for one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from spaces.candidate import Candidate
from spaces.family_files import FIXED_SUFFIX, SUFFIX, family_of, is_file, is_fixed, label, split
from spaces.operation_specs import operations, options

PRESETS = Path(__file__).parent / "presets"
FAMILIES = Path(__file__).parent / "families"
OPTIONAL = ("timm",)  # families of a package of that name, which is installed as an extra
PLAIN_AXES = ("image_px", "precision", "runtime", "threads")
WORDS, COUNTS = ("precision", "runtime"), ("image_px", "threads")  # axes by what their values are
EXAMPLES = {"words": "'fp32', 'int8'", "whole numbers": "64, 96", "numbers": "0.0, 0.5"}

Value = str | int | float


class SpaceError(ValueError):
    """A space that can't be: one line saying what was asked, what there is, what to do."""


class WeightsError(SpaceError):
    """Raised for weights that can't be used. The message names the file, what was found, and what to do."""


class SuggestsParameters(Protocol):
    """The part of an Optuna trial a space asks."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float: ...


class CandidateSet(Protocol):
    """What a search needs of a space: its candidates, and how a trial stands for one."""

    @property
    def name(self) -> str: ...

    def size(self) -> int: ...
    def params(self) -> Iterator[dict[str, Value]]: ...
    def suggest(self, trial: SuggestsParameters) -> Candidate: ...
    def candidate(self, params: Mapping[str, Value]) -> Candidate: ...
    def params_of(self, candidate: Candidate) -> dict[str, Value]: ...
    def parents(self) -> tuple[Candidate, ...]: ...

    def numbers(self) -> list[tuple[float, ...]]:
        """What is known of each candidate before anything is measured, in the order of `params`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Space:
    """Axes and their values; `own_axes` are the values an axis takes for one family alone.

    An axis is plain, or an operation's amount (`prune`), or an operation's option (`prune_by`), which a point has
    only where the operation's amount is above 0. `left_out` says, value by value, what a family or the device can't do
    and why.
    """

    name: str
    title: str
    variants: Mapping[str, tuple[str, ...]]  # family -> its variants; none: all of a user's file, not yet read
    axes: Mapping[str, tuple[Value, ...]]
    own_axes: Mapping[str, Mapping[str, tuple[Value, ...]]]
    left_out: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # ONNX classifiers that are named, until `add_models` has them
    names_runtimes: bool = False  # else a candidate runs on whichever runtime the device is used with

    def values(self, family: str, axis: str) -> tuple[Value, ...]:
        """What `axis` may be for a family."""
        return self.own_axes.get(family, {}).get(axis, self.axes[axis])

    def family_of(self, variant: str) -> str:
        """The family whose variant this is."""
        return next(family for family, names in self.variants.items() if variant in names)

    @property
    def trained(self) -> Mapping[str, tuple[str, ...]]:
        """Family -> variants, without the fixed ones."""
        return {family: names for family, names in self.variants.items() if not is_fixed(family)}

    def parent_px(self, family: str) -> int:
        """Input size parents are trained at, and the greedy choice would run at: the largest."""
        return max(int(px) for px in self.values(family, "image_px"))

    def parents(self) -> tuple[Candidate, ...]:
        """The plain network of every variant: uncompressed, largest input, fewest threads."""
        runtime, threads = str(self.axes["runtime"][0]), min(int(n) for n in self.axes["threads"])
        return tuple(
            Candidate(family=family, variant=variant, image_px=self.parent_px(family), runtime=runtime, threads=threads)
            for family, names in self.variants.items()
            for variant in names
        )

    def size(self) -> int:
        """How many candidates there are."""
        return sum(1 for _ in self.params())

    def params(self) -> Iterator[dict[str, Value]]:
        """Every point, as the values a trial would suggest."""
        for family, names in self.variants.items():
            amounts = [axis for axis in self.axes if axis not in options()]
            for variant, *point in product(names, *(self.values(family, axis) for axis in amounts)):
                base = dict(zip(amounts, point, strict=True))
                asked = self._active_options(base)
                for chosen in product(*(self.values(family, axis) for axis in asked)):
                    named = base | dict(zip(asked, chosen, strict=True))
                    yield {"variant": variant} | {self._name(family, axis): v for axis, v in named.items()}

    def numbers(self) -> list[tuple[float, ...]]:
        """Area of the input, what each operation leaves of a network, and threads, in the order of `params`."""
        steps = [axis for axis in self.axes if axis in operations()]
        found = []
        for candidate in map(self.candidate, self.params()):
            kept = (1 - candidate.amount(step) for step in steps)
            found.append((float(candidate.image_px**2), *kept, float(candidate.threads)))
        return found

    def suggest(self, trial: SuggestsParameters) -> Candidate:
        """The candidate a trial asks for. Evenly spaced numbers keep their order for the sampler."""
        variant = trial.suggest_categorical("variant", [v for names in self.variants.values() for v in names])
        family = self.family_of(variant)
        point: dict[str, Value] = {}
        for axis in (axis for axis in self.axes if axis not in options()):
            point[axis] = _suggest(trial, self._name(family, axis), self.values(family, axis))
        for axis in self._active_options(point):
            point[axis] = _suggest(trial, self._name(family, axis), self.values(family, axis))
        return self._candidate(family, variant, point)

    def candidate(self, params: Mapping[str, Value]) -> Candidate:
        """The candidate that a trial's parameters stand for."""
        variant = str(params["variant"])
        family = self.family_of(variant)
        names = {axis: self._name(family, axis) for axis in self.axes}
        return self._candidate(family, variant, {a: params[name] for a, name in names.items() if name in params})

    def params_of(self, candidate: Candidate) -> dict[str, Value]:
        """The parameters that `candidate` turns into this candidate; the inverse of `candidate`."""
        family, chosen = candidate.family, dict(candidate.options)
        point: dict[str, Value] = {
            axis: getattr(candidate, axis) if axis in PLAIN_AXES else candidate.amount(axis)
            for axis in self.axes
            if axis not in options()
        }
        point |= {axis: chosen.get(axis, options()[axis].default) for axis in self._active_options(point)}
        return {"variant": candidate.variant} | {self._name(family, axis): v for axis, v in point.items()}

    def less_cut(self, candidate: Candidate) -> tuple[Candidate, ...]:
        """What a cut must be faster than: the uncut network, and for each step the one with the next smaller amount."""
        found = [candidate.uncut()]
        for step, amount in candidate.steps:
            less = max(float(value) for value in self.values(candidate.family, step) if float(value) < amount)
            point = {axis: getattr(candidate, axis) for axis in PLAIN_AXES}
            point |= {axis: candidate.amount(axis) for axis in self.axes if axis in operations()} | {step: less}
            chosen = dict(candidate.options)
            point |= {axis: chosen.get(axis, options()[axis].default) for axis in self._active_options(point)}
            found.append(self._candidate(candidate.family, candidate.variant, point))
        return tuple(dict.fromkeys(found)) if candidate.steps else ()

    def _active_options(self, point: Mapping[str, Value]) -> list[str]:
        """The options that make a difference where the other axes are these: those of operations that are applied."""
        return [axis for axis in self.axes if axis in options() and float(point[options()[axis].operation]) > 0]

    def _candidate(self, family: str, variant: str, point: Mapping[str, Value]) -> Candidate:
        steps = [(axis, round(float(point[axis]), 6)) for axis in self.axes if axis in operations()]
        chosen = {axis: str(point[axis]) for axis in sorted(self._active_options(point))}
        return Candidate(
            family=family,
            variant=variant,
            image_px=int(point["image_px"]),
            steps=tuple((name, amount) for name, amount in steps if amount > 0),
            precision=str(point["precision"]),
            runtime=str(point["runtime"]),
            threads=int(point["threads"]),
            options=tuple((axis, value) for axis, value in chosen.items() if value != options()[axis].default),
        )

    def _name(self, family: str, axis: str) -> str:
        # Optuna wants one distribution per name, so an axis with values of its own is a name of its own.
        return f"{axis}.{label(family)}" if axis in self.own_axes.get(family, {}) else axis


def presets() -> tuple[str, ...]:
    """Names that `load` knows."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load(name: str) -> Space:
    """The space of a preset's name or of a TOML file's path. Raises SpaceError."""
    path = PRESETS / f"{name}.toml" if name in presets() else Path(name)
    if not path.is_file():
        raise SpaceError(f"no space {name!r}: name one of {', '.join(presets())}, or a TOML file like them")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors put a byte order mark first
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SpaceError(f"{path} is not a TOML file: {error}") from None
    _check_table(table, path)
    table = _with_files(table, path)
    return _without_excluded(_check(_from_table(path.stem, table), path), path)


def add_families(space: Space, files: Sequence[str]) -> Space:
    """Return the space with all networks of more families, each in a file of the user's. Raises SpaceError."""
    families = [_file_of(Path(file), "--family") for file in files]
    more = {family: () for family in families if family not in space.variants}
    return _check_labels(replace(space, variants={**space.variants, **more}))


def add_models(space: Space, image_px: Mapping[str, int]) -> Space:
    """Return the space with ONNX classifiers beside its networks: as they are, at every precision.

    Args:
        space: What else there is.
        image_px: The only input size of each, by family.

    Raises:
        SpaceError: One has the name of another network.
    """
    uncut = {axis: (0.0,) for axis in space.axes if axis in operations()}
    variants = {**space.variants, **{family: (label(family),) for family in image_px}}
    own = {**space.own_axes, **{family: {"image_px": (px,), **uncut} for family, px in image_px.items()}}
    return _check_twice(replace(space, variants=variants, own_axes=own, models=()), f"space {space.name}")


def fill_families(space: Space, found: Mapping[str, tuple[str, ...]]) -> Space:
    """Return the space with the networks that were found in the user's files. Raises SpaceError for a name twice."""
    return _check_twice(replace(space, variants={**space.variants, **found}), f"space {space.name}")


def cut(
    space: Space,
    precisions: Mapping[str, str | None],
    runtimes: tuple[str, ...],
    threads_max: int,
    runtime: str = "onnxruntime",
    refused: Mapping[str, str] = MappingProxyType({}),
) -> Space:
    """The space without what a device can't do. `precisions`: name -> None, or why it is left out.

    `refused`: operation -> why the device gains nothing from it, or empty if it may. `runtime` is the one the device
    is used with, for spaces that name none.
    """
    if not space.names_runtimes:
        space = replace(space, axes={**space.axes, "runtime": (runtime,)})
    offered: dict[str, Any] = {
        "precision": lambda value: precisions.get(value, "the device does not know it"),
        "runtime": lambda value: None if value in runtimes else "not installed on the device",
        "threads": lambda value: None if int(value) <= threads_max else f"the device has {threads_max} cores",
    } | {step: lambda value, why=why: why if value else None for step, why in refused.items()}
    left_out: list[str] = []

    def kept(axis: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        refusals = {value: offered[axis](value) for value in values} if axis in offered else {}
        left_out.extend(f"{axis} {value}: {why}" for value, why in refusals.items() if why)
        keep = tuple(value for value in values if not refusals.get(value))
        if not keep:
            raise SpaceError(f"space {space.name}: the device can do none of {axis} = {list(values)}")
        return keep

    axes = {axis: kept(axis, values) for axis, values in space.axes.items()}
    own = {f: {a: kept(a, v) for a, v in axes.items()} for f, axes in space.own_axes.items()}
    return replace(space, axes=axes, own_axes=own, left_out=tuple(dict.fromkeys([*space.left_out, *left_out])))


def missing(family: str) -> str:
    """Why a family can't be had here, as the end of a sentence; empty if it can."""
    if family not in OPTIONAL or find_spec(family) is not None:
        return ""
    return f" needs the package {family}, which is not installed: pip install 'edgefront[{family}]'"


def _from_table(name: str, table: dict[str, Any]) -> Space:
    axes = {"runtime": ["onnxruntime"], "threads": [1], "precision": ["fp32"]} | table.get("axes", {})
    return Space(
        name=name,
        title=str(table.get("title", name)),
        variants={family: tuple(names) for family, names in table.get("variants", {}).items()},
        axes={axis: tuple(values) for axis, values in axes.items()},
        models=tuple(table.get("models", ())),
        names_runtimes="runtime" in table.get("axes", {}),
        own_axes={f: {a: tuple(v) for a, v in own.items()} for f, own in table.get("families", {}).items()},
    )


def _without_excluded(space: Space, path: Path) -> Space:
    """The space without what an operation says that a family can't have."""
    own = {family: dict(axes) for family, axes in space.own_axes.items()}
    left_out = []
    for operation, declared in operations().items():
        for (family, value), why in declared.excluded.items():
            axis = next((a for a, o in options().items() if o.operation == operation and value in o.values), operation)
            if family not in space.variants or axis not in space.axes:
                continue
            keep = tuple(v for v in space.values(family, axis) if (v != value if value else v == 0))
            if not keep:
                raise SpaceError(f"{path}: {axis} = ['{value}'] leaves {family} nothing: {why}")
            if keep != space.values(family, axis):
                own.setdefault(family, {})[axis] = keep
                left_out.append(f"{axis} {value} of {family}: {why}" if value else f"{axis} of {family}: {why}")
    return replace(space, own_axes=own, left_out=tuple(left_out))


def _check_table(table: dict[str, Any], path: Path) -> None:
    """Raise SpaceError for a table that is none, or an entry that is no list of the right kind."""
    known = ("title", "variants", "axes", "families", "models")
    if unknown := [name for name in table if name not in known]:
        raise SpaceError(f"{path}: no table {unknown[0]!r}; there are {', '.join(known)}")
    own = table.get("families", {})
    if isinstance(own, list):
        if not own or not all(isinstance(file, str) and file.endswith(SUFFIX) for file in own):
            raise SpaceError(f"{path}: families = {own!r} must be a list of files, such as ['nets{SUFFIX}']")
        own = {}
    models = table.get("models", [])
    if not isinstance(models, list) or not all(isinstance(file, str) and file for file in models):
        raise SpaceError(f"{path}: models = {models!r} must be a list of files, such as ['net{FIXED_SUFFIX}']")
    for part in ("variants", "axes", "families"):
        if not isinstance(own if part == "families" else table.get(part, {}), dict):
            raise SpaceError(f"{path}: {part} must be a table, [{part}] and lines below it")
    for family, names in table.get("variants", {}).items():
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise SpaceError(f"{path}: {family} = {names!r} must be a list of names, such as resnet = ['resnet18']")
    for family, axes in own.items():
        if not isinstance(axes, dict):
            raise SpaceError(f"{path}: families.{family} must be a table, [families.{family}] and lines below it")
    there = (*PLAIN_AXES, *operations(), *options())
    for axis, values in [*table.get("axes", {}).items(), *(item for axes in own.values() for item in axes.items())]:
        if axis not in there:  # refused below, with what there is
            continue
        kinds = (str,) if axis in (*WORDS, *options()) else (int,) if axis in COUNTS else (int, float)
        right = isinstance(values, list) and all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
        if not right:
            kind = "words" if kinds == (str,) else "whole numbers" if kinds == (int,) else "numbers"
            raise SpaceError(f"{path}: {axis} = {values!r} must be a list of {kind}, such as [{EXAMPLES[kind]}]")
        if axis in COUNTS and any(value < 1 for value in values):
            raise SpaceError(f"{path}: {axis} = {values!r} must be 1 or more")


def _with_files(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the table with the families that are files by what is in them, beside the TOML file unless absolute."""
    variants, own = table.get("variants", {}), table.get("families", {})
    if isinstance(own, list):  # files all of whose networks are meant
        variants, own = variants | dict.fromkeys(own, ()), {}

    def named(family: str) -> str:
        return _file_of(path.parent / Path(family).expanduser(), str(path)) if family.endswith(SUFFIX) else family

    return table | {
        "variants": {named(family): names for family, names in variants.items()},
        "families": {named(family): axes for family, axes in own.items()},
        "models": [str(path.parent.absolute() / Path(file).expanduser()) for file in table.get("models", [])],
    }


def _file_of(file: Path, source: str) -> str:
    try:
        if file.suffix != SUFFIX:
            raise OSError(f"it does not end in {SUFFIX}")
        return family_of(file)
    except (OSError, RuntimeError) as error:  # of a home directory that there is none of
        why = getattr(error, "strerror", None) or error
        raise SpaceError(f"{source}: family file {file}: {why}; name a Python file with VARIANTS and build") from None


def _check_labels(space: Space) -> Space:
    """Raise SpaceError where two families would have the same name in tables."""
    known = {path.stem: path for path in FAMILIES.glob("*.py")}
    for family in filter(is_file, space.variants):
        path = split(family)[0]
        if (other := known.setdefault(label(family), path)) != path:
            what = f"the built-in family {other.stem}" if other.parent == FAMILIES else str(other)
            raise SpaceError(f"family file {path} is named like {what}: rename it, since tables show that name")
    return space


def _check_twice(space: Space, source: str) -> Space:
    """Raise SpaceError where two networks have the same name."""
    named = [variant for names in space.variants.values() for variant in names]
    if twice := [variant for place, variant in enumerate(named) if variant in named[:place]]:
        raise SpaceError(f"{source}: [variants] names {twice[0]} twice: name it once, of one family")
    return space


def _check(space: Space, path: Path) -> Space:
    families = sorted(p.stem for p in FAMILIES.glob("*.py") if p.stem != "__init__")
    if not space.models and not any(names or is_file(family) for family, names in space.variants.items()):
        raise SpaceError(f"{path}: [variants] names no network; a line such as resnet = ['resnet18'] is needed")
    if "image_px" not in space.axes:
        raise SpaceError(f"{path}: [axes] needs image_px = [..]")
    for family in [*space.variants, *space.own_axes]:
        if family not in families and not is_file(family):
            known = f"{', '.join(families)}, and files that end in {SUFFIX}"
            raise SpaceError(f"{path}: no family {family!r}; there are {known}")
        if why := missing(family):
            raise SpaceError(f"{path}: family {family}{why}")
    _check_twice(_check_labels(space), str(path))
    there = [*PLAIN_AXES, *operations(), *options()]
    for axis in [*space.axes, *(a for own in space.own_axes.values() for a in own)]:
        if axis not in there:
            raise SpaceError(f"{path}: no axis {axis!r}; there are {', '.join(there)}")
        if axis in options() and options()[axis].operation not in space.axes:
            raise SpaceError(f"{path}: {axis} needs the axis {options()[axis].operation}")
    steps = [axis for axis in space.axes if axis in operations()]
    for step in steps[:-1]:
        if operations()[step].last:
            raise SpaceError(f"{path}: {step} comes before {steps[-1]}, which would undo it: write it below")
    for axis, values in [*space.axes.items(), *(i for own in space.own_axes.values() for i in own.items())]:
        if not values or len(set(values)) != len(values):
            raise SpaceError(f"{path}: {axis} = {list(values)} must name at least one value, each once")
        _check_values(axis, values, path)
    return space


def _check_values(axis: str, values: tuple[Value, ...], path: Path) -> None:
    if axis in options():
        known = options()[axis].values
        if not set(values) <= set(known):
            raise SpaceError(f"{path}: {axis} = {list(values)}; there are {', '.join(known)}")
        return
    if axis in operations() and any(not 0 <= float(value) < 1 for value in values):
        raise SpaceError(f"{path}: {axis} = {list(values)} must be fractions from 0 up to 1")
    plain = "fp32" if axis == "precision" else 0 if axis in operations() else None
    if plain is not None and plain not in values:
        raise SpaceError(f"{path}: {axis} = {list(values)} lacks {plain}, which the plain networks need")


def _suggest(trial: SuggestsParameters, name: str, values: tuple[Value, ...]) -> Value:
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) == len(values) > 2:
        steps = {round(b - a, 9) for a, b in pairwise(numbers)}
        if len(steps) == 1 and next(iter(steps)) > 0:
            step = steps.pop()
            if all(isinstance(v, int) for v in numbers):
                return trial.suggest_int(name, int(numbers[0]), int(numbers[-1]), step=int(step))
            return round(trial.suggest_float(name, numbers[0], numbers[-1], step=step), 9)
    return trial.suggest_categorical(name, list(values))
