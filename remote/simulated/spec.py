"""Parse the text after `sim:`: the board, its behaviour, and how often and how it fails."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from remote.errors import DeviceConfigError
from remote.simulated.boards import BOARDS, SimulatedBoard

# Kind of failure -> the operations in which it may occur. `hello` never fails: a board that fails comes back.
FAULTS = {
    "drop": ("time", "predict", "put", "stat", "state"),
    "hang": ("time", "predict", "put", "stat", "state"),
    "reboot": ("time", "predict", "put", "stat", "state"),
    "oom": ("time", "predict"),
    "disk": ("put",),
    "throttle": ("time",),
}
SLOWED = (1.3, 1.6)
EXAMPLE = "nano,drop=0.05,seed=3"


class SimulationSpecError(DeviceConfigError):
    """Raised for an invalid specification. The message is one line: what was asked, what there is, what to do."""


@dataclass(frozen=True, kw_only=True)
class SimulationSpec:
    """Describe one simulated board and its faults.

    Attributes:
        board: The kind of board.
        faults: Kind of failure -> share of the calls in which it occurs, 0..1.
        seed: Seed of every random draw.
        noise: Standard deviation of a timing's logarithm.
        drift: Relative slowness of a block's first run against its last.
        real_time: Whether jobs take real time; otherwise no call sleeps.
    """

    board: SimulatedBoard
    faults: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    noise: float = 0.01
    drift: float = 0.02
    real_time: bool = False

    def fault(self, op: str, start: int, call: int) -> str:
        """Return the kind of failure of this call, empty for none.

        It is drawn anew for every call of every start of the board, so that a retry is not bound to fail again.

        Args:
            op: Name of the operation.
            start: Number of the board's start.
            call: Number of the call since that start.
        """
        at = random.Random(f"{self.seed} {start} {call}").random()
        for kind, share in self.faults.items():
            if op in FAULTS[kind]:
                at -= share
                if at < 0:
                    return kind
        return ""

    def slowdown(self, start: int, call: int) -> float:
        """Return the factor on the time of a call when the board is throttled by heat.

        Args:
            start: Number of the board's start.
            call: Number of the call since that start.
        """
        return random.Random(f"heat {self.seed} {start} {call}").uniform(*SLOWED)


def parse(text: str) -> SimulationSpec:
    """Return the simulated board of a text such as `nano` or `nano,drop=0.05,time=real`.

    Raises:
        SimulationSpecError: A name, key or value is not known.
    """
    name, *words = [word.strip() for word in text.split(",")]
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in given:
            raise SimulationSpecError(
                f"{word[:40]!r} in sim:{text[:80]} must be one key=value, each once, as in sim:{EXAMPLE}"
            )
        given[key] = value
    known = [*FAULTS, "noise", "drift", "seed", "time"]
    if unknown := [key for key in given if key not in known]:
        raise SimulationSpecError(f"no key {unknown[0][:40]!r} for a simulated board; accepted: {', '.join(known)}")
    faults = {kind: _share(kind, given[kind]) for kind in FAULTS if kind in given}
    if sum(faults.values()) > 1:
        raise SimulationSpecError(f"{', '.join(faults)} of a simulated board add up to more than 1: lower them")
    if given.get("time", "fake") not in ("fake", "real"):
        raise SimulationSpecError(f"time of a simulated board is fake or real, not {given['time'][:40]!r}")
    return SimulationSpec(
        board=find_board(name),
        faults=faults,
        seed=_seed(given.get("seed", "0")),
        noise=_share("noise", given.get("noise", str(SimulationSpec.noise))),
        drift=_share("drift", given.get("drift", str(SimulationSpec.drift))),
        real_time=given.get("time") == "real",
    )


def find_board(name: str) -> SimulatedBoard:
    """Return the board of that name or alias.

    Raises:
        SimulationSpecError: There is none; the message lists the boards.
    """
    for board in BOARDS:
        if name in (board.name, *board.aliases):
            return board
    there = ", ".join(" or ".join((*board.aliases, board.name)) for board in BOARDS)
    raise SimulationSpecError(f"no simulated board {name[:40]!r}; accepted: {there}")


def _share(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise SimulationSpecError(f"{key} of a simulated board is a number from 0 to 1, not {text[:40]!r}")
    return value


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise SimulationSpecError(f"seed of a simulated board is a whole number from 0 on, not {text[:40]!r}")
    return int(text)
