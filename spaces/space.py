"""Define the joint search space: its candidates, and how an Optuna trial suggests one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from remote.errors import UserError
from spaces.candidate import Candidate
from spaces.family_files import FIXED_SUFFIX, SUFFIX, family_of, is_file, is_fixed, label, split
from spaces.operation_specs import operations, options

PRESETS = Path(__file__).parent / "presets"
FAMILIES = Path(__file__).parent / "families"
OPTIONAL = ("timm",)  # families that need the package of the same name, an optional dependency
PLAIN_AXES = ("image_px", "precision", "runtime", "threads")
WORDS, COUNTS = ("precision", "runtime"), ("image_px", "threads")  # axes of words, and of whole numbers from 1 up
EXAMPLES = {"words": "'fp32', 'int8'", "whole numbers": "64, 96", "numbers": "0.0, 0.5"}

Value = str | int | float


class SpaceError(UserError):
    """Raised for an invalid space. The one-line message names the value, the accepted values and what to do."""


class WeightsError(SpaceError):
    """Raised for unusable weights. The message names the file, its content and what to do."""


class SuggestsParameters(Protocol):
    """Describe the part of an Optuna trial that a space uses."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Suggest one of `choices`."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Suggest a whole number from `low` to `high`, both included."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """Suggest a number from `low` to `high`, both included."""
        ...


class CandidateSet(Protocol):
    """Describe the part of a space that a search uses: candidates, and the trial parameters that stand for them."""

    @property
    def name(self) -> str:
        """Return the name of the space."""
        ...

    def size(self) -> int:
        """Count the candidates."""
        ...

    def params(self) -> Iterator[dict[str, Value]]:
        """Iterate over all candidates as trial parameters."""
        ...

    def suggest(self, trial: SuggestsParameters) -> Candidate:
        """Return the candidate that a trial suggests."""
        ...

    def candidate(self, params: Mapping[str, Value]) -> Candidate:
        """Return the candidate of a trial's parameters."""
        ...

    def params_of(self, candidate: Candidate) -> dict[str, Value]:
        """Return the trial parameters of a candidate; the inverse of `candidate`."""
        ...

    def parents(self) -> tuple[Candidate, ...]:
        """Return the uncompressed networks, of which the greedy baseline is one."""
        ...

    def numbers(self) -> list[tuple[float, ...]]:
        """Return the features of each candidate that are known before any measurement, in the order of `params`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Space:
    """Describe a search space by its networks, axes and values.

    An axis is plain, or an operation's amount (`prune`), or an operation's option (`prune_by`). A point has an option
    only if the operation's amount is above 0.

    Attributes:
        name: Name of the preset or stem of the TOML file.
        title: One-line description.
        variants: Variants by family; empty for a user's file that has not been read yet, which means all of its
            networks.
        axes: Values by axis.
        own_axes: Values by family and axis, for the axes on which a family differs.
        left_out: One line for each value that a family or the device does not support, with the reason.
        models: Paths of ONNX classifiers that the TOML file names; empty after `add_models`.
        names_runtimes: Whether the TOML file has a runtime axis. Otherwise candidates run on the device's runtime.
    """

    name: str
    title: str
    variants: Mapping[str, tuple[str, ...]]
    axes: Mapping[str, tuple[Value, ...]]
    own_axes: Mapping[str, Mapping[str, tuple[Value, ...]]]
    left_out: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    names_runtimes: bool = False

    def values(self, family: str, axis: str) -> tuple[Value, ...]:
        """Return the values of an axis for a family.

        Args:
            family: A family of the space.
            axis: An axis of the space; the family's own values take precedence.
        """
        return self.own_axes.get(family, {}).get(axis, self.axes[axis])

    def family_of(self, variant: str) -> str:
        """Return the family that has this variant."""
        return next(family for family, names in self.variants.items() if variant in names)

    @property
    def trained(self) -> Mapping[str, tuple[str, ...]]:
        """Return the variants by family, without the fixed classifiers."""
        return {family: names for family, names in self.variants.items() if not is_fixed(family)}

    def parent_px(self, family: str) -> int:
        """Return the family's largest input size in px, at which parents are trained and the greedy baseline runs."""
        return max(int(px) for px in self.values(family, "image_px"))

    def parents(self) -> tuple[Candidate, ...]:
        """Return the uncompressed network of every variant, at the largest input size with the fewest threads."""
        runtime, threads = str(self.axes["runtime"][0]), min(int(n) for n in self.axes["threads"])
        return tuple(
            Candidate(family=family, variant=variant, image_px=self.parent_px(family), runtime=runtime, threads=threads)
            for family, names in self.variants.items()
            for variant in names
        )

    def size(self) -> int:
        """Count the candidates."""
        return sum(1 for _ in self.params())

    def params(self) -> Iterator[dict[str, Value]]:
        """Iterate over all points as the parameters that a trial would suggest."""
        for family, names in self.variants.items():
            amounts = [axis for axis in self.axes if axis not in options()]
            for variant, *point in product(names, *(self.values(family, axis) for axis in amounts)):
                base = dict(zip(amounts, point, strict=True))
                asked = self._active_options(base)
                for chosen in product(*(self.values(family, axis) for axis in asked)):
                    named = base | dict(zip(asked, chosen, strict=True))
                    yield {"variant": variant} | {self._name(family, axis): v for axis, v in named.items()}

    def numbers(self) -> list[tuple[float, ...]]:
        """Return the features of each candidate that are known before any measurement, in the order of `params`.

        They are the input's area in px^2, the fraction (0..1) that each operation keeps, and the number of threads.
        """
        steps = [axis for axis in self.axes if axis in operations()]
        found = []
        for candidate in map(self.candidate, self.params()):
            kept = (1 - candidate.amount(step) for step in steps)
            found.append((float(candidate.image_px**2), *kept, float(candidate.threads)))
        return found

    def suggest(self, trial: SuggestsParameters) -> Candidate:
        """Return the candidate that a trial suggests. Evenly spaced numbers are suggested as ordered distributions."""
        variant = trial.suggest_categorical("variant", [v for names in self.variants.values() for v in names])
        family = self.family_of(variant)
        point: dict[str, Value] = {}
        for axis in (axis for axis in self.axes if axis not in options()):
            point[axis] = _suggest(trial, self._name(family, axis), self.values(family, axis))
        for axis in self._active_options(point):
            point[axis] = _suggest(trial, self._name(family, axis), self.values(family, axis))
        return self._candidate(family, variant, point)

    def candidate(self, params: Mapping[str, Value]) -> Candidate:
        """Return the candidate of a trial's parameters."""
        variant = str(params["variant"])
        family = self.family_of(variant)
        names = {axis: self._name(family, axis) for axis in self.axes}
        return self._candidate(family, variant, {a: params[name] for a, name in names.items() if name in params})

    def params_of(self, candidate: Candidate) -> dict[str, Value]:
        """Return the trial parameters of a candidate; the inverse of `candidate`."""
        family, chosen = candidate.family, dict(candidate.options)
        point: dict[str, Value] = {
            axis: getattr(candidate, axis) if axis in PLAIN_AXES else candidate.amount(axis)
            for axis in self.axes
            if axis not in options()
        }
        point |= {axis: chosen.get(axis, options()[axis].default) for axis in self._active_options(point)}
        return {"variant": candidate.variant} | {self._name(family, axis): v for axis, v in point.items()}

    def less_cut(self, candidate: Candidate) -> tuple[Candidate, ...]:
        """Return the less compressed candidates that a compressed one must be faster than.

        They are the uncompressed network and, for each step, the candidate with the next smaller amount. The result is
        empty for an uncompressed candidate.
        """
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
        """Return the options that apply to a point: those of operations whose amount is above 0."""
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
        # Optuna allows one distribution per name, so a family's own values need a name of their own.
        return f"{axis}.{label(family)}" if axis in self.own_axes.get(family, {}) else axis


