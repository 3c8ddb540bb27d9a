"""Build torchvision's ShuffleNetV2 (Ma et al. 2018), whose channel split and shuffle the pruner cannot follow."""

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {name: Variant() for name in ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0")}


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Side of the square input in px; it decides how many halvings the stem keeps.
    """
    net = get_model(variant, weights=None, num_classes=classes)
    return fit_stem(net, image_px, conv="conv1.0", pool="maxpool")


def imagenet_weights(variant: str) -> WeightsEnum:
    """Return torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT
