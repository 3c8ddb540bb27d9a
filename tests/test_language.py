"""Hold how the code speaks of itself: the figures of `python -m tests.language` must not fall back."""

from __future__ import annotations

import builtins
import importlib
import inspect

import pytest

from remote.errors import EdgefrontError
from tests.language import PACKAGES, ROOT, begins_with_verb, is_on_device, is_participle, measure, module_of

FOUND = measure()


def test_public_docstrings_begin_with_a_verb():
    assert FOUND.verb_share >= 0.98, FOUND.headless


def test_functions_are_named_by_verbs_not_by_participles():
    assert FOUND.participle_share <= 0.02


def test_what_crosses_a_package_boundary_is_described():
    assert FOUND.boundary_lines >= 5.0


def test_annotations_name_their_types():
    assert FOUND.any_per_1000 <= 5.0


def test_calls_name_their_arguments():
    assert FOUND.positional_per_1000 <= 0.5


def test_no_function_is_long():
    assert FOUND.long_functions == ()


def test_the_measure_tells_verbs_from_other_words():
    assert begins_with_verb("Return the latency.") and begins_with_verb("Raised when a space can't be.")
    assert not begins_with_verb("The latency.") and not begins_with_verb("What is known.")
    assert (
        is_participle("_scored") and is_participle("told") and not is_participle("seed_of") and not is_participle("fit")
    )


@pytest.mark.parametrize(
    "path", sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")), ids=module_of
)
def test_every_exception_ends_in_error_and_has_the_root(path):
    """Of what runs on a device nothing is imported; an end that is asked for is no error."""
    if is_on_device(path) or path.name == "__main__.py":
        return
    module = importlib.import_module(module_of(path).removesuffix(".__init__"))
    for name, found in vars(module).items():
        own = inspect.isclass(found) and found.__module__ == module.__name__
        if own and issubclass(found, BaseException) and not issubclass(found, builtins.KeyboardInterrupt):
            assert name.endswith("Error") and issubclass(found, EdgefrontError), name
