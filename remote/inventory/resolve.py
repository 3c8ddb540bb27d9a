"""Resolve a device name to an entry, detect the kind of board, and fill in the settings that follow from both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from remote.device import ON_CPU, ON_GPU, Device, Facts, Profile
from remote.errors import DeviceConfigError
from remote.inventory.device_files import device_files, entries, format_path, to_device, to_profile
from remote.simulated.boards import BOARDS
from remote.ssh import NO_SUCH_HOST, check_host

SIMULATED = "sim:"
WORKSPACE_MB = 256  # memory for an engine builder on a board without a profile


def load_device(name: str, files: Sequence[Path] | None = None) -> Device:
    """Return the device called `name`: an entry of a devices.toml, `sim:BOARD`, or else a host that ssh is asked about.

    Args:
        name: The value of `--device`.
        files: The files to read; None for the usual ones.

    Raises:
        DeviceConfigError: The name can't be used, or its entry is wrong; the message lists the known devices.
    """
    known, _ = entries(files)
    if name in known:
        return with_python(to_device(known[name]), files)
    if name.startswith(SIMULATED) and name.isprintable() and len(name) > len(SIMULATED):
        return Device(name=name, profile=None, host=None, python=None, runtime=None, simulated=name[len(SIMULATED) :])
    try:
        return Device(name=name, profile=None, host=check_host(name), python=None, runtime=None)
    except DeviceConfigError as error:
        raise DeviceConfigError(f"unknown device {name[:80]!r}; {_list_known(known)}; and {error}") from None


def profiles(files: Sequence[Path] | None = None) -> tuple[Profile, ...]:
    """Return every kind of board, in the order in which they are tried.

    Raises:
        DeviceConfigError: A table is wrong.
    """
    return tuple(to_profile(entry) for entry in entries(files)[1].values())


def find_profiles(name: str, known: Sequence[Profile]) -> tuple[Profile, ...]:
    """Return the profiles that `name` may mean: one by its name, several by an alias such as nano, none if unknown.

    Args:
        name: Name or alias of a profile.
        known: The profiles to choose from.
    """
    return tuple(profile for profile in known if name in (profile.name, *profile.aliases))


def detect(facts: Facts, files: Sequence[Path] | None = None) -> Profile | None:
    """Return the first kind of board that fits the device's facts; None where none does.

    Args:
        facts: Facts that the device reported.
        files: The files to read; None for the usual ones.
    """
    return _detect(facts, profiles(files))


def settle(device: Device, facts: Facts, files: Sequence[Path] | None = None) -> tuple[Device, Profile | None]:
    """Fill in the device's open fields from its profile and its facts.

    The entry wins over the profile. Commands are never filled in: a profile's `prepare` uses sudo, so it is run
    only where the user has entered it.

    Args:
        device: The entry.
        facts: Facts that the device reported.
        files: The files to read; None for the usual ones.

    Returns:
        The device with its profile's name, its runtime and its workspace filled in, and the profile, or None.

    Raises:
        DeviceConfigError: The device is not what it is entered as, or lacks the entered runtime, or has none.
    """
    profile = _agree_on_profile(device, facts, files)
    settled = replace(
        device,
        profile=profile.name if profile else None,
        runtime=_runtime(device, facts, profile),
        workspace_mb=device.workspace_mb or (profile.workspace_mb if profile else WORKSPACE_MB),
    )
    return settled, profile


def unreachable(device: Device, reason: str, files: Sequence[Path] | None = None) -> str:
    """Return one line for a device that can't be reached, with a spelling check if the name is not configured.

    Args:
        device: The device as the name resolved.
        reason: The reason that ssh or the agent gave.
        files: The files to read; None for the usual ones.
    """
    if device.host is None:
        return f"{device.name} can't be started: {reason}"
    known, _ = entries(files)
    if device.name in known:
        return f"{device.name}, by ssh {device.host}: {reason}"
    there = _list_known(known)
    ways = f"; {_ways(device.name)}" if NO_SUCH_HOST in reason else ""
    return f"unknown device {device.name} ({there}), and ssh {device.host} fails: {reason}{ways}"


def _ways(name: str) -> str:
    """Return the ways to go on for a user without an entry for the board, or without a board."""
    bare = name.rpartition("@")[2]
    simulated = bare if any(bare in (board.name, *board.aliases) for board in BOARDS) else "nano"
    return (
        f"enter the board by `python -m remote.devices add {bare} --host USER@ADDRESS`, or try a simulated one by "
        f"`--device sim:{simulated}`, or this machine by `--device local`"
    )


def is_entered(name: str, files: Sequence[Path] | None = None) -> bool:
    """Return whether a devices.toml has the name.

    Args:
        name: Name of a device.
        files: The files to read; None for the usual ones.
    """
    return name in entries(files)[0]


def place(device: Device, files: Sequence[Path] | None = None) -> Path:
    """Return the file that a device is entered in, or the user's own if it is not entered.

    Args:
        device: Any device.
        files: The files to read; None for the usual ones.
    """
    known, _ = entries(files)
    return known[device.name].file if device.name in known else device_files()[1]


def with_python(device: Device, files: Sequence[Path] | None = None) -> Device:
    """Return the device with the interpreter of its profile, which is needed before the device can be asked anything.

    Args:
        device: The entry.
        files: The files to read; None for the usual ones.

    Raises:
        DeviceConfigError: Its profile is not known.
    """
    if device.profile is None:
        return device
    known = profiles(files)
    meant = find_profiles(device.profile, known)
    if not meant:
        names = sorted({name for profile in known for name in (profile.name, *profile.aliases)})
        raise DeviceConfigError(
            f"{format_path(place(device, files))}: [{device.name}] profile {device.profile!r} is unknown; "
            f"accepted: {', '.join(names)}"
        )
    pythons = {profile.python for profile in meant}
    return device if device.python or len(pythons) > 1 else replace(device, python=pythons.pop())


def _list_known(known: Iterable[str]) -> str:
    return f"known: {', '.join(sorted(known)) or 'none'}"


def _detect(facts: Facts, known: Sequence[Profile]) -> Profile | None:
    return next((profile for profile in known if _tells(profile) and _fits(profile, facts)), None)


def _tells(profile: Profile) -> bool:
    """Return whether a profile can be detected; False for a kind that would fit any device."""
    return bool(profile.compatible or profile.board or profile.machine or profile.gpu)


def _fits(profile: Profile, facts: Facts) -> bool:
    by_tree = any(fnmatchcase(text, pattern) for text in facts.compatible for pattern in profile.compatible)
    by_name = bool(profile.board) and profile.board in facts.board
    anything = not profile.compatible and not profile.board
    return (by_tree or by_name or anything) and _could_fit(profile, facts)


def _could_fit(profile: Profile, facts: Facts) -> bool:
    """Return True unless the processor or the lack of a GPU speaks against the profile."""
    return profile.machine in ("", facts.machine) and (facts.gpu is not None or not profile.gpu)


def _agree_on_profile(device: Device, facts: Facts, files: Sequence[Path] | None) -> Profile | None:
    """Return the profile that both the entry and the device stand for.

    Raises:
        DeviceConfigError: The entry and the device differ.
    """
    known = profiles(files)
    if device.profile is None:
        return _detect(facts, known)
    meant = find_profiles(device.profile, known)
    if found := [profile for profile in meant if _fits(profile, facts)]:
        return found[0]
    silent = not facts.board and not facts.compatible  # as in a container: no fact speaks for or against a profile
    if silent and (possible := [profile for profile in meant if _could_fit(profile, facts)]):
        return _trust_entry(device, possible, files)
    says = _self(facts, any(profile.gpu for profile in meant))
    detected = _detect(facts, known)
    kind = f" ({detected.name})" if detected else ", which is no profile"
    here = "" if device.host or device.simulated else "; no host is entered, which means this machine"
    raise DeviceConfigError(
        f"{device.name} is entered as {device.profile}, but it reports {says}{kind}{here}: correct profile in "
        f"{format_path(place(device, files))} or leave it out"
    )


def _trust_entry(device: Device, possible: Sequence[Profile], files: Sequence[Path] | None) -> Profile:
    """Return the profile of the entry where the device does not identify its board.

    Raises:
        DeviceConfigError: The entry may mean several kinds of board.
    """
    exact = [profile for profile in possible if profile.name == device.profile]
    if exact or len(possible) == 1:
        return (exact or list(possible))[0]
    raise DeviceConfigError(
        f"{device.name} is entered as {device.profile}, which means {' or '.join(one.name for one in possible)}, and "
        f"does not say which it is: enter one of them as profile in {format_path(place(device, files))}"
    )


def _self(facts: Facts, gpu_needed: bool) -> str:
    """Return how the device identifies itself."""
    lacking = " without a CUDA GPU" if gpu_needed and facts.gpu is None else ""
    return (repr(facts.board) if facts.board else f"{facts.machine}, {facts.cpu}") + lacking


def _runtime(device: Device, facts: Facts, profile: Profile | None) -> str:
    """Return the runtime to use.

    Raises:
        DeviceConfigError: The device has no runtime, or not the one that is entered.
    """
    there = facts.runtimes
    hint = profile.install if profile and profile.install else "install onnxruntime for the Python that is used there"
    if not there:
        raise DeviceConfigError(f"{device.name} has no runtime for its Python {facts.python}: {hint}")
    if device.runtime:
        if device.runtime in there:
            return device.runtime
        found = ", ".join(f"{name} {version}" for name, version in sorted(there.items()))
        raise DeviceConfigError(
            f"{device.name} has no {device.runtime} for its Python {facts.python}, but {found}; {hint}"
        )
    wanted = profile.runtimes if profile else (*(ON_GPU if facts.gpu else ()), *ON_CPU)
    return next(name for name in (*wanted, *sorted(there)) if name in there)
