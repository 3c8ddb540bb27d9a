"""Build torchvision's MobileNetV3 (Howard et al. 2019), with squeeze-and-excitation and hard swish."""

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {name: Variant() for name in ("mobilenet_v3_small", "mobilenet_v3_large")}


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: Key of `VARIANTS`.
        classes: Number of outputs.
        image_px: Side of the square input in px; it decides how many halvings the stem keeps.
    """
    return fit_stem(get_model(variant, weights=None, num_classes=classes), image_px, conv="features.0.0")


def imagenet_weights(variant: str) -> WeightsEnum:
    """Return torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT
