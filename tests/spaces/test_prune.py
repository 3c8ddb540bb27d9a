"""Structured pruning: cheaper, of a shape that the weights don't decide, still a network."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spaces.candidate import UnbuildableError
from spaces.channel_rounding import granularity, round_width
from spaces.network import apply_steps, build, count_macs, family_names
from spaces.operation_specs import operations
from spaces.operations import prune
from tests.lightest import SLOW, every_family

CLASSES, PX = 7, 32
EXAMPLE = torch.zeros(1, 3, PX, PX)
REST = [("resnet", "resnet50")]  # whose blocks have three convolutions; other variants are longer or wider
EXCLUDED = operations()["prune"].excluded
FAMILIES = every_family([family for family in family_names() if (family, "") not in EXCLUDED]) + [
    pytest.param(f, v, id=v, marks=pytest.mark.slow) for f, v in REST
]
LIGHT = every_family([family for family in family_names() if (family, "") not in EXCLUDED], without=SLOW)
WITH_NORMS = [row for row in LIGHT if (row.values[0], "batchnorm") not in EXCLUDED]


def gradients(net):
    """Two batches of noise, as a task."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(torch.randn(4, 3, PX, PX)), torch.arange(4)).backward()
        yield


def pruned(family, variant, amount, seed=0, **options):
    torch.manual_seed(seed)
    net = build(family, variant, CLASSES, PX)
    for parameter in net.parameters():  # unlike the initial ones, as trained weights are
        parameter.data = torch.randn_like(parameter) * (0.1 + seed)
    chosen = [(f"prune_{name}", value) for name, value in options.items()]
    return apply_steps(net, [("prune", amount)], image_px=PX, classes=CLASSES, options=chosen, gradients=gradients)


def shapes(net):
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


@cache
def cut_shapes(family, variant, seed=0, **options):
    """Return the shapes of a network cut by 0.3, which several tests compare with one another."""
    return shapes(pruned(family, variant, 0.3, seed, **options))


@pytest.mark.parametrize("family, variant", FAMILIES)
def test_work_falls_and_it_still_learns(family, variant):
    whole = count_macs(build(family, variant, CLASSES, PX), EXAMPLE)
    net = pruned(family, variant, 0.3).train()
    assert count_macs(net.eval(), EXAMPLE) < 0.8 * whole
    logits = net.train()(torch.randn(2, 3, PX, PX))
    assert logits.shape == (2, CLASSES)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()


@pytest.mark.parametrize("family, variant", FAMILIES)
def test_shapes_do_not_depend_on_the_weights(family, variant):
    assert cut_shapes(family, variant) == cut_shapes(family, variant, seed=3)


@pytest.mark.parametrize("family, variant", WITH_NORMS)
def test_shapes_do_not_depend_on_the_criterion(family, variant):
    plain = cut_shapes(family, variant, where="late")
    assert all(cut_shapes(family, variant, by=by, where="late") == plain for by in ("batchnorm", "taylor"))


@pytest.mark.parametrize("where", ["early", "late"])
@pytest.mark.parametrize("family, variant", LIGHT)
def test_one_end_of_the_net_loses_more(family, variant, where):
    """Measured by what is left of the first and of the last third of the layers."""
    layers = [name for name, m in build(family, variant, CLASSES, PX).named_modules() if isinstance(m, torch.nn.Conv2d)]
    shares = []
    for cut in (cut_shapes(family, variant, where=where), cut_shapes(family, variant)):
        widths = [cut[f"{name}.weight"][0] for name in layers]
        third = max(1, len(layers) // 3)
        shares.append(sum(widths[:third]) / sum(widths[-third:]))
    assert shares[0] < shares[1] if where == "early" else shares[0] > shares[1]


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 20), st.sampled_from(["even", "early", "late"]))
def test_the_mean_amount_is_what_was_asked(amount, other, last, where):
    depths = [place / last if last else 0.5 for place in range(last + 1)]
    amounts = [prune.tilt_amount(amount, depth, where) for depth in depths]
    assert sum(amounts) / len(amounts) == pytest.approx(amount)
    assert all(0 < a < 1 for a in amounts)
    more = [prune.tilt_amount(max(amount, other), depth, where) for depth in depths]
    less = [prune.tilt_amount(min(amount, other), depth, where) for depth in depths]
    assert all(a >= b for a, b in zip(more, less, strict=True))


def test_criteria_rank_by_what_they_are_named_for():
    """In each case one half of a block's channels is better by one criterion alone."""
    low, high = list(range(4)), list(range(4, 8))

    def remaining(by, change, task=None):
        torch.manual_seed(0)
        net = build("tiny_resnet", "res8_w8_s2", CLASSES, PX).eval()
        block = net.features[1]
        block.conv1.weight.data[:] = torch.randn_like(block.conv1.weight)
        change(block)
        weight = block.conv1.weight.data.clone()
        apply_steps(net, [("prune", 0.5)], image_px=PX, classes=CLASSES, options=[("prune_by", by)], gradients=task)
        # inputs are cut as well: a channel is known by weights it kept
        left = net.features[1].conv1.weight.data.flatten(1)
        return [i for i in range(8) if any(set(row.tolist()) <= set(weight[i].flatten().tolist()) for row in left)]

    def loud_but_scaled_down(block):
        block.conv1.weight.data[low] *= 10
        block.bn1.weight.data[low] = 0.1

    assert remaining("magnitude", loud_but_scaled_down) == low
    assert remaining("batchnorm", loud_but_scaled_down) == high

    def loud_but_of_no_use(block):
        block.conv1.weight.data[low] *= 10
        block.conv2.weight.data[:, low] = 0.0  # nothing comes of them, so no gradient reaches them

    assert remaining("magnitude", loud_but_of_no_use) == low
    assert remaining("taylor", loud_but_of_no_use, gradients) == high


