"""Spaces: read, cut, counted, asked; candidates and the keys they go by."""

import json
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.candidate import Candidate
from spaces.network import variants
from spaces.space import SpaceError, cut, load, presets

SPACE = """
title = "two families"
[variants]
tiny_resnet = ["res8_w8_s2"]
tiny_mobile = ["mb_w8"]
[axes]
image_px = [16, 24, 32]
prune = [0.0, 0.25, 0.5]
precision = ["fp32", "fp16", "int8"]
threads = [1, 2]
[families.tiny_mobile]
prune = [0.0, 0.5]
"""


OPTIONS = """
lowrank = [0.0, 0.5]
prune_by = ["magnitude", "taylor"]
prune_where = ["even", "early", "late"]
"""


@pytest.fixture(params=["plain", "with options"])
def space(tmp_path, request):
    head, own = SPACE.split("[families")
    text = SPACE if request.param == "plain" else head + OPTIONS + "[families" + own
    (tmp_path / "two.toml").write_text(text)
    return load(str(tmp_path / "two.toml"))


@pytest.mark.parametrize("space", ["plain"], indirect=True)
def test_size_counts_what_a_family_has_of_its_own(space):
    assert space.size() == 3 * 3 * 2 * 3 + 3 * 3 * 2 * 2


@pytest.mark.parametrize("space", ["with options"], indirect=True)
def test_an_option_counts_where_its_operation_is_applied(space):
    assert space.size() == 2 * 3 * 3 * 2 * ((1 + 2 * 6) + (1 + 1 * 6))
    for point in space.params():
        amount = point.get("prune", point.get("prune.tiny_mobile"))
        assert ("prune_by" in point) == ("prune_where" in point) == (amount > 0)


@pytest.mark.parametrize("space", ["with options"], indirect=True)
def test_a_candidate_carries_only_what_makes_it_another(space):
    point = {"variant": "res8_w8_s2", "image_px": 16, "precision": "int8", "runtime": "onnxruntime", "threads": 1}
    by_default = {"prune_by": "magnitude", "prune_where": "even"}
    plain = space.candidate(point | {"prune": 0.25, "lowrank": 0.0} | by_default)
    assert plain.options == () and plain == space.candidate(point | {"prune": 0.25, "lowrank": 0.0} | by_default)
    taylor = space.candidate(point | {"prune": 0.25, "lowrank": 0.5, "prune_by": "taylor", "prune_where": "late"})
    assert taylor.options == (("prune_by", "taylor"), ("prune_where", "late"))
    assert taylor.describe() == "res8_w8_s2 16px prune 0.25 taylor late lowrank 0.5 int8"
    assert taylor.uncut() == space.candidate(point | {"prune": 0.0, "lowrank": 0.0})
    assert taylor.structure_key() not in (plain.structure_key(), taylor.uncut().structure_key())


@pytest.mark.parametrize("space", ["with options"], indirect=True)
def test_numbers_are_one_row_a_point(space):
    rows = space.numbers()
    assert len(rows) == space.size() and len({len(row) for row in rows}) == 1
    sampled = list(zip(space.params(), rows, strict=True))[::97]
    for point, (area, *kept, threads) in sampled:
        candidate = space.candidate(point)
        assert (area, threads) == (candidate.image_px**2, candidate.threads)
        assert sorted(kept) == sorted([1 - candidate.amount("prune"), 1 - candidate.amount("lowrank")])


def test_every_point_is_a_candidate_of_its_own(space):
    points = list(space.params())
    candidates = [space.candidate(point) for point in points]
    assert len({c.key() for c in candidates}) == len(points)
    assert [space.params_of(c) for c in candidates] == points


def test_an_asked_candidate_is_one_of_the_space(space):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    keys = {space.candidate(point).key() for point in space.params()}
    for _ in range(60):
        trial = study.ask()
        candidate = space.suggest(trial)
        assert candidate.key() in keys
        assert space.candidate(trial.params) == candidate


def test_a_queued_point_is_what_is_asked_next(space):
    study = optuna.create_study()
    for point in list(space.params())[::7]:
        study.enqueue_trial(point)
        assert space.params_of(space.suggest(study.ask())) == point


def test_cut_keeps_what_the_device_can_do_and_says_what_it_leaves(space):
    less = cut(space, {"fp32": None, "int8": None, "fp16": "no fp16 arithmetic"}, ("onnxruntime",), 1)
    assert less.axes["precision"] == ("fp32", "int8") and less.axes["threads"] == (1,)
    assert less.left_out == ("threads 2: the device has 1 cores", "precision fp16: no fp16 arithmetic")
    with pytest.raises(SpaceError, match="supports none of runtime"):
        cut(space, {"fp32": None}, ("tensorrt",), 1)


def test_parents_are_plain_and_of_the_space(space):
    keys = {space.candidate(point).key() for point in space.params()}
    for parent in space.parents():
        assert not parent.compressed and parent.image_px == 32 and parent.key() in keys


