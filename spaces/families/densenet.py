"""Build torchvision's DenseNet (Huang et al. 2016)."""

import re

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {name: Variant() for name in ("densenet121",)}

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Side of the square input in px; it decides how many halvings the stem keeps.
    """
    net = get_model(variant, weights=None, num_classes=classes)
    net.register_load_state_dict_pre_hook(_rename)
    return fit_stem(net, image_px, conv="features.conv0", pool="features.pool0")


def imagenet_weights(variant: str) -> WeightsEnum:
    """Return torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT


def _rename(net: nn.Module, state: dict[str, object], *_: object) -> None:
    # torchvision's weight file is older than its code: the file has norm.1 for the network's norm1.
    for name in [name for name in state if OLD_NAME.search(name)]:
        state[OLD_NAME.sub(r"\1\2", name)] = state.pop(name)
