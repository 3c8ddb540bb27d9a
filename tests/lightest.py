"""One variant of every family, for tests that go over all of them."""

import pytest

from spaces.network import family_names, variants

LIGHTEST = {"mnasnet": "mnasnet0_5", "tiny_resnet": "res8_w8_s2"}
SLOW = {"densenet"}  # ten seconds a cut


def lightest(family):
    return LIGHTEST.get(family, next(iter(variants(family))))


def every_family(families=None, without=()):
    """Return (family, variant) as parameters of a test.

    `without=SLOW` leaves to other tests what they show of the slow families.
    """
    return [
        pytest.param(family, lightest(family), id=family, marks=[pytest.mark.slow] if family in SLOW else [])
        for family in families or family_names()
        if family not in without
    ]
