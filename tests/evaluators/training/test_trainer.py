"""Training: it learns, repeats, recovers what a cut cost, and leaves no half file."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.data.dataset import TEST, TRAIN, VALIDATION, Split
from evaluators.data.loading import arrays, open_dataset
from evaluators.training import trainer
from evaluators.training.augmentation import views
from evaluators.training.batches import BatchSource, apply_view, logits, renew_batchnorm
from evaluators.training.jobs import CandidateJob, FineTuneJob, ParentJob, TrainingFailedError, TrainingRecipe
from evaluators.training.trainer import distillation, fine_tune, load_net, one_cycle, start_candidate, train_parent
from spaces.network import build, normalisation

REPO = Path(__file__).parents[3]
FAMILY, VARIANT, PX = "tiny_resnet", "res8_w16_s2", 24
PRUNED = (("prune", 0.25),)
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def digits():
    return open_dataset(None, 0)


@pytest.fixture(scope="module")
def few(digits):
    """The first 300 training pictures: enough for what is not about accuracy."""
    train = digits.splits[TRAIN]
    some = Split(train.sources[::7], train.labels[::7])
    return replace(digits, splits=digits.splits | {TRAIN: some}, digest=digits.digest + "-few")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def parent(digits, cache, tmp_path_factory):
    recipe = TrainingRecipe.of(digits, threads=1)
    out = tmp_path_factory.mktemp("parent") / "parent.pt"
    return train_parent(
        ParentJob(dataset=digits, cache=cache, family=FAMILY, variant=VARIANT, image_px=PX, recipe=recipe, out=out)
    )


def candidate(digits, cache, parent, out, px=PX, steps=PRUNED, seed=0, options=()):
    recipe = TrainingRecipe.of(digits, seed, threads=1)
    return start_candidate(
        CandidateJob(
            dataset=digits,
            cache=cache,
            family=FAMILY,
            variant=VARIANT,
            image_px=px,
            steps=steps,
            recipe=recipe,
            parent=parent,
            out=out,
            options=options,
        )
    )


def tune(digits, cache, parent, net, out, epochs=1, progress=None, **changes):
    recipe = replace(TrainingRecipe.of(digits, threads=1), **changes)
    return fine_tune(
        FineTuneJob(
            dataset=digits,
            cache=cache,
            family=FAMILY,
            variant=VARIANT,
            image_px=PX,
            epochs=epochs,
            recipe=recipe,
            teacher=parent,
            net=net,
            out=out,
            progress=progress,
        )
    )


def accuracy(net, digits, cache, px=PX, split=VALIDATION):
    images, labels = arrays(digits, split, px, cache)
    return float((logits(net, images, normalisation(FAMILY, VARIANT)).argmax(1).numpy() == labels).mean())


# --- learning ---------------------------------------------------------------------------------------------


def test_a_parent_learns(parent, digits, cache, tmp_path):
    assert parent.start.startswith("none") and parent.epochs == 4 and parent.loss < 1.5
    assert parent.steps == 4 * -(-len(digits.splits[TRAIN]) // TrainingRecipe().batch)
    started = candidate(digits, cache, parent.path, tmp_path / "net.pt", steps=())
    assert (started.steps, started.epochs) == (0, 0)
    net = load_net(started.path)
    assert not net.training
    assert accuracy(net, digits, cache) > 0.6  # chance is 0.1


def test_a_parent_keeps_its_logits_of_the_training_images(parent, digits, cache, tmp_path):
    images, _ = arrays(digits, TRAIN, PX, cache)
    kept = torch.load(parent.path, weights_only=True)["logits"]
    assert kept.shape == (len(images), 1, 10)  # digits are not mirrored
    net = load_net(candidate(digits, cache, parent.path, tmp_path / "net.pt", steps=()).path)
    assert torch.allclose(kept[:, 0], logits(net, images, normalisation(FAMILY, VARIANT)), atol=1e-5)


def test_mirrored_images_have_logits_of_their_own(few, cache, tmp_path):
    recipe = TrainingRecipe(parent_epochs=1, threads=1, augment=("mirror",))
    job = ParentJob(
        dataset=few, cache=cache, family=FAMILY, variant=VARIANT, image_px=PX, recipe=recipe, out=tmp_path / "parent.pt"
    )
    kept = torch.load(train_parent(job).path, weights_only=True)["logits"]
    assert kept.shape == (len(few.splits[TRAIN]), 2, 10)
    assert not torch.allclose(kept[:, 0], kept[:, 1], atol=1e-3)


def test_weights_that_know_the_classes_can_stay_as_they_are(few, cache, tmp_path):
    net = build(FAMILY, VARIANT, 10, PX)
    torch.save(net.state_dict(), tmp_path / f"{VARIANT}.pth")
    out, recipe = tmp_path / "parent.pt", TrainingRecipe(parent_epochs=0, threads=1)
    done = train_parent(
        ParentJob(
            dataset=few,
            cache=cache,
            family=FAMILY,
            variant=VARIANT,
            image_px=PX,
            recipe=recipe,
            out=out,
            weights=tmp_path,
        )
    )
    assert (done.steps, done.epochs, done.start) == (0, 0, f"{VARIANT}.pth")
    kept = torch.load(out, weights_only=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in kept["state"].items())
    assert len(kept["logits"]) == len(few.splits[TRAIN]), "they teach all the same"


def test_fine_tuning_gives_back_what_the_cut_cost(parent, digits, cache, tmp_path):
    started = candidate(digits, cache, parent.path, tmp_path / "0.pt")
    first = tune(digits, cache, parent.path, started.path, tmp_path / "1.pt")
    third = tune(digits, cache, parent.path, first.path, tmp_path / "3.pt", epochs=2)
    assert (first.epochs, third.epochs) == (1, 3) and third.steps == 2 * first.steps > 0
    nets = [load_net(done.path) for done in (started, first, third)]
    cut, one, three = (accuracy(net, digits, cache) for net in nets)
    assert one > cut + 0.03 and three > cut + 0.1
    whole = sum(p.numel() for p in build(FAMILY, VARIANT, 10, PX).parameters())
    assert sum(p.numel() for p in nets[2].parameters()) < 0.7 * whole


def test_a_cut_by_taylor_is_told_the_gradients(parent, digits, cache, tmp_path):
    """Other channels than by magnitude, which it would be without the training set's gradients; of the same shape."""
    half = (("prune", 0.5),)
    nets = [
        load_net(candidate(digits, cache, parent.path, tmp_path / f"{by}.pt", steps=half, options=options).path)
        for by, options in (("magnitude", ()), ("taylor", (("prune_by", "taylor"),)))
    ]
    plain, taylor = (net.state_dict() for net in nets)
    assert {name: t.shape for name, t in plain.items()} == {name: t.shape for name, t in taylor.items()}
    assert not torch.equal(plain["features.0.0.weight"], taylor["features.0.0.weight"])


