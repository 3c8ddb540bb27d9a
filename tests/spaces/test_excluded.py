"""What operations say families can't have: it fails indeed, and everything else works."""

import pytest

from spaces.candidate import UnbuildableError
from spaces.network import NetworkPlan, build_from_plan, family_names
from spaces.operation_specs import operations, options
from spaces.space import SpaceError, load
from tests.lightest import SLOW, every_family, lightest

CLASSES, PX = 7, 32
AMOUNT = {"prune": 0.3, "lowrank": 0.5, "sparse": 0.5}
EXCLUDED = [(op, family, value) for op, declared in operations().items() for family, value in declared.excluded]


def plan(operation, family, value=""):
    chosen = tuple((name, value) for name, o in options().items() if o.operation == operation and value in o.values)
    return NetworkPlan(
        family=family,
        variant=lightest(family),
        classes=CLASSES,
        image_px=PX,
        steps=((operation, AMOUNT[operation]),),
        options=chosen,
    )


@pytest.mark.parametrize("operation, family, value", EXCLUDED)
def test_what_is_excluded_fails(operation, family, value):
    """Once it works, as after an update of a library, it is no longer to be excluded."""
    assert family in family_names()
    with pytest.raises(UnbuildableError, match=operation):
        build_from_plan(plan(operation, family, value))


@pytest.mark.parametrize("operation", operations())
@pytest.mark.parametrize("family, variant", every_family(without=SLOW))  # test_saved.py cuts those
def test_what_is_not_excluded_works(operation, family, variant):
    declared = operations()[operation]
    if (family, "") in declared.excluded:
        return
    others = [value for values in declared.options.values() for value in values[1:]]
    for value in ("", *others):
        if (family, value) not in declared.excluded:
            build_from_plan(plan(operation, family, value))


def test_option_values_tell_which_option_is_meant():
    """People read `prune 0.3 taylor late`: no value may be another's, or stand for the default."""
    for declared in operations().values():
        values = [value for of_one in declared.options.values() for value in of_one]
        assert len(set(values)) == len(values) and all(len(of_one) > 1 for of_one in declared.options.values())


SPACE = """
[variants]
shufflenet_v2 = ["shufflenet_v2_x0_5"]
squeezenet = ["squeezenet1_1"]
tiny_mobile = ["mb_w8"]
[axes]
image_px = [32]
prune = [0.0, 0.3]
prune_by = ["magnitude", "batchnorm"]
"""


def test_a_space_leaves_out_what_is_excluded_and_says_why(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SPACE)
    space = load(str(path))
    assert [line.split(":")[0] for line in space.left_out] == [
        "prune of shufflenet_v2",
        "prune_by batchnorm of squeezenet",
    ]
    found = {space.candidate(point).describe() for point in space.params()}
    assert found == {
        "shufflenet_v2_x0_5 32px fp32",
        "squeezenet1_1 32px fp32",
        "squeezenet1_1 32px prune 0.3 fp32",
        "mb_w8 32px fp32",
        "mb_w8 32px prune 0.3 fp32",
        "mb_w8 32px prune 0.3 batchnorm fp32",
    }
    path.write_text(SPACE.replace('"magnitude", ', ""))
    with pytest.raises(SpaceError, match=r"prune_by = \['batchnorm'\] leaves squeezenet nothing: it has no BatchNorm"):
        load(str(path))
