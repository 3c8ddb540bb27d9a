"""Parents are trained once, and the best of them is the best whatever the order."""

import json
from dataclasses import replace

import pytest
import torch

from evaluators.data.dataset import TRAIN, VALIDATION, DataError, Split, digest_of
from evaluators.data.loading import arrays, open_dataset
from evaluators.training.batches import logits
from evaluators.training.jobs import TrainedNetwork, TrainingRecipe
from evaluators.training.parent_networks import ParentConfig, ParentNetworks
from evaluators.training.time_allowance import OutOfTimeError
from evaluators.training.worker_process import Worker
from spaces.candidate import Candidate
from spaces.family_files import family_of
from spaces.network import build, normalisation
from tests.evaluators.training.test_teacher_logits import GOOD, classifier
from tests.own_family import NETS

VARIANTS = {"tiny_resnet": ("res8_w4_s2", "res8_w16_s2"), "tiny_mobile": ("mb_w8",)}
SMALL = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16)


@pytest.fixture(scope="module")
def few():
    digits = open_dataset(None, 0)
    cut = {name: Split(split.sources[::9], split.labels[::9]) for name, split in digits.splits.items()}
    return replace(digits, splits=cut, digest=digits.digest + "-ninth")


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("log") / "worker.log") as worker:
        yield worker


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("parents")


@pytest.fixture
def school(few, place, tmp_path):
    """Opens a set of parents; what was trained is listed."""

    recipe = TrainingRecipe(parent_epochs=1, epoch_images=200, threads=1)

    def school(teacher, **changes):
        wanted = ParentConfig(
            dataset=few,
            images=place / "images",
            folder=place,
            recipe=recipe,
            weights=None,
            download=False,
            variants=VARIANTS,
            parent_px=dict.fromkeys(VARIANTS, 16),
            teacher=teacher,
            progress=place / "p",
            record=tmp_path / "teacher.json",
        )
        return replace(wanted, **changes)

    return school


def parents(school, worker, trained=None):
    def train(task, job, what):
        if trained is not None:
            trained.append(job.variant)
        return worker.call(task, job, timeout_s=600)

    return ParentNetworks(school, worker, train)


def test_the_best_parent_teaches_all_and_is_found_again(school, worker, tmp_path):
    trained = []
    first = parents(school("best"), worker, trained)
    path = first.logits_for(SMALL)
    assert sorted(set(trained)) <= sorted(v for names in VARIANTS.values() for v in names)
    tops = {v: first.top1(first.of(family, v)) for family, names in VARIANTS.items() for v in names}
    best = max(tops, key=tops.get)
    assert path == first.of("tiny_mobile" if best == "mb_w8" else "tiny_resnet", best).path
    assert first.note.startswith(f"{best} at 16 px, ") and f"{100 * tops[best]:.1f} %" in first.note
    second = parents(school("best", record=tmp_path / "of another run"), worker, again := [])
    second.of("tiny_mobile", "mb_w8")  # another order, from the cache
    assert second.logits_for(replace(SMALL, variant="res8_w16_s2")) == path and again == []


def test_parent_file_name_is_that_of_earlier_versions(school, few, tmp_path):
    """Caches that earlier versions filled are found again: a changed name trains every parent anew."""

    def train(task, job, what):
        return TrainedNetwork(path=job.out, steps=0, epochs=0, loss=0.0, seconds=0.0, start="none")

    config = school("parent", dataset=replace(few, digest="data"), folder=tmp_path, recipe=TrainingRecipe(seed=3))
    known = ParentNetworks(config, None, train)
    assert known.of("tiny_mobile", "mb_w8", 16).path.name == "mb_w8-16-eba83e0b8a65.pt"


def test_parents_of_another_augmentation_or_resize_are_other_parents(school, worker, few):
    """Nothing is trained: their files have other names."""

    def path(school):
        known = ParentNetworks(
            school,
            worker,
            lambda function, job, what: TrainedNetwork(
                path=job.out, steps=0, epochs=0, loss=0.0, seconds=0.0, start="none"
            ),
        )
        return known.of("tiny_mobile", "mb_w8").path

    one = school("parent")
    resized = replace(few, digest=digest_of(few.digest, "crop"))
    others = [replace(one, recipe=replace(one.recipe, augment=each)) for each in ((), ("shift", "mirror"), ("flip",))]
    assert len({path(each) for each in (one, replace(one, dataset=resized), *others)}) == 5


def test_a_run_keeps_its_teacher(school, worker, tmp_path):
    """Even where more parents come to be known when it is gone on with."""
    one = school("best", variants={"tiny_resnet": ("res8_w4_s2",)})
    first = parents(one, worker).logits_for(SMALL)
    assert first.name.startswith("res8_w4_s2") and (tmp_path / "teacher.json").exists()
    assert parents(school("best"), worker).logits_for(SMALL) == first


def test_without_a_wish_each_learns_from_its_own(school, worker):
    known = parents(school("parent"), worker)
    for family, names in VARIANTS.items():
        for variant in names:
            assert (
                known.logits_for(Candidate(family=family, variant=variant, image_px=16))
                == known.of(family, variant).path
            )
    assert known.note == ""


