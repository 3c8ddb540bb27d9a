"""Families in a file of the user's: what they go by, what they must keep, and that compression works on them."""

from __future__ import annotations

import pytest
import torch

from spaces.candidate import Candidate
from spaces.family_checks import judge_family
from spaces.family_files import family_of, identity, label
from spaces.family_loading import load_family
from spaces.network import NetworkPlan, build, build_from_plan, normalisation, pack, unpack
from spaces.space import SpaceError, add_families, fill_families, load
from tests.own_family import NETS, SPACE

CLASSES, PX = 7, 16


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def key(file):
    return Candidate(family=family_of(file), variant="mine_s", image_px=PX).key()


def test_identity_is_of_the_content_wherever_it_lies(file, tmp_path):
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other" / "nets.py"
    moved.write_text(NETS)
    assert key(file) == key(moved) and label(family_of(file)) == "nets"
    moved.write_text(NETS + "# edited\n")
    assert key(file) != key(moved) and identity(family_of(moved)).startswith("nets@")
    assert identity("resnet") == label("resnet") == "resnet"
    assert (
        Candidate(family="tiny_resnet", variant="res8_w8_s2", image_px=16).structure_key() == "f2585a7a3c26"
    )  # as before there were files


def test_load_family_leaves_nothing_beside_the_file_and_tells_a_change(file):
    family = family_of(file)
    assert load_family(family) is load_family(family)
    assert [path.name for path in file.parent.iterdir()] == ["nets.py"]
    file.write_text(NETS + "# edited\n")
    load_family(family)  # a process goes on with what it has
    load_family.cache_clear()
    with pytest.raises(SpaceError, match=r"nets\.py was changed during the run: restore it"):
        load_family(family)
    file.unlink()
    with pytest.raises(SpaceError, match=r"nets\.py: no such file; put it back"):
        load_family(family)


def test_judge_family_returns_what_was_built_and_run(file):
    family = family_of(file)
    assert judge_family(family, (), (16, 24), CLASSES) == ("mine_s", "mine_m")
    assert judge_family(family, ("mine_m",), (16,), CLASSES) == ("mine_m",)
    assert normalisation(family, "mine_m") == ((0.5,) * 3, (0.5,) * 3)


