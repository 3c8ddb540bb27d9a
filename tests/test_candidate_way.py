"""The figure of the way of one candidate in CONTRIBUTING.md is what the imports are."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WAY = runpy.run_path(str(ROOT / "docs" / "candidate_way.py"))
FIGURE = WAY["figure"]().splitlines()


def test_figure_in_contributing_equals_generated():
    """`python docs/candidate_way.py` has been run after the last change of an import."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert WAY["with_figure"](page) == page


@pytest.mark.parametrize("name", [name for names in WAY["WAY"].values() for name in names])
def test_figure_every_module_has_an_arrow(name):
    """A module that no other one of the way uses, by import or by text, is not on the way."""
    assert any(WAY["node"](name) in line.split() for line in FIGURE if "->" in line)


def test_reduce_edges_leaves_out_what_a_chain_implies():
    imports = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert WAY["reduce_edges"]("a", imports) == {"b"} and WAY["reduce_edges"]("b", imports) == {"c"}
