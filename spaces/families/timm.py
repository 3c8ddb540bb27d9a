"""Build any network of the optional package timm (Wightman 2019) by timm's own name, with or without a tag.

A space names them in [variants] as `timm = ["ghostnet_100", "resnet18.a1_in1k"]`. `VARIANTS` lists a few small networks
and accepts every other name that timm has.
"""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType

import torch
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.folding import in_branches
from spaces.network import Variant, fit_stem, head_name

SHOWN = (
    "mobilenetv3_small_100",
    "tf_mobilenetv3_small_100",
    "efficientnet_lite0",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "ghostnet_100",
    "convnext_atto",
)


class Names(Mapping[str, Variant]):
    """Map every name that timm has to a row; iteration lists only a few of the more than a thousand names."""

    def __getitem__(self, name: str) -> Variant:
        timm = package()
        if not timm.is_model(name):
            raise KeyError(name)
        try:
            wanted = timm.get_pretrained_cfg(name)
        except RuntimeError:  # the network has no such tag
            raise KeyError(name) from None
        return Variant(mean=tuple(wanted.mean), std=tuple(wanted.std)) if wanted else Variant()

    def __iter__(self) -> Iterator[str]:
        return iter(SHOWN)

    def __len__(self) -> int:
        return len(SHOWN)

    def close_to(self, name: str) -> tuple[str, ...]:
        """List timm's names that are similar to an unknown one."""
        known = package().list_models(pretrained="." in name)  # names with tags if the unknown one has a tag
        return tuple(difflib.get_close_matches(name, known, 5, 0.5)) or SHOWN


VARIANTS = Names()


def package() -> ModuleType:
    """Import timm.

    Raises:
        UnbuildableError: timm is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UnbuildableError(f"family timm needs the package timm ({error}): pip install 'edgefront[timm]'") from None


def build(variant: str, classes: int, image_px: int) -> nn.Module:
    """Build a network that maps (N, 3, image_px, image_px) to (N, classes).

    Args:
        variant: timm's name of the network.
        classes: Number of outputs.
        image_px: Side of the square input, in px.

    Raises:
        UnbuildableError: timm cannot build the network at this size, or its last layer is not the classifier.
    """
    # exportable: padding and activations become plain operators instead of Python or scripted code
    wanted: dict[str, object] = {"num_classes": classes, "exportable": True}
    try:
        net = _fit_stem(package().create_model(variant, pretrained=False, **wanted), image_px)
        found = tuple(_outputs(net, image_px).shape)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise UnbuildableError(f"timm {variant} at {image_px} px: {' '.join(str(error).split())[:200]}") from None
    if found != (1, classes) or _classes(net) != classes:
        raise UnbuildableError(f"timm {variant}: its classifier is not its last layer, so classes can't be exchanged")
    return net


@torch.no_grad()
def _outputs(net: nn.Module, image_px: int) -> torch.Tensor:
    """Return the outputs for one black image; a network that accepts only one size raises when it runs."""
    out: torch.Tensor = net.eval()(torch.zeros(1, 3, image_px, image_px))
    net.train()
    return out


def _classes(net: nn.Module) -> int:
    """Return the number of outputs of the layer that counts as the classifier."""
    return int(net.get_submodule(head_name(net)).get_parameter("weight").shape[0])


def load_own(net: nn.Module, variant: str) -> str:
    """Load timm's own pretrained weights into a network, by download if they are not in timm's cache.

    Any error of timm, the network or the file system passes through.

    Args:
        net: The network to fill.
        variant: timm's name of the network.

    Returns:
        timm's name of the weights, for reports.

    Raises:
        ValueError: timm has no weights of this network.
    """
    wanted = package().get_pretrained_cfg(variant)
    if wanted is None or not wanted.has_weights:
        raise ValueError(f"timm has no weights of {variant}")
    package().models.load_pretrained(net, wanted.to_dict(), num_classes=_classes(net))
    return f"timm {wanted.architecture}.{wanted.tag}" if wanted.tag else f"timm {wanted.architecture}"


def _fit_stem(net: nn.Module, image_px: int) -> nn.Module:
    """Keep the resolution of small inputs in a stem that begins with a convolution of stride 2; other stems stay."""
    pool = "maxpool" if isinstance(getattr(net, "maxpool", None), nn.MaxPool2d) else ""
    first = next((name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)), "")
    if not first or net.get_submodule(first).stride != (2, 2):
        return net
    if net.get_submodule(first) in in_branches(net):  # the stride of the other branches would remain
        return net
    return fit_stem(net, image_px, conv=first, pool=pool)
