"""DenseNet (Huang et al. 2016), torchvision's."""

import re
from typing import Any

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {name: Variant() for name in ("densenet121",)}

OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """(N, 3, image_px, image_px) -> (N, classes)."""
    net = get_model(variant, weights=None, num_classes=classes)
    net.register_load_state_dict_pre_hook(_rename)
    return fit_stem(net, image_px, conv="features.conv0", pool="features.pool0")


def pretrained(variant: str) -> WeightsEnum:
    """torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT


def _rename(net: nn.Module, state: dict[str, Any], *_: object) -> None:
    # torchvision's file is older than its code: it says norm.1 where the net says norm1.
    for name in [name for name in state if OLD_NAME.search(name)]:
        state[OLD_NAME.sub(r"\1\2", name)] = state.pop(name)
