"""Channel counts that end where a device's latency steps: what is said is what is built, in every family."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spaces.candidate import NoGainError, UnbuildableError
from spaces.channel_rounding import granularity, rounding
from spaces.network import NetworkPlan, apply_steps, build, build_from_plan, family_names, pack, unpack
from spaces.operation_specs import operations
from tests.lightest import lightest

CLASSES, PX = 7, 32
EXCLUDED = operations()["prune"].excluded
FAST = {"cifar_resnet", "mobilenet_v1", "regnet", "tiny_mobile", "tiny_resnet"}  # one with grouped convolutions
FAMILIES = [
    pytest.param(family, lightest(family), id=family, marks=[] if family in FAST else [pytest.mark.slow])
    for family in family_names()
    if (family, "") not in EXCLUDED and family != "densenet"  # twenty seconds, and built of the same layers
]
WORDS = st.sampled_from(["1", "4", "16", "64", "16+48+64", "24+32", "8+16+24+64"])


def widths(net):
    """Channels of every convolution, and the parts it computes apart."""
    return {
        name: (m.out_channels, m.groups if m.groups != m.out_channels else 1)
        for name, m in net.named_modules()
        if isinstance(m, nn.Conv2d)
    }


def cut(family, variant, amount, to):
    net = build(family, variant, CLASSES, PX)
    before = widths(net)
    return net, before, apply_steps(net, [("prune", amount)], PX, CLASSES, [("prune_to", to)])


@given(WORDS, st.integers(1, 2048), st.floats(0, 0.99, allow_subnormal=False))
def test_counts_are_rounded_up_to_an_edge(to, width, amount):
    said, left = rounding(to), rounding(to).left(width, amount)
    assert width * (1 - amount) <= left + 1e-6 and left <= width
    assert left == width or (left - 1) % said.period + 1 in said.at
    between = range(max(1, int(width * (1 - amount)) + 1), left)
    assert not [n for n in between if (n - 1) % said.period + 1 in said.at], "the nearest above"


@given(WORDS, st.integers(1, 64), st.sampled_from([1, 2, 4, 8]), st.floats(0, 0.99, allow_subnormal=False))
def test_parts_are_rounded_by_their_sum(to, width, parts, amount):
    left = rounding(to).left(width, amount, parts)
    assert left == width or (left * parts - 1) % rounding(to).period + 1 in rounding(to).at


@given(st.sampled_from([8, 16, 64]), st.integers(0, 7), st.integers(1, 2048), st.floats(0.001, 0.99))
def test_a_ladders_networks_are_all_at_the_same_place(period, eighths, width, amount):
    left = rounding(f"{period}-{eighths * period // 8}").left(width, amount)
    assert (
        left == width if width < period else (left + eighths * period // 8) % period == 0 and width - left < 2 * period
    )


@pytest.mark.parametrize("to", ["", "x", "16+8", "8+8", "0", "0+8", "-8", "64-64", "64-x", "16.5", "-1+8"])
def test_a_word_that_says_nothing_is_refused(to):
    with pytest.raises(ValueError, match="channel counts can't be rounded to"):
        rounding(to)
    with pytest.raises(UnbuildableError, match="channel counts can't be rounded"):
        cut("tiny_resnet", "res8_w8_s2", 0.3, to)


@pytest.mark.parametrize("family, variant", FAMILIES)
def test_every_family_ends_at_edges_and_is_built_again(family, variant):
    step = granularity(build(family, variant, CLASSES, PX))
    to = str(2 * step)
    net, before, _ = cut(family, variant, 0.5, to)
    after = widths(net)
    assert any(after[name] != before[name] for name in before)
    for name, (count, parts) in after.items():
        was, was_parts = before[name]
        per_part = parts if parts == was_parts and was // parts > 1 else 1
        assert count == was or count % (2 * step) == 0 or per_part > 1, name
    plan = NetworkPlan(
        family=family,
        variant=variant,
        classes=CLASSES,
        image_px=PX,
        steps=(("prune", 0.5),),
        options=(("prune_to", to),),
    )
    again = unpack(pack(net, plan))
    image = torch.randn(1, 3, PX, PX)
    assert torch.equal(net.eval()(image), again(image))


@pytest.mark.parametrize("family, variant", FAMILIES)
def test_every_family_has_a_ladder_of_rising_networks(family, variant):
    step = granularity(build(family, variant, CLASSES, PX))
    sizes = []
    for less in (7, 1, 0):
        net, *_ = cut(family, variant, 1e-6, f"{8 * step}-{less * step}")
        sizes.append(sum(p.numel() for p in net.parameters()))
    assert sizes == sorted(set(sizes)), "each is larger than the one before"


def test_what_saves_nothing_says_so():
    with pytest.raises(NoGainError, match="none saved") as caught:
        build_from_plan(
            NetworkPlan(
                family="tiny_resnet",
                variant="res8_w8_s2",
                classes=CLASSES,
                image_px=PX,
                steps=(("prune", 0.3),),
                options=(("prune_to", "64"),),
            )
        )
    assert caught.value.kind == "no_gain"
