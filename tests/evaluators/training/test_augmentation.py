"""Words for how training images are varied, and the views they lead to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.training.augmentation import DEFAULT, PLAIN, PRESETS, SWITCHES, describe, switches, views
from evaluators.training.batches import apply_view
from evaluators.training.jobs import TrainingRecipe
from search.settings import Settings, SettingsError

some_switches = st.lists(st.sampled_from(sorted(SWITCHES)), unique=True).map(tuple)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", ()),
        ("default", ("shift",)),
        ("mirror, shift", ("shift", "mirror")),
        ("photo", ("shift", "mirror", "brightness")),
        ("top-view", tuple(SWITCHES)),
        ("default,rotate,rotate", ("shift", "rotate")),
    ],
)
def test_switches_are_what_the_words_stand_for(text, expected):
    assert switches(text) == expected
    assert describe(expected) == (", ".join(expected) or "none")


@pytest.mark.parametrize("text", ["", "mirrored", "none,shift", "shift,,mirror", "MIRROR"])
def test_settings_with_an_unknown_word_are_refused_in_one_line(text):
    with pytest.raises(
        SettingsError, match=r"augment = .* it accepts a comma-separated list of shift, mirror"
    ) as caught:
        Settings(budget_ms=1.0, augment=text)
    assert "\n" not in str(caught.value)


def test_default_augmentation_has_no_view_but_the_plain_one():
    assert TrainingRecipe().augment == switches(Settings(budget_ms=1.0).augment) == DEFAULT == PRESETS["default"]
    assert views(DEFAULT) == (PLAIN,)


@given(some_switches)
def test_views_are_distinct_and_closed_under_being_combined(augment):
    image = np.arange(16).reshape(1, 4, 4, 1)
    seen = views(augment)
    pictures = {apply_view(image, view).tobytes() for view in seen}
    assert seen[0] == PLAIN and len(pictures) == len(seen) in (1, 2, 4, 8)
    assert all(apply_view(apply_view(image, one), two).tobytes() in pictures for one in seen for two in seen)


@pytest.mark.parametrize(
    ("switch", "turned"),
    [("mirror", np.fliplr), ("flip", np.flipud), ("rotate", np.rot90)],
)
@given(some_switches)
def test_views_of_a_switch_include_what_numpy_calls_so(switch, turned, augment):
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    pictures = [apply_view(image[None], view)[0] for view in views((*augment, switch))]
    assert any(np.array_equal(picture, turned(image)) for picture in pictures)
