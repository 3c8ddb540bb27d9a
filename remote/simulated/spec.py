"""What stands behind `sim:`: which board, how it behaves, how often and how it fails."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from remote.errors import DeviceConfigError
from remote.simulated.boards import BOARDS, SimulatedBoard

# Kinds of failure, and the operations each may befall. Never `hello`: a board that fails comes back.
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
    """A specification that says nothing sensible: one line with what was asked, what there is, what to do."""


@dataclass(frozen=True, kw_only=True)
class SimulationSpec:
    """One simulated board."""

    board: SimulatedBoard
    faults: dict[str, float] = field(default_factory=dict)  # kind -> how many of the calls it befalls, 0..1
    seed: int = 0
    noise: float = 0.01  # standard deviation of a timing's logarithm
    drift: float = 0.02  # how much slower the first run of a block is than the last
    real_time: bool = False  # else nothing sleeps

    def fault(self, op: str, start: int, call: int) -> str:
        """The kind of failure that befalls this call, empty for none.

        Drawn anew for every call of every start of the board, so that trying again is not bound to fail again.
        """
        at = random.Random(f"{self.seed} {start} {call}").random()
        for kind, share in self.faults.items():
            if op in FAULTS[kind]:
                at -= share
                if at < 0:
                    return kind
        return ""

    def slowdown(self, start: int, call: int) -> float:
        """How many times as long this call takes if the board is too hot for it."""
        return random.Random(f"heat {self.seed} {start} {call}").uniform(*SLOWED)


def parse(text: str) -> SimulationSpec:
    """The board of `nano` or `nano,drop=0.05,time=real`. Raises SpecError."""
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
        raise SimulationSpecError(f"no key {unknown[0][:40]!r} for a simulated board; there are {', '.join(known)}")
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
    """The board of that name or alias. Raises SpecError, which lists them."""
    for board in BOARDS:
        if name in (board.name, *board.aliases):
            return board
    there = ", ".join(" or ".join((*board.aliases, board.name)) for board in BOARDS)
    raise SimulationSpecError(f"no simulated board {name[:40]!r}; there are {there}")


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