@pytest.mark.parametrize("steps", [(), PRUNED, (("prune", 0.25), ("lowrank", 0.5))])
def test_a_candidates_file_is_plain_data_and_gives_the_same_network(parent, few, cache, tmp_path, steps):
    """It is read without running any code that it names; fine-tuning goes on from just that network."""
    started = candidate(few, cache, parent.path, tmp_path / "0.pt", steps=steps)
    again = tune(few, cache, parent.path, started.path, tmp_path / "1.pt", lr_candidate=0.0)
    first, second = (torch.load(done.path, weights_only=True) for done in (started, again))
    assert first["plan"] == second["plan"] and first["plan"]["steps"] == steps
    nets = [load_net(done.path) for done in (started, again)]
    assert all(torch.equal(a, b) for a, b in zip(*(net.parameters() for net in nets), strict=True))


def test_another_input_size_gets_batchnorm_statistics_of_its_own(parent, digits, cache, tmp_path):
    same = load_net(candidate(digits, cache, parent.path, tmp_path / "a.pt", steps=()).path)
    other = load_net(candidate(digits, cache, parent.path, tmp_path / "b.pt", px=32, steps=()).path)
    kept = torch.load(parent.path, weights_only=True)["state"]
    for name, value in same.state_dict().items():
        assert torch.equal(value, kept[name])
    changed = {name for name, value in other.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed and all("running" in name or "num_batches" in name for name in changed)


@pytest.mark.parametrize(
    ("family", "variant", "last"), [("tiny_mobile", "mb_w8", True), ("tiny_resnet", "res8_w8_s2", False)]
)
@pytest.mark.slow
def test_nets_train_in_the_layout_that_is_fast_and_safe(few, cache, tmp_path, monkeypatch, family, variant, last):
    """At 96 px oneDNN crashes on the residual net's 1x1 convolution of stride 2 if it is channels-last."""
    laid_out, real = [], trainer.train

    def train(net, *rest, **more):
        kernels = [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
        laid_out.extend(k.is_contiguous(memory_format=torch.channels_last) for k in kernels if k.shape[1] > 1)
        return real(net, *rest, **more)

    monkeypatch.setattr(trainer, "train", train)
    recipe = replace(TrainingRecipe.of(few, threads=1), parent_epochs=1)
    job = {"dataset": few, "cache": cache, "family": family, "variant": variant, "image_px": 96, "recipe": recipe}
    parent, start = tmp_path / "parent.pt", tmp_path / "start.pt"
    train_parent(ParentJob(**job, out=parent))
    start_candidate(CandidateJob(**job, steps=PRUNED, parent=parent, out=start, options=()))
    fine_tune(FineTuneJob(**job, epochs=1, teacher=parent, net=start, out=tmp_path / "tuned.pt"))
    assert laid_out and all(each == last for each in laid_out)


def test_the_same_job_gives_the_same_network(parent, few, cache, tmp_path):
    done = []
    for name in "ab":
        started = candidate(few, cache, parent.path, tmp_path / f"{name}0.pt")
        # another seed would cut the same channels, but see other batches
        tuned = tune(few, cache, parent.path, started.path, tmp_path / f"{name}1.pt")
        done.append((tuned.loss, load_net(tuned.path).state_dict()))
    (loss, state), (again, same) = done
    assert loss == again and all(torch.equal(value, same[name]) for name, value in state.items())
    other = tune(few, cache, parent.path, started.path, tmp_path / "c.pt", seed=1)
    assert other.loss != loss


def test_a_loss_that_explodes_is_the_networks_failure(parent, few, cache, tmp_path):
    started = candidate(few, cache, parent.path, tmp_path / "0.pt")
    with pytest.raises(TrainingFailedError, match=r"the loss became (nan|inf) in step \d+ of \d+"):
        tune(few, cache, parent.path, started.path, tmp_path / "1.pt", lr_candidate=1e30)
    assert not (tmp_path / "1.pt").exists()


def test_progress_is_told_and_ends_whole(parent, few, cache, tmp_path):
    started = candidate(few, cache, parent.path, tmp_path / "0.pt")
    tuned = tune(
        few,
        cache,
        parent=parent.path,
        net=started.path,
        out=tmp_path / "1.pt",
        epochs=2,
        progress=tmp_path / "progress.json",
    )
    told = json.loads((tmp_path / "progress.json").read_text())
    assert told.pop("loss") > 0
    assert told == {"epoch": 2, "epochs": 2, "step": tuned.steps, "steps": tuned.steps}


def test_a_kill_in_the_middle_leaves_no_half_file(tmp_path):
    code = (
        "import sys, pathlib; from dataclasses import replace\n"
        "from evaluators.data.loading import open_dataset\n"
        "from evaluators.training.jobs import ParentJob, TrainingRecipe\n"
        "from evaluators.training.trainer import train_parent\n"
        "d = open_dataset(None, 0); at = pathlib.Path(sys.argv[1])\n"
        "r = replace(TrainingRecipe.of(d, threads=1), parent_epochs=200)\n"
        f"job = ParentJob(dataset=d, cache=at / 'images', family={FAMILY!r}, variant={VARIANT!r}, image_px={PX},"
        " recipe=r, out=at / 'parent.pt', progress=at / 'progress.json')\n"
        "train_parent(job)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=REPO)
    end = time.monotonic() + 60
    while not (tmp_path / "progress.json").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "parent.pt").exists()
    json.loads((tmp_path / "progress.json").read_text())


# --- parts ------------------------------------------------------------------------------------------------


def feed(count, px=16, **recipe):
    images = np.random.default_rng(0).integers(0, 256, (count, px, px, 3), dtype=np.uint8)
    return BatchSource(images, np.arange(count), PLAIN, replace(TrainingRecipe(threads=1, epoch_images=1), **recipe))


@pytest.mark.parametrize(("count", "batches"), [(64, 2), (65, 2), (66, 3), (20, 1), (2, 1)])
def test_no_batch_is_a_single_image(count, batches):
    sizes = [len(batch.labels) for batch in feed(count).epoch(np.random.default_rng(0))]
    assert len(sizes) == len(feed(count)) == batches and min(sizes) > 1


def test_an_epoch_shows_every_image_with_its_label():
    seen = torch.cat([batch.index for batch in feed(70).epoch(np.random.default_rng(0))])
    assert sorted(seen.tolist()) == list(range(70))
    for batch in feed(70).epoch(np.random.default_rng(1)):
        assert torch.equal(batch.labels, batch.index)
        assert batch.pixels.shape[1:] == (3, 16, 16) and batch.pixels.is_contiguous()


def test_a_small_set_is_gone_through_several_times():
    images = feed(70, epoch_images=200)
    seen = torch.cat([batch.index for batch in images.epoch(np.random.default_rng(0))])
    assert len(images) == 7 and torch.equal(seen.bincount(), torch.full((70,), 3))


def test_what_is_said_to_be_mirrored_is():
    images = feed(40, augment=("mirror",))
    for batch in images.epoch(np.random.default_rng(0)):
        assert 0 < batch.view.sum() < len(batch.view)
        for pixels, index, view in zip(batch.pixels, batch.index, batch.view, strict=True):
            original = images.images[index][:, ::-1] if view else images.images[index]
            assert np.allclose(pixels.permute(1, 2, 0).numpy() * 255, original, atol=1e-3)
    assert not any(batch.view.any() for batch in feed(40).epoch(np.random.default_rng(0)))


@pytest.mark.parametrize("augment", [("flip",), ("rotate",), ("mirror", "flip"), ("mirror", "rotate")])
def test_feed_shows_each_image_as_the_view_it_names(augment):
    images = feed(70, augment=augment)
    shown = set()
    for batch in images.epoch(np.random.default_rng(0)):
        for pixels, index, number in zip(batch.pixels, batch.index, batch.view, strict=True):
            expected = apply_view(images.images[index][None], views(augment)[number])[0]
            assert np.allclose(pixels.permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)
            shown.add(int(number))
    assert shown == set(range(len(views(augment))))


def test_feed_brightness_scales_a_whole_image_by_one_factor():
    images = feed(40, augment=("brightness",), brightness=0.2)
    factors = []
    for batch in images.epoch(np.random.default_rng(0)):
        for pixels, index in zip(batch.pixels, batch.index, strict=True):
            before, now = images.images[index].astype(float), pixels.permute(1, 2, 0).numpy() * 255
            seen = (before > 60) & (now < 254)  # rounding counts little there
            ratios = now[seen] / before[seen]
            assert np.ptp(ratios) < 0.03 and 0.78 < ratios.mean() < 1.22
            factors.append(ratios.mean())
    assert min(factors) < 0.9 and max(factors) > 1.1


def test_feed_without_any_switch_shows_images_as_they_are():
    images = feed(40, augment=())
    for batch in images.epoch(np.random.default_rng(0)):
        assert np.allclose(batch.pixels.permute(0, 2, 3, 1).numpy() * 255, images.images[batch.index], atol=1e-3)


def test_a_shift_moves_at_most_its_share_and_repeats_the_border():
    images = feed(60, px=20, shift=0.1)
    moves = set()
    for batch in images.epoch(np.random.default_rng(0)):
        for pixels, index in zip(batch.pixels, batch.index, strict=True):
            padded = np.pad(images.images[index], ((2, 2), (2, 2), (0, 0)), mode="edge")
            now = (pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            at = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 20, x : x + 20], now)]
            assert len(at) == 1
            moves.add(at[0])
    assert len(moves) > 10


