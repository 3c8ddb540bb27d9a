"""How many channels, or ranks, are left of a layer: what every operation rounds alike.

Where a device's latency has been seen to step, pruned counts end at the edges of those steps instead of multiples that
are the same everywhere. What they are rounded `to` is told in a word, so that it can stand among a candidate's options:

- `declared`: the nearest multiple of the net's own step, see `granularity`;
- `16+48+64`: up to a count that is 16, 48 or 64 beyond a multiple of 64, the last number being the period (so `16` is
  any multiple of 16); or all of them, where that is fewer;
- `64-8`: 8 fewer than the largest multiple of 64 there is, whatever the amount; a layer narrower than 64 stays as it
  is. Networks of 64-0, 64-8, 64-16 ... have all their layers at the same place of a step: their latencies show it.
"""

from dataclasses import dataclass
from math import ceil
from statistics import median

from torch import nn

from spaces.operation_specs import DECLARED


@dataclass(frozen=True)
class Rounding:
    """What pruned channel counts become. `at` are places beyond a multiple of `period`, 1 up to `period`."""

    period: int
    at: tuple[int, ...] = ()
    less: int | None = None  # of a network that shows the steps: this many fewer than the largest multiple

    def left(self, width: int, amount: float, parts: int = 1) -> int:
        """What is left of each of a layer's `parts` of `width` channels, of which `amount` (0..1) would go."""
        if self.less is not None:
            whole = width * parts - width * parts % self.period
            return max(1, (whole - self.less) // parts) if whole else width
        least = max(1, ceil(width * (1 - amount) - 1e-9))
        return next((n for n in range(least, width) if (n * parts - 1) % self.period + 1 in self.at), width)


def rounding(to: str) -> Rounding:
    """The rounding of such a word. Raises ValueError."""
    try:
        if "-" in to:
            period, less = (int(part) for part in to.split("-"))
            found = Rounding(period, less=less)
        else:
            at = tuple(int(part) for part in to.split("+"))
            found = Rounding(at[-1], at)
    except ValueError:
        raise ValueError(f"channel counts can't be rounded to {to!r}: {DECLARED}, 16, 16+48+64 or 64-8") from None
    if found.period < 1 or not 0 <= (found.less or 0) < found.period or list(found.at) != sorted({*found.at}):
        raise ValueError(
            f"channel counts can't be rounded to {to!r}: the period must be the largest, the rest must rise"
        )
    if found.at and found.at[0] < 1:
        raise ValueError(f"channel counts can't be rounded to {to!r}: each must be at least 1")
    return found


def granularity(net: nn.Module) -> int:
    """What channel counts are rounded to a multiple of: 8, which kernels like; less for nets it would mutilate.

    Half the convolutions being 64 or wider makes a net one for 8. For others it is 4, 2 or 1: at most a quarter of
    the narrowest convolution.
    """
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    widths = widths or [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    if median(widths) >= 64:
        return 8
    return next(step for step in (4, 2, 1) if step == 1 or step <= min(widths) // 4)


def round_width(width: int, amount: float, step: int) -> int:
    """What is left of `width`: the nearest multiple of `step`, at least one step, never more than there are."""
    return min(width, max(step, step * int(width * (1 - amount) / step + 0.5)))
