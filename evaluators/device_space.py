"""Restrict a search space to the reported and observed capabilities of a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluators.device_probes import ProbeResult
from remote.device import Capabilities, Facts, capabilities
from spaces.space import Space, cut

Probe = Callable[[str, Sequence[str]], ProbeResult]  # runtime, precisions -> result


def cut_to(space: Space, facts: Facts, runtime: str, probe: Probe | None = None) -> tuple[Space, Capabilities]:
    """Restrict a space to a device.

    Args:
        space: Space that the user wants to search.
        facts: Properties that the device reports.
        runtime: Runtime of the device, for spaces that name none.
        probe: Determines whether layers run in a precision; without it only the device's facts decide.

    Returns:
        The restricted space, and the device's capabilities with the runtimes of that space.

    Raises:
        SpaceError: The restricted space is empty.
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
    """Return the capabilities that a device has with every one of some runtimes.

    Args:
        facts: Properties that the device reports.
        runtimes: Runtimes that will be used.
        precisions: Requested precisions; no other is probed.
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
