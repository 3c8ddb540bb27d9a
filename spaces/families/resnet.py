"""ResNet (He et al. 2015), torchvision's."""

from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from spaces.network import Variant, fit_stem

VARIANTS = {name: Variant() for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")}


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """(N, 3, image_px, image_px) -> (N, classes)."""
    return fit_stem(get_model(variant, weights=None, num_classes=classes), image_px, conv="conv1", pool="maxpool")


def pretrained(variant: str) -> WeightsEnum:
    """torchvision's best ImageNet weights of this variant."""
    return get_model_weights(variant).DEFAULT