@pytest.mark.parametrize("by", ["batchnorm", "taylor"])
def test_without_anything_to_go_by_magnitude_decides(by):
    """Of a net as initialised every scale is 1, and it has no gradients: so one timing serves every criterion."""
    nets = []
    for criterion in ("magnitude", by):
        torch.manual_seed(0)
        net = build("tiny_mobile", "mb_w8", CLASSES, PX)
        nets.append(apply_steps(net, [("prune", 0.5)], PX, CLASSES, [("prune_by", criterion)]))
    assert all(torch.equal(a, b) for a, b in zip(*(net.parameters() for net in nets), strict=True))


def test_an_unknown_option_says_what_there_is():
    with pytest.raises(UnbuildableError, match="unknown prune_by 'luck'; accepted: magnitude, batchnorm, taylor"):
        pruned("tiny_mobile", "mb_w8", 0.3, by="luck")


def test_the_same_weights_are_cut_alike():
    one, two = pruned("tiny_mobile", "mb_w8", 0.5), pruned("tiny_mobile", "mb_w8", 0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@given(st.integers(1, 512), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from([1, 2, 4, 8]))
def test_what_is_kept_is_near_what_was_asked(width, amount, other, step):
    keeps = round_width(width, amount, step)
    assert 1 <= keeps <= width
    assert keeps == width or keeps % step == 0
    assert abs(keeps - width * (1 - amount)) <= max(step / 2, step - width * (1 - amount))
    assert round_width(width, max(amount, other), step) <= round_width(width, min(amount, other), step)


@pytest.mark.parametrize(
    "family, variant",
    [("tiny_resnet", "res8_w4_s2"), ("mobilenet_v1", "mobilenet_v1_025"), ("regnet", "regnet_x_400mf")],
)
def test_a_larger_amount_never_costs_more(family, variant):
    """The pruner's own rounding breaks this, for grouped convolutions and where a layer is narrow."""
    costs = [count_macs(pruned(family, variant, amount), EXAMPLE) for amount in (0.2, 0.4, 0.6, 0.8, 0.95)]
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0] / 3


def test_the_strongest_channels_stay():
    """Channels of nought go first: cutting them changes no output."""
    torch.manual_seed(0)
    net = build("tiny_resnet", "res8_w8_s2", CLASSES, PX).eval()
    block = net.features[1]
    dead = [1, 4, 5, 6]
    for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
        tensor.data[dead] = 0.0
    block.conv2.weight.data[:, dead] = 0.0
    conv1 = block.conv1.weight.data.clone()
    apply_steps(net, [("prune", 0.5)], PX, CLASSES)
    assert net.features[1].conv1.weight.shape[0] == 4
    kept = [i for i in range(8) if i not in dead]
    outcome = {round(float(place.sum()), 5) for row in net.features[1].conv1.weight.data for place in row}
    assert outcome <= {round(float(place.sum()), 5) for row in conv1[kept] for place in row}


def test_channels_are_rounded_to_eight_where_nets_are_wide():
    assert granularity(build("mobilenet_v2", "mobilenet_v2", CLASSES, PX)) == 8
    net = pruned("resnet", "resnet18", 0.3)
    assert {m.out_channels % 8 for m in net.modules() if isinstance(m, torch.nn.Conv2d)} == {0}


@pytest.mark.parametrize("variant, step", [("res8_w4_s2", 1), ("res8_w8_s2", 2), ("res8_w16_s2", 4)])
def test_narrow_nets_are_rounded_finer(variant, step):
    assert granularity(build("tiny_resnet", variant, CLASSES, PX)) == step


def test_what_must_keep_its_width_keeps_it():
    """Option A's shortcuts pad channels, so only the inside of a block narrows."""
    before, after = build("cifar_resnet", "cifar_resnet20", CLASSES, PX), pruned("cifar_resnet", "cifar_resnet20", 0.5)
    for a, b in zip(before.layer2, after.layer2, strict=True):
        assert (a.conv1.out_channels, b.conv1.out_channels) == (32, 16)
        assert a.conv2.out_channels == b.conv2.out_channels == 32


def test_nothing_to_cut_changes_nothing():
    net = build("tiny_mobile", "mb_w8", CLASSES, PX)
    before = shapes(net)
    assert shapes(apply_steps(net, [("prune", 0.0)], PX, CLASSES)) == before


@pytest.mark.parametrize("amount", [-0.1, 1.0, 1.5])
def test_an_impossible_amount_is_refused(amount):
    with pytest.raises(UnbuildableError, match="not a fraction"):
        pruned("tiny_mobile", "mb_w8", amount)


def test_saving_nothing_is_a_failure():
    net = build("cifar_resnet", "cifar_resnet20", CLASSES, PX)
    net.fixed_layers = tuple(n for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d))
    with pytest.raises(UnbuildableError, match="none saved"):
        apply_steps(net, [("prune", 0.3)], PX, CLASSES)


def test_training_mode_is_kept():
    net = build("tiny_mobile", "mb_w8", CLASSES, PX).train()
    assert apply_steps(net, [("prune", 0.25)], PX, CLASSES).training
