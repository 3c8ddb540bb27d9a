"""Define the settings of a search: the same fields on the command line, in a TOML file and in Python."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from evaluators.data.resizing import RESIZES, SQUASH
from evaluators.measurement import METRICS
from evaluators.training.augmentation import switches
from remote.errors import UserError
from remote.files import write_file
from search.budget import Budget

Kind = TypeVar("Kind")
TRIALS = 40  # trials of a search that the user did not limit
SEEDS = 2**32  # number of seeds that every random number generator accepts
WHOLE_MAX = 2**31 - 1  # upper limit of other integers
CONFIG_BYTES_MAX = 1 << 20


class SettingsError(UserError):
    """Raised for an invalid setting.

    The message names the setting, the accepted values, and how to fix it, in one line.
    """


@dataclass(frozen=True)
class Settings:
    """Hold the settings of one search; relative paths refer to the caller's working directory.

    Attributes:
        budget_ms: Latency limit in ms.
        percentile: Percentile of latency that the limit applies to, between 0 and 100.
        budget_mb: Limit on peak memory in MB; None for no limit.
        max_drop: Largest accepted loss of `metric` against the greedy baseline, 0..1; None for no limit.
        metric: Accuracy metric, one of METRICS.
        device: Name of a device in `devices.toml`.
        data: Data set: `digits`, a folder, `cifar10:DIR` or `cifar100:DIR`.
        space: Preset or TOML file of the search space; None selects tiny for images up to 64 px and edge for larger
            ones.
        family: Python files with the user's network families, searched in addition to those of the space.
        model: The user's ONNX classifiers, added as fixed candidates.
        table: Folder of a table; its values replace measurements.
        weights: Folder of pretrained weights; `none` starts from scratch; None lets torchvision load them.
        sampler: Name of a file in `search/samplers/`.
        warm_start: Folder of an earlier run to start from.
        trials: Number of trials; None means TRIALS, or with a time limit as many as it allows.
        time_limit_s: Time limit in seconds; None for no limit.
        rungs: Fine-tuning epochs after which unpromising candidates are pruned, ascending.
        probe_share: Share of the run time that measuring latency steps over channel counts may take, 0..1.
        polish_share: Share of the time limit reserved for training the leading candidates longer at the end, 0..1.
        parent_epochs: Epochs of a parent's training; None derives them from the data.
        augment: Augmentation of training images: words of `evaluators.training.augmentation`, comma-separated.
        resize: Method that makes images square: squash, crop or pad.
        val_images: Largest number of validation images by which candidates are compared.
        int8_drop: Accepted loss of int8 against fp32 before stronger quantization methods are tried, 0..1.
        qat_epochs: Epochs of quantization-aware training, the last resort; 0 disables it.
        teacher: Teacher of the candidates: parent, best, a network's name, or an ONNX file.
        distillation: Weight of the teacher's logits in the loss, 0..1; None keeps the recipe's weight.
        temperature: Distillation temperature; None keeps the recipe's.
        seed: Seed of splits, sampler and training.
        sampler_seed: Seed of the sampler alone; None means `seed`.
        out: Run folder.
        cache: Folder of trained parents and decoded images.
    """

    budget_ms: float
    _: KW_ONLY
    percentile: float = 95.0
    budget_mb: float | None = None
    max_drop: float | None = None
    metric: str = "top1"
    device: str = "local"
    data: str = "digits"
    space: str | None = None
    family: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    table: str | None = None
    weights: str | None = None
    sampler: str = "budget"
    warm_start: str | None = None
    trials: int | None = None
    time_limit_s: float | None = None
    rungs: tuple[int, ...] = (0, 1, 3)
    probe_share: float = 0.1
    polish_share: float = 0.25
    parent_epochs: int | None = None
    augment: str = "default"
    resize: str = SQUASH
    val_images: int = 5000
    int8_drop: float = 0.01
    qat_epochs: int = 2
    teacher: str = "parent"
    distillation: float | None = None
    temperature: float | None = None
    seed: int = 0
    sampler_seed: int | None = None
    out: str = "runs/search"
    cache: str = "~/.cache/edgefront"

    def __post_init__(self) -> None:
        checks = {
            **{name: (value <= WHOLE_MAX, f"must not be above {WHOLE_MAX}") for name, value in self._whole()},
            **{name: (_is_text(value), "is not valid text in UTF-8") for name, value in self._texts()},
            **{
                name: (0 <= value < SEEDS, f"must be a whole number from 0 to {SEEDS - 1}")
                for name, value in self._all(int)
                if "seed" in name
            },
        }
        self._check(checks)
        checks = {
            "budget_ms": (self.budget_ms > 0, "must be above 0 ms"),
            "percentile": (0 < self.percentile < 100, "must lie between 0 and 100, both excluded"),
            "budget_mb": (self.budget_mb is None or self.budget_mb > 0, "must be above 0 MB"),
            "max_drop": (
                self.max_drop is None or 0 <= self.max_drop < 1,
                "is a fraction: 0.02 is two points",
            ),
            "metric": (self.metric in METRICS, f"must be one of {', '.join(METRICS)}"),
            "trials": (self.trials is None or self.trials >= 1, "must be at least 1"),
            "time_limit_s": (self.time_limit_s is None or self.time_limit_s > 0, "must be above 0 s"),
            "distillation": (self.distillation is None or 0 <= self.distillation <= 1, "must lie between 0 and 1"),
            "temperature": (self.temperature is None or self.temperature > 0, "must be above 0"),
            "parent_epochs": (self.parent_epochs is None or self.parent_epochs >= 1, "must be at least 1"),
            "warm_start": (
                self.warm_start is None or self.sampler == "budget",
                f"needs sampler budget: {self.sampler} can't start from an earlier run",
            ),
            "polish_share": (0 <= self.polish_share < 1, "is a fraction below 1: 0.25 is a quarter of the time limit"),
            "probe_share": (0 <= self.probe_share <= 1, "is a fraction: 0.1 is a tenth of the run's time"),
            "val_images": (self.val_images >= 1, "must be at least 1"),
            "int8_drop": (0 <= self.int8_drop < 1, "is a fraction: 0.01 is one point"),
            "qat_epochs": (self.qat_epochs >= 0, "must not be below 0"),
            "rungs": (
                bool(self.rungs) and self.rungs[0] >= 0 and list(self.rungs) == sorted(set(self.rungs)),
                "must rise, such as 0, 1, 3",
            ),
        }
        checks["resize"] = self.resize in RESIZES, f"must be one of {', '.join(RESIZES)}"
        try:
            switches(self.augment)
        except ValueError as error:
            checks["augment"] = False, str(error)
        self._check(checks)
        self._check({name: (math.isfinite(value), "must be a finite number") for name, value in self._all(float)})

    def _texts(self) -> list[tuple[str, str]]:
        """Return name and text of all settings that are texts or tuples of texts."""
        lists = [(name, text) for name, texts in self._all(tuple) for text in texts if isinstance(text, str)]
        return [*self._all(str), *lists]

    def _all(self, kind: type[Kind]) -> list[tuple[str, Kind]]:
        """Return name and value of all settings of a type."""
        return [(field.name, value) for field in fields(self) if isinstance(value := getattr(self, field.name), kind)]

    def _whole(self) -> list[tuple[str, int]]:
        """Return name and largest value of all integer settings except seeds."""
        one = [(name, value) for name, value in self._all(int) if "seed" not in name]
        numbers = [(name, [v for v in values if isinstance(v, int)]) for name, values in self._all(tuple)]
        return [*one, *((name, max(values)) for name, values in numbers if values)]

    def _check(self, checks: dict[str, tuple[bool, str]]) -> None:
        for name, (good, must) in checks.items():
            if not good:
                raise SettingsError(f"{name} = {getattr(self, name)!r} {must}")

    def trials_max(self) -> int | None:
        """Return the number of trials after which the search stops; None if only time limits it."""
        return self.trials if self.trials is not None or self.time_limit_s is not None else TRIALS

    def seed_of_sampler(self) -> int:
        """Return the sampler's seed."""
        return self.seed if self.sampler_seed is None else self.sampler_seed

    def budget(self) -> Budget:
        """Return the limits alone."""
        return Budget(
            latency_ms=self.budget_ms,
            percentile=self.percentile,
            peak_mb=self.budget_mb,
            max_drop=self.max_drop,
            metric=self.metric,
        )


