"""The wiring of a cell against what a reader would count in a drawing of it."""

from __future__ import annotations

from itertools import product

import networkx
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.cell_features import Cell
from spaces.space import SpaceError
from spaces.table_space import load_table
from tests.spaces.test_table_space import SMALL

NONE, SKIP, CONV, POOL = 0, 1, 2, 3
SQUARE = Cell({"a": (0, 1), "b": (0, 2), "c": (1, 2), "d": (0, 3), "e": (1, 3), "f": (2, 3)}, NONE, SKIP)


def told(cell, *values):
    """The numbers of one cell by name, every operation occurring in a second that is left out."""
    operations = [SKIP, CONV, POOL]
    names = ["paths", "most", "fewest", *(f"{op} {what}" for op in operations for what in ("edges", "paths", "most"))]
    both = numpy.array([values, (operations * len(values))[: len(values)]])
    return dict(zip(names, (number[0] for number in cell.numbers(both)), strict=True))


def test_a_cell_of_two_ways():
    #  in -conv-> 1 -conv-> 3 and in -skip-> 3; a pool hangs on 2, which nothing reaches
    found = told(SQUARE, CONV, NONE, NONE, SKIP, CONV, POOL)
    assert (found["paths"], found["most"], found["fewest"]) == (2, 2, 0)
    assert (found[f"{CONV} edges"], found[f"{CONV} paths"], found[f"{CONV} most"]) == (2, 1, 2)
    assert (found[f"{SKIP} edges"], found[f"{SKIP} paths"]) == (1, 1)
    assert found[f"{POOL} edges"] == found[f"{POOL} paths"] == found[f"{POOL} most"] == 0


def test_where_nothing_arrives_there_is_nothing_to_count():
    found = told(SQUARE, CONV, CONV, CONV, NONE, NONE, NONE)
    assert all(number == 0 for name, number in found.items() if name != "fewest")


@given(st.lists(st.sampled_from([NONE, SKIP, CONV, POOL]), min_size=6, max_size=6))
def test_as_a_graph_library_counts(values):
    graph = networkx.MultiDiGraph()
    for edge, value in zip(SQUARE.edges.values(), values, strict=True):
        if value != NONE:
            graph.add_edge(*edge, value=value)
    graph.add_nodes_from([0, 3])
    ways = [[graph.edges[e]["value"] for e in way] for way in networkx.all_simple_edge_paths(graph, 0, 3)]
    found = told(SQUARE, *values)
    assert found["paths"] == len(ways)
    assert found["most"] == max([sum(v != SKIP for v in way) for way in ways], default=0)
    if ways:
        assert found["fewest"] == min(sum(v != SKIP for v in way) for way in ways)
    used = {e for way in networkx.all_simple_edge_paths(graph, 0, 3) for e in way}
    for operation in (SKIP, CONV, POOL):
        assert found[f"{operation} edges"] == sum(graph.edges[e]["value"] == operation for e in used)
        assert found[f"{operation} paths"] == sum(operation in way for way in ways)
        assert found[f"{operation} most"] == max([way.count(operation) for way in ways], default=0)


def test_cells_that_compute_the_same_have_the_same_numbers():
    dead = [told(SQUARE, CONV, NONE, NONE, SKIP, CONV, last) for last in (NONE, SKIP, CONV, POOL)]
    assert all(one == dead[0] for one in dead)


def test_a_table_tells_them_after_its_columns(tmp_path):
    wired = SMALL.replace('files = ["accuracy.csv", "latency.csv"]', 'files = ["all.csv"]').replace(
        '["width", "kind"]', '["x", "y"]\ncell = {absent = "no", passes = "skip", edges = {x = [0, 1], y = [1, 2]}}'
    )
    (tmp_path / "wired.toml").write_text(wired)
    rows = [f"{place},{x},{y},1.5,0.1" for place, (x, y) in enumerate(product(["no", "skip", "conv"], repeat=2))]
    (tmp_path / "all.csv").write_text("\n".join(["id,x,y,macs_M,params_M", *rows]))
    numbers = load_table(str(tmp_path / "wired.toml"), tmp_path).numbers()
    assert [row[:3] for row in numbers] == [(1.5, 0, 0)] * 3 + [(1.5, 0, 0), (1.5, 1, 0), (1.5, 1, 1)] + [
        (1.5, 0, 0),
        (1.5, 1, 1),
        (1.5, 1, 2),
    ]


@pytest.mark.parametrize(
    "cell",
    [
        "{ absent = 0, passes = 1 }",
        "{ absent = 0, passes = 1, edges = { width = [1, 0], kind = [1, 2] } }",
        "{ absent = 0, passes = 1, edges = { height = [0, 1] } }",
        "{ absent = 0, passes = 1, edges = { width = [0, 1], kind = [2, 3] } }",
        '{ absent = 0, passes = 1, edges = { width = "0-1" } }',
        "3",
    ],
)
def test_a_wiring_that_is_none_is_said_in_one_line(tmp_path, cell):
    (tmp_path / "small.toml").write_text(SMALL.replace("numbers =", f"cell = {cell}\nnumbers ="))
    for name in ("accuracy", "latency"):
        (tmp_path / f"{name}.csv").write_text("id,width,kind,macs_M,params_M\na,8,conv,1.5,0.1\n")
    with pytest.raises(SpaceError, match=r"small.toml: `cell` has") as told:
        load_table(str(tmp_path / "small.toml"), tmp_path)
    assert "\n" not in str(told.value)