def presets() -> tuple[str, ...]:
    """Return the names of the presets that `load` accepts."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load(name: str) -> Space:
    """Load a space.

    Args:
        name: Name of a preset, or path of a TOML file.

    Raises:
        SpaceError: The file is missing, is not valid TOML, or does not describe a space.
    """
    path = PRESETS / f"{name}.toml" if name in presets() else Path(name)
    if not path.is_file():
        raise SpaceError(f"no space {name!r}: name one of {', '.join(presets())}, or a TOML file like them")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SpaceError(f"{path} is not a TOML file: {error}") from None
    _check_table(table, path)
    table = _with_files(table, path)
    return _without_excluded(_check(_from_table(path.stem, table), path), path)


def add_families(space: Space, files: Sequence[str]) -> Space:
    """Return the space with all networks of further families, each defined in a user's file.

    Args:
        space: The space to extend.
        files: Paths of Python files, as given to `--family`.

    Raises:
        SpaceError: A file cannot be read, or two families would have the same name in tables.
    """
    families = [_file_of(Path(file), "--family") for file in files]
    more = {family: () for family in families if family not in space.variants}
    return _check_labels(replace(space, variants={**space.variants, **more}))


def add_models(space: Space, image_px: Mapping[str, int]) -> Space:
    """Return the space with ONNX classifiers as fixed networks, uncompressed and at every precision.

    Args:
        space: The space to extend.
        image_px: Side of the square input in px, the only one that a classifier accepts, by family.

    Raises:
        SpaceError: A classifier has the name of another network.
    """
    uncut = {axis: (0.0,) for axis in space.axes if axis in operations()}
    variants = {**space.variants, **{family: (label(family),) for family in image_px}}
    own = {**space.own_axes, **{family: {"image_px": (px,), **uncut} for family, px in image_px.items()}}
    return _check_twice(replace(space, variants=variants, own_axes=own, models=()), f"space {space.name}")


def fill_families(space: Space, found: Mapping[str, tuple[str, ...]]) -> Space:
    """Return the space with the networks that user files define.

    Args:
        space: A space whose user families list no variants yet.
        found: Variants by family, as `spaces.family_checks.judge_family` returns them.

    Raises:
        SpaceError: Two networks have the same name.
    """
    return _check_twice(replace(space, variants={**space.variants, **found}), f"space {space.name}")


def cut(
    space: Space,
    precisions: Mapping[str, str | None],
    runtimes: tuple[str, ...],
    threads_max: int,
    runtime: str = "onnxruntime",
    refused: Mapping[str, str] = MappingProxyType({}),
) -> Space:
    """Return the space restricted to the values that a device supports.

    Args:
        space: The space to restrict.
        precisions: By precision, None or the reason why the device does not offer it.
        runtimes: Runtimes that are installed on the device.
        threads_max: Number of the device's CPU cores.
        runtime: Runtime of the device, for spaces without a runtime axis.
        refused: By operation, the reason why the device gains nothing from it; empty if the device may gain.

    Raises:
        SpaceError: The device supports no value of an axis.
    """
    if not space.names_runtimes:
        space = replace(space, axes={**space.axes, "runtime": (runtime,)})
    offered: dict[str, Any] = {
        "precision": lambda value: precisions.get(value, "the device does not support it"),
        "runtime": lambda value: None if value in runtimes else "not installed on the device",
        "threads": lambda value: None if int(value) <= threads_max else f"the device has {threads_max} cores",
    } | {step: lambda value, why=why: why if value else None for step, why in refused.items()}
    left_out: list[str] = []

    def restrict(axis: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        refusals = {value: offered[axis](value) for value in values} if axis in offered else {}
        left_out.extend(f"{axis} {value}: {why}" for value, why in refusals.items() if why)
        keep = tuple(value for value in values if not refusals.get(value))
        if not keep:
            raise SpaceError(f"space {space.name}: the device supports none of {axis} = {list(values)}")
        return keep

    axes = {axis: restrict(axis, values) for axis, values in space.axes.items()}
    own = {f: {a: restrict(a, v) for a, v in axes.items()} for f, axes in space.own_axes.items()}
    return replace(space, axes=axes, own_axes=own, left_out=tuple(dict.fromkeys([*space.left_out, *left_out])))


def missing(family: str) -> str:
    """Return the reason why a family is not available here, as the end of a sentence; empty if it is available."""
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
    """Return the space without the values that the operations exclude for a family."""
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
    """Raise SpaceError for an unknown table, or for an entry that is not a list of the right kind."""
    known = ("title", "variants", "axes", "families", "models")
    if unknown := [name for name in table if name not in known]:
        raise SpaceError(f"{path}: unknown table {unknown[0]!r}; accepted: {', '.join(known)}")
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
        if axis not in there:  # `_check` rejects it and names the known axes
            continue
        kinds = (str,) if axis in (*WORDS, *options()) else (int,) if axis in COUNTS else (int, float)
        right = isinstance(values, list) and all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
        if not right:
            kind = "words" if kinds == (str,) else "whole numbers" if kinds == (int,) else "numbers"
            raise SpaceError(f"{path}: {axis} = {values!r} must be a list of {kind}, such as [{EXAMPLES[kind]}]")
        if axis in COUNTS and any(value < 1 for value in values):
            raise SpaceError(f"{path}: {axis} = {values!r} must be 1 or more")


def _with_files(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the table with family files named by path and content; relative paths start at the TOML file's folder."""
    variants, own = table.get("variants", {}), table.get("families", {})
    if isinstance(own, list):  # a list of files means all of their networks
        variants, own = variants | dict.fromkeys(own, ()), {}

    def resolve_family(family: str) -> str:
        return _file_of(path.parent / Path(family).expanduser(), str(path)) if family.endswith(SUFFIX) else family

    return table | {
        "variants": {resolve_family(family): names for family, names in variants.items()},
        "families": {resolve_family(family): axes for family, axes in own.items()},
        "models": [str(path.parent.absolute() / Path(file).expanduser()) for file in table.get("models", [])],
    }


