"""Round the number of channels or ranks that a compression operation leaves of a layer.

If latency steps were measured on a device, pruned channel counts end at the edges of those steps instead of at fixed
multiples. One word, which can be the value of a candidate's option, says how counts are rounded:

- `declared`: to the nearest multiple of the network's own step, see `granularity`;
- `16+48+64`: up to a count that is 16, 48 or 64 beyond a multiple of 64, the last number being the period (so `16` is
  any multiple of 16), or to the layer's full width if that is smaller;
- `64-8`: to 8 fewer than the largest multiple of 64 in the layer, whatever the amount; a layer narrower than 64 keeps
  its width. In networks of 64-0, 64-8, 64-16 ... all layers are at the same place of a step, so their latencies show
  the steps.
"""

from dataclasses import dataclass
from math import ceil
from statistics import median

from torch import nn

from spaces.operation_specs import DECLARED


@dataclass(frozen=True)
class Rounding:
    """Describe how pruned channel counts are rounded.

    Attributes:
        period: Number of channels after which the pattern repeats.
        at: Accepted counts beyond a multiple of `period`, from 1 to `period`, rising.
        less: Number of channels below the largest multiple of `period`, for the networks of a latency probe; else None.
    """

    period: int
    at: tuple[int, ...] = ()
    less: int | None = None

    def left(self, width: int, amount: float, parts: int = 1) -> int:
        """Return the number of channels that each part of a layer keeps.

        Args:
            width: Channels of one part.
            amount: Fraction of channels to remove, 0..1.
            parts: Number of equal parts (groups) of the layer, whose sum is rounded.
        """
        if self.less is not None:
            whole = width * parts - width * parts % self.period
            return max(1, (whole - self.less) // parts) if whole else width
        least = max(1, ceil(width * (1 - amount) - 1e-9))
        return next((n for n in range(least, width) if (n * parts - 1) % self.period + 1 in self.at), width)


def rounding(to: str) -> Rounding:
    """Parse the word that says how counts are rounded, such as `16+48+64` or `64-8`.

    Raises:
        ValueError: The word is not of one of these forms.
    """
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
    """Return the multiple that channel counts are rounded to: 8, which kernels prefer, or less in narrow networks.

    It is 8 if at least half of the convolutions have 64 channels or more. Otherwise it is 4, 2 or 1, and at most a
    quarter of the narrowest convolution.

    Args:
        net: An uncompressed network; linear layers count if it has no convolution.
    """
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    widths = widths or [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)]
    if median(widths) >= 64:
        return 8
    return next(step for step in (4, 2, 1) if step == 1 or step <= min(widths) // 4)


def round_width(width: int, amount: float, step: int) -> int:
    """Return the number of channels or ranks that are kept: the nearest multiple of `step`, at least one step.

    Args:
        width: Present number, which the result never exceeds.
        amount: Fraction to remove, 0..1.
        step: Multiple to round to.
    """
    return min(width, max(step, step * int(width * (1 - amount) / step + 0.5)))
