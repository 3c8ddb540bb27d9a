"""Low rank: cheaper, of a shape that the weights don't decide, and the nearer to the layer the higher the rank."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.candidate import UnbuildableError
from spaces.families.mobilenet_v1 import SameConv2d
from spaces.network import apply_steps, build, count_macs, head_name
from spaces.operations import lowrank
from tests.lightest import SLOW, every_family

CLASSES, PX = 7, 32
EXAMPLE = torch.zeros(1, 3, PX, PX)


def thinned(family, variant, amount, seed=0):
    torch.manual_seed(seed)
    net = build(family, variant, CLASSES, PX)
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter) * (0.1 + seed)
    return apply_steps(net, [("lowrank", amount)], PX, CLASSES)


def shapes(net):
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@cache
def thinned_costs(family, variant, seed=0):
    """Return the work of a network thinned by 0.5, and its shapes: two tests need both."""
    net = thinned(family, variant, 0.5, seed).eval()
    return count_macs(net, EXAMPLE), shapes(net)


def layers():
    """A layer of each kind, with what it takes."""
    torch.manual_seed(0)
    return {
        "3x3": (nn.Conv2d(12, 20, 3, padding=1), torch.randn(2, 12, 9, 9)),
        "3x3 stride 2, no bias": (nn.Conv2d(20, 12, 3, 2, bias=False), torch.randn(2, 20, 9, 9)),
        "5x1": (nn.Conv2d(8, 8, (5, 1)), torch.randn(2, 8, 9, 9)),
        "same padding": (SameConv2d(6, 10, 3, 2, bias=False), torch.randn(2, 6, 8, 8)),
        "1x1 wider": (nn.Conv2d(8, 24, 1), torch.randn(2, 8, 5, 5)),
        "1x1 narrower, stride 2": (nn.Conv2d(24, 8, 1, 2), torch.randn(2, 24, 5, 5)),
        "linear": (nn.Linear(30, 16), torch.randn(4, 30)),
        "linear, no bias": (nn.Linear(16, 30, bias=False), torch.randn(4, 16)),
    }


@pytest.mark.parametrize("kind", layers())
def test_full_rank_is_the_layer_itself(kind):
    layer, x = layers()[kind]
    whole = lowrank.decompose(layer, lowrank.ranks_of(layer, 0.0, 1))
    assert torch.allclose(whole(x), layer(x), atol=1e-4)


@pytest.mark.parametrize("kind", layers())
def test_the_output_is_nearer_the_higher_the_rank(kind):
    layer, x = layers()[kind]
    wanted = layer(x)
    off = [
        float((lowrank.decompose(layer, lowrank.ranks_of(layer, amount, 1))(x) - wanted).norm())
        for amount in (0.75, 0.5, 0.25, 0.0)
    ]
    assert off == sorted(off, reverse=True) and off[0] > 0.05 * float(wanted.norm()) and off[-1] < 1e-4


def dense(parts):
    """(outputs, inputs, k, k): the weights of the one convolution that a row of them amounts to."""
    weight = parts[0].weight
    for part in parts[1:]:
        if part.kernel_size == (1, 1):
            weight = torch.einsum("ro,oikl->rikl", part.weight[:, :, 0, 0], weight)
        else:
            weight = torch.einsum("rokl,oi->rikl", part.weight, weight[:, :, 0, 0])
    return weight


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.sampled_from([1, 3]), st.integers(0, 99), st.data())
def test_a_higher_rank_is_never_a_worse_fit(inputs, outputs, k, seed, data):
    """In the norm of the weights: singular vectors of a lower rank are among those of a higher one."""
    torch.manual_seed(seed)
    layer = nn.Conv2d(inputs, outputs, k, bias=False)
    amounts = sorted(
        data.draw(st.lists(st.floats(0.0, 0.95, allow_subnormal=False), min_size=2, max_size=4)), reverse=True
    )
    off = []
    for amount in amounts:
        parts = lowrank.decompose(layer, lowrank.ranks_of(layer, amount, 1))
        off.append(float((dense(parts) - layer.weight).norm()))
    assert all(b <= a + 1e-4 for a, b in pairwise(off))


def test_a_matrix_of_low_rank_loses_nothing():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 1)
    layer.weight.data[:, :, 0, 0] = torch.randn(16, 4) @ torch.randn(4, 16)
    parts, x = lowrank.decompose(layer, (4, 4)), torch.randn(2, 16, 5, 5)
    assert torch.allclose(parts(x), layer(x), atol=1e-4)
    assert [part.weight.shape[:2] for part in parts] == [(4, 16), (16, 4)]


def test_channels_in_between_are_of_one_scale():
    layer, _ = layers()["3x3"]
    *before, _ = lowrank.decompose(layer, (6, 10))
    for part in before:
        norms = part.weight.flatten(1).norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


@pytest.mark.parametrize("family, variant", every_family())
def test_work_falls_and_it_still_learns(family, variant):
    whole = count_macs(build(family, variant, CLASSES, PX), EXAMPLE)
    net = thinned(family, variant, 0.7)
    assert whole > thinned_costs(family, variant)[0] > count_macs(net.eval(), EXAMPLE)
    logits = net.train()(torch.randn(2, 3, PX, PX))
    assert logits.shape == (2, CLASSES)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("family, variant", every_family(without=SLOW))
def test_shapes_do_not_depend_on_the_weights(family, variant):
    assert thinned_costs(family, variant) == thinned_costs(family, variant, seed=3)


def test_what_would_save_nothing_is_left_alone():
    square = nn.Conv2d(16, 16, 1)
    assert not lowrank.saves(square, (8, 8)) and lowrank.saves(square, (7, 7))
    stem = nn.Conv2d(3, 16, 3)
    assert not lowrank.saves(stem, (3, 15)) and lowrank.saves(stem, (3, 8))
    strided = nn.Conv2d(16, 16, 3, 2)  # its first part works on the larger map
    assert lowrank.saves(strided, (8, 8)) and not lowrank.saves(nn.Conv2d(16, 4, 3, 2), (12, 4))


@pytest.mark.parametrize("family, variant", [("mobilenet_v2", "mobilenet_v2"), ("mobilenet_v3", "mobilenet_v3_small")])
def test_classifier_depthwise_and_gates_stay(family, variant):
    before, after = build(family, variant, CLASSES, PX), thinned(family, variant, 0.7)
    stays = [head_name(before)]
    stays += [n for n, m in before.named_modules() if isinstance(m, nn.Conv2d) and (m.groups > 1 or ".fc" in n)]
    assert len(stays) > 10
    for name in stays:
        assert type(after.get_submodule(name)) is type(before.get_submodule(name))
    assert head_name(after) == head_name(before)


@pytest.mark.parametrize("steps", [("prune", "lowrank"), ("lowrank", "prune")])
@pytest.mark.parametrize("family, variant", [("cifar_resnet", "cifar_resnet20"), ("mobilenet_v2", "mobilenet_v2")])
def test_it_goes_together_with_pruning(family, variant, steps):
    def costs(names):
        net = build(family, variant, CLASSES, PX)
        return count_macs(apply_steps(net, [(name, 0.5) for name in names], PX, CLASSES).eval(), EXAMPLE)

    assert costs(steps) < 0.9 * min(costs([name]) for name in steps)


@pytest.mark.parametrize("amount", [-0.1, 1.0, 1.5])
def test_an_impossible_amount_is_refused(amount):
    with pytest.raises(UnbuildableError, match="not a fraction"):
        thinned("tiny_mobile", "mb_w8", amount)


def test_saving_nothing_is_a_failure():
    with pytest.raises(UnbuildableError, match="none saved"):
        thinned("mobilenet_v1", "mobilenet_v1_025", 0.05)


def test_nothing_to_remove_changes_nothing_and_training_mode_is_kept():
    net = build("tiny_mobile", "mb_w8", CLASSES, PX).train()
    before = shapes(net)
    assert shapes(apply_steps(net, [("lowrank", 0.0)], PX, CLASSES)) == before
    assert apply_steps(net, [("lowrank", 0.5)], PX, CLASSES).training