def test_a_parents_accuracy_is_of_the_validation_images(school, worker, few, place):
    known = parents(school("parent"), worker)
    parent = known.of("tiny_resnet", "res8_w16_s2")
    net = build("tiny_resnet", "res8_w16_s2", 10, 16)
    net.load_state_dict(torch.load(parent.path, weights_only=True)["state"])
    images, labels = arrays(few, VALIDATION, 16, place / "images")
    found = logits(net, images, normalisation("tiny_resnet", "res8_w16_s2")).argmax(1).numpy()
    assert known.top1(parent) == pytest.approx((found == labels).mean(), abs=1 / len(labels))


def test_a_network_outside_the_space_may_teach(school, worker):
    known = parents(school("res8_w8_s2"), worker)
    known.check()
    assert known.logits_for(SMALL).name.startswith("res8_w8_s2-16-") and known.note.startswith("res8_w8_s2 at 16 px")


def test_a_file_may_teach(school, worker, few, tmp_path):
    classifier(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps(GOOD | {"classes": list(few.classes)}))
    known = parents(school(str(tmp_path)), worker)
    known.check()
    path = known.logits_for(SMALL)
    assert torch.load(path, weights_only=True)["logits"].shape == (len(few.splits[TRAIN]), 1, 10)
    made = path.stat().st_mtime_ns
    again = parents(school(str(tmp_path)), worker)
    assert again.logits_for(SMALL) == path and path.stat().st_mtime_ns == made
    assert again.note == known.note and "model.onnx at 16 px" in again.note


def test_another_way_of_teaching_keeps_the_parents(school, worker):
    wanted = school("parent")
    first, other = [
        parents(replace(wanted, recipe=replace(wanted.recipe, distillation=share)), worker).of("tiny_mobile", "mb_w8")
        for share in (0.2, 0.9)
    ]
    assert first.path == other.path


def test_a_file_of_other_classes_is_the_users_fault(school, worker, tmp_path):
    """It ends the run with one line, rather than failing every candidate."""
    classifier(tmp_path / "model.onnx", classes=4)
    (tmp_path / "model.json").write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match="distinguishes 4 classes, the data have 10") as caught:
        parents(school(str(tmp_path)), worker).logits_for(SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "teacher, says", [("nonsense", "unknown teacher 'nonsense'; accepted: parent"), ("gone.onnx", "no such file")]
)
def test_a_teacher_that_is_not_there(school, worker, teacher, says):
    with pytest.raises(DataError, match=says) as caught:
        parents(school(teacher), worker).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("share", "fits", "tried"), [(0.0, 1, [4, 1]), (0.6, 2, [4, 2]), (0.9, 2, [4, 3, 1]), (0.3, 0, [4, 1])]
)
def test_parents_no_time_for_all_epochs_trains_what_fits_and_keeps_to_it(school, worker, tmp_path, share, fits, tried):
    """A run whose time is short gets a parent all the same, and the same one when it is resumed."""
    wanted = school("parent", shortened=tmp_path / "short.json")
    wanted = replace(wanted, recipe=replace(wanted.recipe, parent_epochs=4, seed=1 + int(100 * share)))
    asked = []

    def train(task, job, what):
        asked.append(job.recipe.parent_epochs)
        if job.recipe.parent_epochs > fits:
            raise OutOfTimeError("its training needs 30 s more, 24 s are left", share)
        return worker.call(task, job, timeout_s=600)

    if not fits:
        with pytest.raises(OutOfTimeError):
            ParentNetworks(wanted, worker, train).of("tiny_mobile", "mb_w8")
        assert asked == tried
        return
    first = ParentNetworks(wanted, worker, train).of("tiny_mobile", "mb_w8")
    assert asked == tried
    second = ParentNetworks(wanted, worker, train).of("tiny_mobile", "mb_w8")
    assert second.path == first.path and asked == tried
    with pytest.raises(OutOfTimeError):
        ParentNetworks(replace(wanted, shortened=None), worker, train).of("tiny_resnet", "res8_w4_s2")


def test_an_edited_family_file_has_parents_of_its_own(school, tmp_path):
    """Wherever the file lies: the content counts."""
    places = [tmp_path / name / "nets.py" for name in ("one", "two", "edited")]
    for place in places:
        place.parent.mkdir()
        place.write_text(NETS if place.parent.name != "edited" else NETS.replace("SiLU", "ReLU"))
    paths = []
    for family in map(family_of, places):
        ours = school("parent", folder=tmp_path, parent_px={family: 16})
        parents = ParentNetworks(
            ours,
            None,
            lambda function, job, what: TrainedNetwork(
                path=job.out, steps=0, epochs=1, loss=0.0, seconds=0.0, start="none"
            ),
        )
        paths.append(parents.of(family, "mine_s").path)
    assert paths[0] == paths[1] != paths[2]


def test_a_network_of_ones_own_may_teach(school, worker, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    ours = {family_of(tmp_path / "nets.py"): 16}
    parents(school("mine_m", parent_px=ours), worker).check()
    with pytest.raises(DataError, match="unknown teacher 'mine_l'"):
        parents(school("mine_l", parent_px=ours), worker).check()