# Settings that may differ when a run is resumed: more of the same work, or other folders for the same files.
EXTENDABLE = ("trials", "time_limit_s", "polish_share", "cache", "out")


def from_toml(path: Path, **over: object) -> Settings:
    """Read settings from a TOML file.

    Args:
        path: TOML file, at most CONFIG_BYTES_MAX bytes.
        over: Settings that take precedence over those of the file.

    Raises:
        SettingsError: The file is missing, is no valid TOML, or holds an invalid setting.
    """
    try:
        with path.open("rb") as file:  # an endless file such as /dev/zero is read up to the limit only
            content = file.read(CONFIG_BYTES_MAX + 1)
        if len(content) > CONFIG_BYTES_MAX:
            raise ValueError(f"it is longer than {CONFIG_BYTES_MAX} bytes")
        table = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except FileNotFoundError:
        raise SettingsError(f"no file {path}: --config takes a TOML file, see examples/steel.toml") from None
    except (ValueError, RecursionError, OSError) as error:  # errors of TOML and of UTF-8 are ValueErrors
        raise SettingsError(f"{path} can't be read as TOML: {error or 'it is nested too deep'}") from None
    return from_table(table | over, str(path))


def from_table(table: dict[str, Any], source: str) -> Settings:
    """Build settings from plain values.

    Args:
        table: Values by setting name; dashes count as underscores.
        source: Origin of the values, for error messages.

    Raises:
        SettingsError: A name is unknown, a type is wrong, or a value is invalid.
    """
    table = {name.replace("-", "_"): value for name, value in table.items()}
    if isinstance(table.get("time_limit"), str | int | float) and not isinstance(table["time_limit"], bool):
        table["time_limit_s"] = seconds(table.pop("time_limit"))
    known = {field.name: str(field.type) for field in fields(Settings)}
    for name, value in table.items():
        if name not in known:
            raise SettingsError(f"{source}: unknown setting {name!r}; accepted: {', '.join(known)}")
        table[name] = _check_type(name, value, known[name], source)
    if "budget_ms" not in table:
        raise SettingsError(f"{source}: no budget; --budget-ms 30 (or budget_ms = 30) is needed")
    return Settings(**table)


