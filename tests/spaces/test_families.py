"""What every family keeps; a new file in `spaces/families/` is tested by being there."""

import itertools
import subprocess
import sys

import pytest
import torch

from spaces import network
from spaces.candidate import UnbuildableError
from spaces.network import build, family_names, head_name, normalisation, variants

EVERY = [(family, variant) for family in family_names() for variant in variants(family)]
HEAVY = {"resnet50", "resnet101", "resnet152", "densenet121", "efficientnet_b1", "efficientnet_b2"}
OWN = ("cifar_resnet", "mobilenet_v1", "tiny_mobile", "tiny_resnet")
FIT_FOR_SMALL = {"cifar_resnet", "tiny_mobile", "tiny_resnet"}  # their stem is the same at every size
CLASSES = 7


def marked(pairs):
    return [
        pytest.param(family, variant, id=variant, marks=[pytest.mark.slow] if variant in HEAVY else [])
        for family, variant in pairs
    ]


def test_variant_names_are_unique():
    names = [variant for _, variant in EVERY]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("family, variant", marked(EVERY))
def test_it_computes_and_learns(family, variant):
    image_px = 64 if variant == next(iter(variants(family))) else 32
    net = build(family, variant, CLASSES, image_px).train()
    logits = net(torch.randn(2, 3, image_px, image_px))
    assert logits.shape == (2, CLASSES) and logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert without == [] and all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("family, variant", marked(EVERY))
def test_one_parents_weights_fit_every_size(family, variant):
    shapes = [
        {name: tensor.shape for name, tensor in build(family, variant, CLASSES, px).state_dict().items()}
        for px in (32, 224)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("family", family_names())
def test_a_small_input_is_not_thrown_away(family):
    """What comes to the classifier's pooling: at 32 px at least as wide as 1/16, where plain nets have 1/32."""
    variant = next(iter(variants(family)))
    net = build(family, variant, CLASSES, 32).eval()
    widths = []
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.register_forward_hook(lambda _, inputs, output: widths.append(output.shape[-1]))
    with torch.no_grad():
        net(torch.zeros(1, 3, 32, 32))
    assert min(widths) >= 2
    if family not in FIT_FOR_SMALL and family != "squeezenet":
        assert widths[0] == 32, "the stem of a net made for 224 px must not halve 32 px"


@pytest.mark.parametrize("family", sorted(set(family_names()) - FIT_FOR_SMALL))
def test_large_inputs_keep_the_published_stem(family):
    variant = next(iter(variants(family)))
    layers = list(build(family, variant, CLASSES, 224).modules())
    first = next(layer for layer in layers if isinstance(layer, torch.nn.Conv2d))
    assert first.stride == (2, 2)


@pytest.mark.parametrize("family, variant", [(f, next(iter(variants(f)))) for f in family_names()])
def test_the_classifier_is_found(family, variant):
    net = build(family, variant, CLASSES, 64)
    assert net.get_submodule(head_name(net)).weight.shape[0] == CLASSES


@pytest.mark.parametrize("family, variant", EVERY)
def test_normalisation_is_of_inputs_from_0_to_1(family, variant):
    mean, std = normalisation(family, variant)
    assert len(mean) == len(std) == 3 and all(0 < value < 1 for value in (*mean, *std))


def test_own_families_do_not_import_torchvision():
    names = ", ".join(f"spaces.families.{family}" for family in OWN)
    code = f"import sys, {names}; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_names_say_what_there_is():
    with pytest.raises(UnbuildableError, match="not known; accepted: cifar_resnet, densenet") as caught:
        build("vgg", "vgg16", CLASSES, 32)
    assert "\n" not in str(caught.value) and caught.value.kind == "unbuildable"
    with pytest.raises(UnbuildableError, match="no variant 'resnet19'; it has resnet18"):
        build("resnet", "resnet19", CLASSES, 32)
    with pytest.raises(UnbuildableError, match="unknown operation 'squash'; accepted: lowrank, prune"):
        network.apply_steps(torch.nn.Identity(), [("squash", 0.5)], 32, CLASSES)


@pytest.mark.parametrize("family", sorted(network.LEFT_OUT))
def test_a_family_left_out_says_why(family):
    assert family not in family_names()
    with pytest.raises(UnbuildableError, match="is left out: "):
        build(family, family, CLASSES, 32)


def test_same_padding_is_tensorflows():
    """Stride 2: an even input is padded right and below only, an odd one on both sides."""
    from spaces.families.mobilenet_v1 import SameConv2d

    layer = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    for size, corner_sum in ((4, 9.0), (5, 4.0)):
        output = layer(torch.ones(1, 1, size, size))
        assert output.shape[-1] == -(-size // 2) and output[0, 0, 0, 0].item() == corner_sum
    for stride, size in itertools.product((1, 2), range(1, 9)):
        layer.stride = (stride, stride)
        assert layer(torch.ones(1, 1, size, size)).shape[-1] == -(-size // stride)