def _file_of(file: Path, source: str) -> str:
    try:
        if file.suffix != SUFFIX:
            raise OSError(f"it does not end in {SUFFIX}")
        return family_of(file)
    except (OSError, RuntimeError) as error:  # RuntimeError: the home directory is unknown
        why = getattr(error, "strerror", None) or error
        raise SpaceError(f"{source}: family file {file}: {why}; name a Python file with VARIANTS and build") from None


def _check_labels(space: Space) -> Space:
    """Raise SpaceError if two families would have the same name in tables."""
    known = {path.stem: path for path in FAMILIES.glob("*.py")}
    for family in filter(is_file, space.variants):
        path = split(family)[0]
        if (other := known.setdefault(label(family), path)) != path:
            what = f"the built-in family {other.stem}" if other.parent == FAMILIES else str(other)
            raise SpaceError(f"family file {path} has the same name as {what}: rename it, as tables show it")
    return space


def _check_twice(space: Space, source: str) -> Space:
    """Raise SpaceError if two networks have the same name."""
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
            raise SpaceError(f"{path}: unknown family {family!r}; accepted: {known}")
        if why := missing(family):
            raise SpaceError(f"{path}: family {family}{why}")
    _check_twice(_check_labels(space), str(path))
    there = [*PLAIN_AXES, *operations(), *options()]
    for axis in [*space.axes, *(a for own in space.own_axes.values() for a in own)]:
        if axis not in there:
            raise SpaceError(f"{path}: unknown axis {axis!r}; accepted: {', '.join(there)}")
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
            raise SpaceError(f"{path}: {axis} = {list(values)}; accepted: {', '.join(known)}")
        return
    if axis in operations() and any(not 0 <= float(value) < 1 for value in values):
        raise SpaceError(f"{path}: {axis} = {list(values)} must be fractions from 0 up to 1")
    plain = "fp32" if axis == "precision" else 0 if axis in operations() else None
    if plain is not None and plain not in values:
        raise SpaceError(f"{path}: {axis} = {list(values)} lacks {plain}, which the uncompressed networks need")


def _suggest(trial: SuggestsParameters, name: str, values: tuple[Value, ...]) -> Value:
    numbers = [v for v in values if isinstance(v, int | float)]
    if len(numbers) == len(values) > 2:
        steps = {round(b - a, 9) for a, b in pairwise(numbers)}
        if len(steps) == 1 and next(iter(steps)) > 0:
            step = steps.pop()
            if all(isinstance(v, int) for v in numbers):
                return trial.suggest_int(name, int(numbers[0]), int(numbers[-1]), step=int(step))
            return round(trial.suggest_float(name, numbers[0], numbers[-1], step=step), 9)
    chosen: Value = trial.suggest_categorical(name, list(values))
    return chosen