@pytest.mark.parametrize("name", presets())
def test_presets_name_networks_there_are(name):
    space = load(name)
    for family, names in space.variants.items():
        assert set(names) <= set(variants(family))
    assert space.size() > 50


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not a TOML file"),
        ("[axes]\nimage_px = [32]", "names no network"),
        ("[variants]\ntiny_resnet = ['a']", "needs image_px"),
        ("[variants]\nvgg = ['a']\n[axes]\nimage_px = [32]", "unknown family 'vgg'; accepted"),
        (
            "[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nwarp = [0.1]",
            "unknown axis 'warp'; accepted",
        ),
        ("[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = []", "at least one value"),
        ("[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nprune = [0.0, 1.5]", "fractions from 0"),
        ("[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nprune = [0.5]", "lacks 0"),
        ("[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nprecision = ['int8']", "lacks fp32"),
        (
            "[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nprune_by = ['taylor']",
            "prune_by needs the axis prune",
        ),
        (
            "[variants]\ntiny_resnet = ['a']\n[axes]\nimage_px = [32]\nprune = [0.0]\nprune_by = ['luck']",
            "accepted: magnitude, batchnorm, taylor",
        ),
    ],
)
def test_a_wrong_space_is_one_clear_line(tmp_path, text, says):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(SpaceError, match=says) as error:
        load(str(tmp_path / "s.toml"))
    assert "\n" not in str(error.value).split("TOML file:")[0]


def test_an_unknown_space_lists_the_presets():
    with pytest.raises(SpaceError, match="edge"):
        load("moon")


@settings(max_examples=50)
@given(
    px=st.integers(16, 512),
    amount=st.floats(0.01, 0.9),
    precision=st.sampled_from(["fp32", "int8"]),
    threads=st.integers(1, 8),
)
def test_keys_change_with_what_they_name(px, amount, precision, threads):
    one = Candidate(
        family="f",
        variant="v",
        image_px=px,
        steps=(("prune", amount),),
        precision=precision,
        runtime="onnxruntime",
        threads=threads,
    )
    late = replace(one, options=(("prune_where", "late"),))
    assert Candidate.from_dict(json.loads(json.dumps(late.to_dict()))) == late
    assert late.structure_key() != one.structure_key()
    assert Candidate.from_dict(one.to_dict()) == one
    other = Candidate(
        family="f",
        variant="v",
        image_px=px,
        steps=(("prune", amount),),
        precision="fp16",
        runtime="onnxruntime",
        threads=threads,
    )
    assert one.structure_key() == other.structure_key() and one.graph_key() != other.graph_key()
    more = Candidate(
        family="f",
        variant="v",
        image_px=px,
        steps=(("prune", amount),),
        precision=precision,
        runtime="onnxruntime",
        threads=threads + 1,
    )
    assert one.graph_key() == more.graph_key() and one.key() != more.key()


def test_what_a_cut_must_be_faster_than_is_of_the_space(space):
    """The uncut network, and each step with the next smaller amount: of the same size, precision and way of cutting."""
    everything = {space.candidate(point) for point in space.params()}
    for candidate in everything:
        less = space.less_cut(candidate)
        assert set(less) <= everything and len(set(less)) == len(less)
        assert less[:1] == ((candidate.uncut(),) if candidate.steps else ())
        for other in less:
            assert replace(other.uncut(), steps=(), options=()) == candidate.uncut()
            assert sum(amount for _, amount in other.steps) < sum(amount for _, amount in candidate.steps)
            assert set(other.options) <= set(candidate.options)
    most = Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=16, steps=(("prune", 0.5),))
    assert space.less_cut(most) == (most.uncut(), replace(most, steps=(("prune", 0.25),)))


def test_both_steps_are_held_against_the_same_without_either(tmp_path):
    path = tmp_path / "both.toml"
    path.write_text(SPACE.replace("[families", OPTIONS + "[families"))
    both = Candidate(
        family="tiny_mobile",
        variant="mb_w8",
        image_px=16,
        steps=(("prune", 0.5), ("lowrank", 0.5)),
        precision="int8",
        options=(("prune_where", "late"),),
    )
    pruned, apart = replace(both, steps=both.steps[:1]), replace(both, steps=both.steps[1:], options=())
    assert set(load(str(path)).less_cut(both)) == {both.uncut(), pruned, apart}


def test_load_takes_a_file_with_a_byte_order_mark(tmp_path):
    text = 'title = "x"\n[variants]\ntiny_resnet = ["res8_w4_s2"]\n[axes]\nimage_px = [16]\nprecision = ["fp32"]\n'
    (tmp_path / "space.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load(str(tmp_path / "space.toml")).size() == 1


BAD_ENTRIES = {
    "[variants]\nresnet = 'resnet18'\n[axes]\nimage_px = [32]": "resnet = 'resnet18' must be a list of names",
    "[variants]\nresnet = [18]\n[axes]\nimage_px = [32]": "must be a list of names",
    "variants = 3": "variants must be a table",
    "[variants]\nresnet = ['resnet18']\n[axes]\nimage_px = 32": "image_px = 32 must be a list of whole numbers",
    "[variants]\nresnet = ['resnet18']\n[axes]\nimage_px = [0]": "must be 1 or more",
    "[variants]\nresnet = ['resnet18']\n[axes]\nimage_px = [32]\nprune = ['much']": "must be a list of numbers",
    "[variants]\nresnet = ['resnet18']\n[axes]\nimage_px = [32]\n[families]\nresnet = 1": "resnet must be a table",
    "[variant]\nresnet = ['resnet18']": "unknown table 'variant'; accepted: title, variants",
}


@pytest.mark.parametrize("text", BAD_ENTRIES)
def test_an_entry_of_another_kind_is_one_clear_line(tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(SpaceError, match=BAD_ENTRIES[text]) as error:
        load(str(tmp_path / "s.toml"))
    assert "\n" not in str(error.value)