def seconds(text: str | float) -> float:
    """Convert a duration such as `90`, `90s`, `15m`, `2h` or `1h30m` to seconds.

    Raises:
        SettingsError: The text is no duration.
    """
    if re.fullmatch(r"\s*\d+(\.\d+)?([eE][+-]?\d+)?\s*", str(text)):
        return float(str(text))
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", str(text).strip())
    if not str(text).strip() or parts is None:
        raise SettingsError(f"time limit {text!r} is not a duration such as 90s, 15m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + rest


def write(settings: Settings, path: Path) -> None:
    """Write settings to a TOML file that `from_toml` reads back as the same settings.

    Args:
        settings: Settings to write; those that are None are left out.
        path: File to write.
    """
    lines = [
        # JSON and TOML represent every type used here identically, except for one control character
        f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, value in asdict(settings).items()
        if value is not None
    ]
    write_file(path, "\n".join(lines) + "\n")


def go_on(recorded: Settings, wanted: Settings, folder: Path) -> Settings:
    """Return the settings with which a recorded run is resumed.

    Args:
        recorded: Settings in the run folder.
        wanted: Settings of this call, which may differ in EXTENDABLE only.
        folder: Run folder, for the error message.

    Raises:
        SettingsError: Another setting differs.
    """
    differ = [
        f"{field.name} was {getattr(recorded, field.name)!r}, now {getattr(wanted, field.name)!r}"
        for field in fields(Settings)
        if field.name not in EXTENDABLE and getattr(recorded, field.name) != getattr(wanted, field.name)
    ]
    if differ:
        raise SettingsError(
            f"{folder} holds another run ({'; '.join(differ)}): name another --out, or repeat its command"
        )
    return replace(recorded, **{name: getattr(wanted, name) for name in EXTENDABLE})


def _is_text(value: str) -> bool:
    """Return False for bytes that are not UTF-8, which Python keeps as lone surrogates, and for NUL."""
    return "\0" not in value and not any("\ud800" <= one <= "\udfff" for one in value)


def _check_type(name: str, value: object, kind: str, source: str) -> object:
    if value is None and "None" in kind:
        return None
    item = str if kind.startswith("tuple[str") else int
    if kind.startswith("tuple") and isinstance(value, list | tuple) and all(type(v) is item for v in value):
        return tuple(value)
    if kind.startswith("float") and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise SettingsError(f"{source}: {name} must be a finite number") from None
    if kind.startswith("int") and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind.startswith("str") and isinstance(value, str):
        return value
    raise SettingsError(f"{source}: {name} = {value!r} is not of type {kind}")
