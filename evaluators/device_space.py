"""A space cut to what a device says that it can do, and was seen to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluators.device_probes import ProbeResult
from remote.device import Capabilities, Facts, capabilities
from spaces.space import Space, cut

Probe = Callable[[str, Sequence[str]], ProbeResult]  # runtime, precisions -> what was seen of them


def cut_to(space: Space, facts: Facts, runtime: str, probe: Probe | None = None) -> tuple[Space, Capabilities]:
    """Return the space for a device, and what the device can do with the runtimes of that space.

    Args:
        space: What a user wants searched.
        facts: What the device says of itself.
        runtime: The one the device is used with, for spaces that name none.
        probe: Shows whether layers run in a precision; without it the device's facts alone decide.

    Raises:
        SpaceError: Nothing is left.
        DeviceError: The device failed while it was probed.
    """
    named = [str(name) for name in space.axes["runtime"]] if space.names_runtimes else [runtime]
    used = [name for name in named if name in facts.runtimes] or [runtime]
    axes = (space.axes, *space.own_axes.values())
    wanted = dict.fromkeys(str(name) for axis in axes for name in axis.get("precision", ()))
    able = able_to(facts, used, list(wanted), probe)
    precisions = dict.fromkeys(able.precisions) | able.why_not
    refused = {"sparse": able.no_sparsity}
    return cut(
        space,
        precisions,
        runtimes=tuple(facts.runtimes),
        threads_max=able.threads_max,
        runtime=runtime,
        refused=refused,
    ), able


def able_to(
    facts: Facts, runtimes: Sequence[str], precisions: Sequence[str], probe: Probe | None = None
) -> Capabilities:
    """Return what a device can do with every one of some runtimes.

    Args:
        facts: What the device says of itself.
        runtimes: Those that are to be used.
        precisions: Those that are asked for: no other is probed.
        probe: As for `cut_to`.

    Raises:
        DeviceError: The device failed while it was probed.
    """
    if probe is None:
        return capabilities(facts, runtimes)
    seen = {name: probe(name, precisions) for name in runtimes if name in facts.runtimes}
    basis: dict[str, str] = {}
    for found in seen.values():
        basis |= {precision: how for precision, how in found.basis.items() if precision not in basis}
    return capabilities(facts, runtimes, {name: found.why_not for name, found in seen.items()}, basis)
