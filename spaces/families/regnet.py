"""RegNet (Radosavovic et al. 2020), torchvision's: grouped convolutions, Y with squeeze-and-excitation."""

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {
    name: Variant()
    for name in (
        "regnet_x_400mf",
        "regnet_x_800mf",
        "regnet_x_1_6gf",
        "regnet_y_400mf",
        "regnet_y_800mf",
        "regnet_y_1_6gf",
    )
}


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """(N, 3, image_px, image_px) -> (N, classes)."""
    return fit_stem(get_model(variant, weights=None, num_classes=classes), image_px, conv="stem.0")


def pretrained(variant: str) -> WeightsEnum:
    """torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT
