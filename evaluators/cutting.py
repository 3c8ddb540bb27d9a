"""A space cut to what a device says that it can do."""

from __future__ import annotations

from remote.device import Capabilities, Facts, capabilities
from spaces.space import Space, cut


def cut_to(space: Space, facts: Facts, runtime: str) -> tuple[Space, Capabilities]:
    """The space for a device, and what the device can do with the runtimes of that space.

    `runtime` is the one the device is used with, for spaces that name none. Raises SpaceError if nothing is left.
    """
    named = [str(name) for name in space.axes["runtime"]] if space.names_runtimes else [runtime]
    able = capabilities(facts, [name for name in named if name in facts.runtimes] or [runtime])
    precisions = dict.fromkeys(able.precisions) | able.why_not
    refused = {"sparse": able.no_sparsity}
    return cut(space, precisions, tuple(facts.runtimes), able.threads_max, runtime, refused), able
