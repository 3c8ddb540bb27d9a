"""A network saved and loaded again computes the same: its shapes follow from the plan saved with its weights."""

import io
from dataclasses import replace

import pytest
import torch

from spaces.network import NetworkPlan, build_from_plan, pack, unpack
from spaces.operation_specs import operations, options
from tests.lightest import every_family

CLASSES, PX = 7, 32
AMOUNT = {"prune": 0.4, "lowrank": 0.5, "sparse": 0.5}
SMALL = {"tiny_mobile", "tiny_resnet"}  # with blocks that narrow and widen, and with plain ones
STEPS = [*(((name, amount),) for name, amount in AMOUNT.items()), tuple(AMOUNT.items())]


def chosen(steps):
    """The last value of every option: not the default."""
    return tuple((name, o.values[-1]) for name, o in options().items() if o.operation in dict(steps))


def trained(plan):
    """Its weights and statistics are no fresh network's any more."""
    net = build_from_plan(plan).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    torch.nn.functional.cross_entropy(net(torch.randn(4, 3, PX, PX)), torch.arange(4)).backward()
    optimizer.step()
    return net.eval()


def saved(net, plan):
    file = io.BytesIO()
    torch.save(pack(net, plan), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def test_every_operation_is_here():
    assert set(AMOUNT) == set(operations())


def plans():
    """Return every family with all the operations it may have, a small one with none and with each of them, too."""
    for row in every_family():
        family, variant = row.values
        allowed = tuple(step for step in STEPS[-1] if (family, "") not in operations()[step[0]].excluded)
        for steps in [(), *STEPS[:-1], allowed] if family in SMALL else [allowed]:
            name = "-".join(name for name, _ in steps) or "plain"
            yield pytest.param(family, variant, steps, id=f"{family}-{name}", marks=row.marks)


@pytest.mark.parametrize("family, variant, steps", plans())
def test_the_same_outputs(family, variant, steps):
    torch.manual_seed(0)
    plan = NetworkPlan(family=family, variant=variant, classes=CLASSES, image_px=PX, steps=steps, options=chosen(steps))
    net, x = trained(plan), torch.randn(2, 3, PX, PX)
    again = unpack(saved(net, plan))
    assert not again.training
    with torch.no_grad():
        assert net(x).isfinite().all(), "else nothing is equal"
        assert torch.equal(again(x), net(x))


def test_loading_leaves_the_random_state_alone():
    plan = NetworkPlan(family="tiny_mobile", variant="mb_w8", classes=CLASSES, image_px=PX, steps=STEPS[-1])
    content = saved(build_from_plan(plan), plan)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    unpack(content)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_cut_do_not_load():
    plan = NetworkPlan(family="tiny_mobile", variant="mb_w8", classes=CLASSES, image_px=PX, steps=(("prune", 0.5),))
    content = pack(build_from_plan(plan), replace(plan, steps=(("prune", 0.25),)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        unpack(content)
