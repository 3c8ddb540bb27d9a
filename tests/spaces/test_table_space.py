"""Tables of others' measurements as spaces: rows stand for candidates, both ways; what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from spaces.space import SpaceError
from spaces.table_space import load_table, tables

BENCH = Path(__file__).parents[2] / ".." / "shared" / "bench"
SMALL = """
title = "four networks"
key = "id"
files = ["accuracy.csv", "latency.csv"]
image_px = 32
axes = ["width", "kind"]
numbers = ["macs_M"]
macs = { column = "macs_M", unit = 1e6 }
parameters = { column = "params_M", unit = 1e6 }
accuracy = "{data}_test"
accuracy_unit = 0.01
epochs = 200
low = [{ column = "{data}_ep12", epochs = 12 }]
"""
ACCURACY = """id,width,kind,macs_M,params_M,pets_test,pets_ep12
a,8,conv,1.5,0.1,60.0,40.0
b,8,pool,1.0,0.1,50.0,45.0
c,16,conv,6.0,0.4,80.0,50.0
d,16,pool,4.0,0.4,,41.0
"""
LATENCY = "id,pi,nano\na,1.5,0.5\nb,1.0,\nc,4.0,0\nd,3.0,1.0\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "accuracy.csv").write_text(ACCURACY)
    (tmp_path / "latency.csv").write_text(LATENCY)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def test_every_row_is_a_candidate_and_back(small):
    space = load_table(str(small / "small.toml"), small)
    assert space.size() == 4 and space.values == {"width": (8, 16), "kind": ("conv", "pool")}
    for params in space.params():
        candidate = space.candidate(params)
        assert space.params_of(candidate) == params and candidate.image_px == 32
    assert space.parents()[0].variant == "c"  # the largest


def test_a_trial_suggests_rows(small):
    space = load_table(str(small / "small.toml"), small)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = {space.suggest(study.ask()).variant for _ in range(40)}
    assert seen == {"a", "b", "c", "d"}


def test_a_table_without_axes_is_suggested_by_name(small):
    (small / "small.toml").write_text(SMALL.replace('["width", "kind"]', "[]"))
    space = load_table(str(small / "small.toml"), small)
    assert [space.candidate(params).variant for params in space.params()] == ["a", "b", "c", "d"]


def test_two_columns_may_be_the_key_together(small):
    (small / "small.toml").write_text(SMALL.replace('key = "id"', 'key = ["id", "width"]'))
    (small / "latency.csv").write_text("id,width,pi\na,8,1.5\n")
    space = load_table(str(small / "small.toml"), small)
    assert space.rows.at["a@8", "pi"] == 1.5 and space.size() == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("macs_M", "flops"), "unknown column 'flops'; accepted"),
        (lambda text: text.replace("latency.csv", "gone.csv"), "--table takes the folder that holds"),
        (lambda text: text.replace('key = "id"', 'key = "name"'), "no column 'name'"),
        (lambda text: text + "colour = 3\n", "differ: colour"),
        (lambda text: text[:40], "TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(small, change, says):
    (small / "small.toml").write_text(change(SMALL))
    with pytest.raises(SpaceError, match=says) as caught:
        load_table(str(small / "small.toml"), small)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known(small):
    with pytest.raises(SpaceError, match="nb201, timm"):
        load_table("moon", small)


@pytest.mark.parametrize("name", tables())
def test_the_shipped_tables_open(name):
    if not BENCH.is_dir():
        pytest.skip(f"no tables in {BENCH}: they are not part of the repository")
    space = load_table(name, BENCH)
    assert space.size() > 1000 and space.candidate(space.params_of(space.parents()[0])) == space.parents()[0]