def test_batchnorm_statistics_become_the_images():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.9))
    images = feed(256).images
    renew_batchnorm(net, images, PLAIN)
    assert torch.allclose(net[0].running_mean, torch.tensor(images.mean((0, 1, 2)) / 255).float(), atol=1e-4)
    assert net[0].momentum == 0.1 and not net.training and not net[0].training


def test_batchnorm_free_networks_pass():
    renew_batchnorm(torch.nn.Conv2d(3, 1, 1), feed(4).images, PLAIN)


def test_distillation_is_least_at_the_parents_logits():
    taught = torch.tensor([[3.0, 1.0, -1.0], [0.0, 2.0, 0.0]])
    assert distillation(taught, taught, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation(taught + 5, taught, 2.0).item() == pytest.approx(0, abs=1e-5)  # only differences count
    assert distillation(taught.flip(1), taught, 2.0).item() > 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 100])
def test_a_cycle_rises_and_ends_near_nothing(steps):
    shares = [one_cycle(step, steps) for step in range(steps + 1)]
    peak = shares.index(max(shares))
    assert all(0 <= share <= 1 for share in shares) and peak <= max(1, steps // 3)
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[-1] < 0.01 or steps < 4


def test_the_test_split_is_never_trained_on(digits, cache, tmp_path):
    """Training works with a data set whose validation and test cannot even be read."""
    nothing = Split(("no/such",), (0,))
    blind = replace(digits, splits=digits.splits | {VALIDATION: nothing, TEST: nothing})
    recipe = TrainingRecipe(parent_epochs=1, threads=1)
    done = train_parent(
        ParentJob(
            dataset=blind,
            cache=cache,
            family=FAMILY,
            variant="res8_w4_s2",
            image_px=16,
            recipe=recipe,
            out=tmp_path / "parent.pt",
        )
    )
    candidate_job = CandidateJob(
        dataset=blind,
        cache=cache,
        family=FAMILY,
        variant="res8_w4_s2",
        image_px=16,
        steps=(),
        recipe=recipe,
        parent=done.path,
        out=tmp_path / "net.pt",
    )
    assert start_candidate(candidate_job).path.exists()
