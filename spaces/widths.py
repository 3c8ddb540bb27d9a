"""How many channels, or ranks, are left of a layer: what every operation rounds alike."""

from statistics import median

from torch import nn


def granularity(net: nn.Module) -> int:
    """What channel counts are rounded to a multiple of: 8, which kernels like; less for nets it would mutilate.

    Half the convolutions being 64 or wider makes a net one for 8. For others it is 4, 2 or 1: at most a quarter of
    the narrowest convolution.
    """
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    if median(widths) >= 64:
        return 8
    return next(step for step in (4, 2, 1) if step == 1 or step <= min(widths) // 4)


def kept(width: int, amount: float, step: int) -> int:
    """What is left of `width`: the nearest multiple of `step`, at least one step, never more than there are."""
    return min(width, max(step, step * int(width * (1 - amount) / step + 0.5)))