LAST = "nn.Linear(4 * width, classes)"
BAD = {
    "syntax": (NETS + "\ndef", "can't be imported: line 36: SyntaxError"),
    "import": (NETS + "\nimport not_there", "can't be imported: line 36: ModuleNotFoundError: No module named"),
    "exit": (NETS + "\nraise SystemExit(3)", "can't be imported: line 36: SystemExit: 3"),
    "no table": (NETS.replace("VARIANTS =", "TABLE ="), "needs VARIANTS"),
    "no rows": (NETS.replace("VARIANTS =", "VARIANTS = {'x': 1}; TABLE ="), "needs VARIANTS"),
    "no build": (NETS.replace("def build", "def make"), r"needs a function build\(variant, classes, image_px\)"),
    "no name": (NETS.replace("mine_s", "mine/s"), "'mine/s' is not a valid network name"),
    "weights": (NETS.replace("Variant(width=8,", "Variant(file='x', width=8,"), "name its weight file mine_s"),
    "raises": (NETS.replace("width = Shape", "width = 1 / 0 * Shape"), "line 23: ZeroDivisionError: division by zero"),
    "no net": (NETS.replace("return nn.Sequential", "return (lambda *n: n)"), "TypeError: build returned tuple"),
    "outputs": (NETS.replace(LAST, "nn.Linear(4 * width, 3)"), r"returns torch.float32 \(2, 3\) for 2 images"),
    "tuple": (NETS.replace("nn.Flatten(),", "nn.Flatten(0),"), "can't be used: RuntimeError"),
    "places": (NETS.replace("nn.AdaptiveAvgPool2d(1),", "").replace("(4 * width, c", "(width * image_px**2 // 4, c"),
               "mine_s has another 7.weight at 24 px than at 16 px"),
    "not last": (NETS.replace("return nn.Sequential(", "net = nn.Sequential(") + """
    own = nn.Sequential(*net)
    own.forward, own.extra = net.forward, nn.Linear(1, 1)
    return own
""", "must be its classifier"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_judge_family_tells_what_is_wrong_in_one_line(file, name):
    text, says = BAD[name]
    assert text != NETS
    file.write_text(text)
    with pytest.raises(SpaceError, match=says) as error:
        judge_family(family_of(file), (), (16, 24), CLASSES)
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_judge_family_unknown_network_says_what_there_is(file):
    with pytest.raises(SpaceError, match="no network 'mine_l'; it has mine_s, mine_m"):
        judge_family(family_of(file), ("mine_l",), (16,), CLASSES)


@pytest.mark.parametrize("steps", [(("prune", 0.5),), (("lowrank", 0.5),), (("prune", 0.25), ("lowrank", 0.5))])
def test_a_network_of_a_file_is_compressed_and_saved_like_any_other(file, steps):
    family = family_of(file)
    plan = NetworkPlan(family=family, variant="mine_m", classes=CLASSES, image_px=PX, steps=steps)
    net = build_from_plan(plan).eval()
    whole = build(family, "mine_m", CLASSES, PX)
    assert sum(p.numel() for p in net.parameters()) < sum(p.numel() for p in whole.parameters())
    image = torch.randn(1, 3, PX, PX)
    assert torch.equal(unpack(pack(net, plan))(image), net(image))


def test_a_space_names_files_beside_it(file):
    (file.parent / "all.toml").write_text(SPACE)
    family = family_of(file)
    space = load(str(file.parent / "all.toml"))
    assert space.variants == {family: ()}
    filled = fill_families(space, {family: ("mine_s", "mine_m")})
    assert filled.size() == 16 and {c.family for c in map(filled.candidate, filled.params())} == {family}
    some = SPACE.replace('families = ["nets.py"]', '[variants]\n"nets.py" = ["mine_s"]')
    (file.parent / "some.toml").write_text(some + '[families."nets.py"]\nprune = [0.0]\n')
    space = load(str(file.parent / "some.toml"))
    assert space.variants == {family: ("mine_s",)} and space.size() == 4
    assert "prune.nets" in next(space.params())


def test_add_families_leaves_the_space_its_own(file):
    space = add_families(load("tiny"), [str(file), str(file)])
    assert space.variants == {**load("tiny").variants, family_of(file): ()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py", "family file .*nowhere.py: no such file"),
        ("nets.txt", "it does not end in .py"),
        ("", "does not end in .py"),
        ("tiny_resnet.py", "the same name as the built-in family tiny_resnet: rename it"),
        ("two/nets.py", "two/nets.py has the same name as .*/nets.py: rename it"),
        ("folder.py", "no such file"),
        ("long.py", "longer than 1048576 bytes"),
    ],
)
def test_add_families_wrong_file_is_one_line(file, name, says):
    folder = file.parent
    (folder / "two").mkdir()
    (folder / "folder.py").mkdir()
    (folder / "long.py").write_text("#" * (1 << 21))
    for copy in ("nets.txt", "tiny_resnet.py", "two/nets.py"):
        (folder / copy).write_text(NETS)
    with pytest.raises(SpaceError, match=says) as error:
        add_families(load("tiny"), [str(file), str(folder / name) if name else ""])
    assert "\n" not in str(error.value)


def test_fill_families_a_name_that_the_space_has_is_refused(file):
    space = add_families(load("tiny"), [str(file)])
    with pytest.raises(SpaceError, match="names res8_w8_s2 twice"):
        fill_families(space, {family_of(file): ("res8_w8_s2",)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("families = []", "must be a list of files"),
        ("families = ['resnet']", "must be a list of files, such as"),
        ("families = ['nowhere.py']", "s.toml: family file .*nowhere.py: no such file"),
        ("[variants]\n'nowhere.py' = ['x']", "no such file"),
        ("[variants]\nnets = ['mine_s']", "unknown family 'nets'; .* files that end in .py"),
    ],
)
def test_load_wrong_files_are_one_line(file, text, says):
    path = file.parent / "s.toml"
    path.write_text(f"{text}\n[axes]\nimage_px = [16]\n")
    with pytest.raises(SpaceError, match=says) as error:
        load(str(path))
    assert "\n" not in str(error.value)
