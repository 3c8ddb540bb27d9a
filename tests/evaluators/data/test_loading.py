"""Data sets: what is opened, how it is split, and what is said when it can't be."""

import io
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from evaluators.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, DataError, cap_validation, split_stratified
from evaluators.data.loading import arrays, calibration_images, open_dataset
from evaluators.data.preprocessing import load_image, normalise
from tests.evaluators.folders import image_folder, picture

REPO = Path(__file__).parents[3]
SHARED = REPO.parent / "shared" / "data"
FRACTIONS = (0.7, 0.15, 0.15)


def sources(dataset):
    return {name: set(split.sources) for name, split in dataset.splits.items()}


# --- splits -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(3, 60), min_size=1, max_size=8), st.integers(0, 9), st.randoms())
def test_a_stratified_split_is_disjoint_whole_and_even(counts, seed, random):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    random.shuffle(labels)
    labels = np.array(labels)
    parts = split_stratified(labels, FRACTIONS, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, fraction in zip(parts, FRACTIONS, strict=True):
        for label, count in enumerate(counts):
            got = int((labels[part] == label).sum())
            assert got >= 1
            assert abs(got - fraction * count) <= 2  # two roundings, or the one that is always given


@given(st.integers(0, 5))
def test_a_split_is_its_seeds(seed):
    labels = np.arange(300) % 3
    first, again, other = (split_stratified(labels, FRACTIONS, s) for s in (seed, seed, seed + 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000))
def test_no_digit_is_in_two_splits(seed):
    digits = open_dataset(None, seed)
    originals = [{s.split("/")[0] for s in digits.splits[name].sources} for name in SPLITS]
    assert sum(map(len, originals)) == len(set.union(*originals)) == 1797
    for split in digits.splits.values():
        shares = Counter(split.labels)
        assert len(shares) == 10 and max(shares.values()) / min(shares.values()) < 1.2


def test_digits_say_what_they_are_and_repeat_exactly(tmp_path):
    digits = open_dataset("digits", 3)
    assert "made from scikit-learn's digits, not photographs" in digits.note
    assert max(digits.sizes[0]) == 48 and digits.left_out == ()
    first, labels = arrays(digits, TEST, 48, tmp_path / "a")
    again, _ = arrays(digits, TEST, 48, tmp_path / "b")
    assert np.array_equal(first, again) and len(labels) == len(first) == 359
    assert not np.array_equal(first, arrays(open_dataset(None, 4), TEST, 48, tmp_path / "a")[0])


def test_class_folders_are_split_in_three(tmp_path):
    root = image_folder(tmp_path / "fruit", {"apple": 20, "pear": 40})
    fruit = open_dataset(str(root), 0)
    assert fruit.classes == ("apple", "pear")
    assert [len(fruit.splits[name]) for name in SPLITS] == [42, 9, 9]
    assert "70/15/15" in fruit.note and "seed 0" in fruit.note
    everything = sources(fruit)
    assert len(set.union(*everything.values())) == 60
    assert sources(open_dataset(str(root), 0)) == everything != sources(open_dataset(str(root), 1))


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "test"])
def test_a_single_other_split_is_the_test(tmp_path, name):
    counts = {"train/a": 20, "train/b": 10, f"{name}/a": 4, f"{name}/b": 3}
    data = open_dataset(str(image_folder(tmp_path, counts)), 0)
    assert all(source.startswith(f"{name}/") for source in data.splits[TEST].sources)
    assert [len(data.splits[n]) for n in SPLITS] == [24, 6, 7]
    assert "search never sees" in data.note and f"folder's {name} is the test" in data.note


def test_three_splits_stay_as_they_are(tmp_path):
    folders = {"train": 5, "val": 3, "test": 2}
    root = image_folder(tmp_path, {f"{f}/{c}": n for f, n in folders.items() for c in "ab"})
    data = open_dataset(str(root), 0)
    for name, folder in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test")):
        assert len(data.splits[name]) == 2 * folders[folder]
        assert all(source.startswith(f"{folder}/") for source in data.splits[name].sources)
    assert open_dataset(str(root), 1).digest == data.digest  # nothing was drawn


def test_train_may_be_a_class(tmp_path):
    data = open_dataset(str(image_folder(tmp_path, {"car": 5, "train": 5})), 0)
    assert data.classes == ("car", "train")


def test_the_same_image_in_two_splits_is_told(tmp_path):
    root = image_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 1, "val/b": 1})
    (root / "val/a/copy.png").write_bytes((root / "train/a/000.png").read_bytes())
    assert "1 images are in more than one split" in open_dataset(str(root), 0).note


def test_the_digest_names_content_not_place(tmp_path):
    one, two = (image_folder(tmp_path / n, {"a": 5, "b": 5}) for n in ("one", "two"))
    assert open_dataset(str(one), 0).digest == open_dataset(str(two), 0).digest
    assert open_dataset(str(one), 0).digest != open_dataset(str(one), 1).digest
    picture(two / "a" / "000.png", seed=99)
    assert open_dataset(str(one), 0).digest != open_dataset(str(two), 0).digest


def test_a_dataset_fits_through_a_pipe(tmp_path):
    data = open_dataset(str(image_folder(tmp_path, {"a": 5, "b": 5})), 0)
    assert pickle.loads(pickle.dumps(data)) == data


def test_calibration_takes_classes_in_equal_parts(tmp_path):
    data = open_dataset(str(image_folder(tmp_path, {"a": 60, "b": 12, "c": 40})), 0)
    chosen = calibration_images(data, 24, 0)
    labels = np.array(data.splits[TRAIN].labels)
    assert Counter(labels[chosen].tolist()) == {0: 8, 1: 8, 2: 8}
    assert np.array_equal(chosen, calibration_images(data, 24, 0))
    assert np.array_equal(calibration_images(data, 10_000, 0), np.arange(len(labels)))


# --- what can go wrong ------------------------------------------------------------------------------------


def empty(root):
    root.mkdir()


def only_text(root):
    (image_folder(root, {"a": 0, "b": 0}) / "a" / "read.me").write_text("x")


def loose(root):
    picture(root / "one.png")


def a_file(root):
    root.write_text("x")


def all_broken(root):
    for name in ("a/1.png", "b/1.png"):
        (image_folder(root, {"a": 0, "b": 0}) / name).write_text("no picture")


WRONG = {
    "no such data folder": lambda root: None,
    "is a file; --data takes a folder": a_file,
    "has no class folders; put the images": empty,
    "has 1 images but no class folders": loose,
    "no images in": only_text,
    "none of the 2 images in": all_broken,
    "has a single class (only)": lambda root: image_folder(root, {"only": 9}),
    "too few images in {root}: b has 2; each class needs at least 3 for train, validation and test": (
        lambda root: image_folder(root, {"a": 9, "b": 2})
    ),
    "too few images in {root}: c has 0": lambda root: image_folder(root, {"a": 9, "b": 9, "c": 0}),
    "b has 1; each class needs at least 2 for train and validation": (
        lambda root: image_folder(root, {"train/a": 9, "train/b": 1, "val/a": 1, "val/b": 1})
    ),
    "too few images in {root}/val: b has 0": (
        lambda root: image_folder(root, {"train/a": 9, "train/b": 9, "val/a": 1, "val/b": 0})
    ),
    "train and val of {root} have different classes: b only in train, c only in val": (
        lambda root: image_folder(root, {"train/a": 9, "train/b": 9, "val/a": 1, "val/c": 2})
    ),
    "has two validation folders, val and valid": (
        lambda root: image_folder(root, {"train/a": 2, "val/a": 1, "valid/a": 1})
    ),
}


@pytest.mark.parametrize("said", WRONG)
def test_wrong_data_is_one_clear_line(tmp_path, said):
    root = tmp_path / "set"
    WRONG[said](root)
    with pytest.raises(DataError) as caught:
        open_dataset(str(root), 0)
    line = str(caught.value)
    assert said.format(root=root) in line and str(root) in line and "\n" not in line


def test_cifar_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"cifar10 .*: not found; unpack https?://\S+ there .*/cifar-10-batches-py"):
        open_dataset(f"cifar10:{tmp_path}", 0)
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(DataError, match="the checksums do not match"):
        open_dataset(f"cifar100:{tmp_path}", 0)


def test_cifar_is_read_by_torchvision(tmp_path, monkeypatch):
    """A small set in CIFAR's own format; only the published checksums are replaced by its own."""
    from torchvision.datasets import CIFAR10

    def batch(name, labels):
        pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))

    (tmp_path / "cifar-10-batches-py").mkdir()
    batch("data_batch_1", [0, 1] * 20)
    batch("test_batch", [1, 0] * 5)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": ["cat", "dog"]}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    data = open_dataset(f"cifar10:{tmp_path}", 0)
    assert data.classes == ("cat", "dog")
    assert [len(data.splits[name]) for name in SPLITS] == [36, 4, 10]
    assert not sources(data)[TRAIN] & sources(data)[VALIDATION]
    images, labels = arrays(data, TEST, 32, tmp_path / "cache")
    assert labels.tolist() == [1, 0] * 5
    assert np.array_equal(images, CIFAR10(tmp_path, train=False).data)


def test_broken_images_are_left_out_by_name(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 9, "b": 9})
    good = (root / "a/000.png").read_bytes()
    (root / "a/cut.png").write_bytes(good[: len(good) // 2])
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer := io.BytesIO(), "JPEG")
    (root / "a/cut.JPG").write_bytes(buffer.getvalue()[:-200])
    (root / "b/text.jpeg").write_text("not a picture")
    (root / "b/empty.png").touch()
    (root / "b/gone.png").symlink_to(root / "nowhere.png")
    (root / "b/.hidden.png").write_text("not even looked at")
    (root / "b/notes.txt").write_text("neither")
    data = open_dataset(str(root), 0, tmp_path / "cache")
    named = {line.split(":")[0]: line for line in data.left_out}
    assert set(named) == {"a/cut.png", "a/cut.JPG", "b/text.jpeg", "b/empty.png", "b/gone.png"}
    assert "empty file" in named["b/empty.png"] and "not an image" in named["b/text.jpeg"]
    assert sum(map(len, data.splits.values())) == 18
    assert open_dataset(str(root), 0, tmp_path / "cache") == data  # from memory
    (root / "b/empty.png").write_bytes(good)  # repaired: seen again
    assert len(open_dataset(str(root), 0, tmp_path / "cache").left_out) == 4


def test_links_are_followed_and_loops_end(tmp_path):
    elsewhere = image_folder(tmp_path / "elsewhere", {"deep/deeper": 4})
    root = image_folder(tmp_path / "set", {"a": 5, "b": 5})
    (root / "a" / "more").symlink_to(elsewhere)
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "b" / "up").symlink_to(root / "b" / "up")
    labels = [label for split in open_dataset(str(root), 0).splits.values() for label in split.labels]
    assert Counter(labels) == {0: 9, 1: 5}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_folder_is_said(tmp_path):
    (root := image_folder(tmp_path / "set", {"a": 3})).chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(str(root), 0)


# --- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "bmp", "webp", "tif", "ppm", "gif"])
def test_a_format_is_what_four_lines_of_pillow_read(tmp_path, ending):
    path = picture(tmp_path / f"one.{ending}", size=(31, 17))
    upright = ImageOps.exif_transpose(Image.open(path))
    expected = np.asarray(upright.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(load_image(path, 24), expected)
    assert expected.shape == (24, 24, 3) and expected.dtype == np.uint8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode, recwarn):
    path = tmp_path / ("one.jpg" if mode in ("CMYK", "YCbCr") else "one.png")
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    assert load_image(path, 4).min() > 250
    assert not recwarn.list


def test_a_transparent_palette_keeps_its_colours(tmp_path, recwarn):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "one.png", transparency=bytes([0, 128]))
    assert load_image(tmp_path / "one.png", 4)[0, 0].tolist() == [200, 100, 50]
    assert not recwarn.list


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_deep_grey_is_scaled_not_clipped(tmp_path, ending):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(1, 256).repeat(256, 0)
    Image.fromarray(ramp).save(tmp_path / f"one.{ending}")
    read = load_image(tmp_path / f"one.{ending}", 256)
    assert np.abs(read[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_turned_photograph_is_set_upright(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 20, 5))  # its top is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "one.png", exif=exif)
    turned = load_image(tmp_path / "one.png", 8)
    assert turned[:, 7].min() == 255 and turned[:, 0].max() == 0


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_normalise_is_its_formula(count, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = normalise(images, mean, std)
    expected = (images.astype(np.float64) / 255 - mean) / std
    assert result.flags.c_contiguous and result.dtype == np.float32 and result.shape == (count, 3, 5, 5)
    assert np.allclose(result, expected.transpose(0, 3, 1, 2), atol=1e-6)


# --- arrays -----------------------------------------------------------------------------------------------


def test_arrays_are_decoded_once_by_whoever_is_first(tmp_path):
    data = open_dataset(str(image_folder(tmp_path / "set", {"a": 40, "b": 40})), 0)
    seen = []
    ask = lambda: arrays(data, TRAIN, 16, tmp_path / "cache", lambda done, total: seen.append((done, total)))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images, labels = ask()
    assert seen == [(56, 56)]
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".npy"]
    assert isinstance(images, np.memmap) and labels.dtype == np.int64
    for pixels, source in zip(images, data.splits[TRAIN].sources, strict=True):
        assert np.array_equal(pixels, load_image(data.root / source, 16))


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    data = open_dataset(str(image_folder(tmp_path / "set", {"a": 9, "b": 9})), 0)
    (cache := tmp_path / "cache").mkdir()
    old, new = (cache / f".{data.digest}-{TEST}-16-squash.npy.{name}.part" for name in ("0" * 12, "f" * 12))
    for part in (old, new):
        part.write_bytes(b"\x93NUMPY half")
    os.utime(old, (0, 0))
    images, labels = arrays(data, TEST, 16, cache)
    assert len(images) == len(labels) == 2 and not old.exists() and new.exists()


def resaved(change):
    return lambda path: np.save(path, change(np.load(path)))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "torn header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "torn pixels": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "text": lambda path: path.write_text("{}"),
    "other shape": resaved(lambda images: images[:1]),
    "other type": resaved(lambda images: images.astype(np.float32)),
    "a pickle": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "zip": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_arrays_in_the_cache_that_are_damaged_are_made_again(damage, tmp_path):
    data = open_dataset(str(image_folder(tmp_path / "set", {"a": 9, "b": 9})), 0)
    good = arrays(data, TEST, 16, tmp_path / "cache")[0].copy()
    (file,) = (tmp_path / "cache").iterdir()
    DAMAGE[damage](file)
    assert np.array_equal(arrays(data, TEST, 16, tmp_path / "cache")[0], good)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [file.name]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 2}', '{"version": 2, "images": []}', '{"version": 2, "images": {"x": {}}}', "\0",
     '{"version": 2, "images": {"x": {"size": [1], "sha256": "a", "broken": "", "dim": false}}}', "[" * 100_000,
     '{"x 1 2": {"size": [1, 1], "sha256": "a", "broken": ""}}', b"\xff\xfe"],
    ids=range(11),
)  # fmt: skip
def test_memory_of_checked_images_that_is_damaged_is_made_again(text, tmp_path):
    root = str(image_folder(tmp_path / "set", {"a": 5, "b": 5}))
    data = open_dataset(root, 0, tmp_path)
    memory = tmp_path / "checked.json"
    whole = memory.read_bytes()
    memory.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert open_dataset(root, 0, tmp_path) == data and memory.read_bytes() == whole


def test_arrays_that_find_no_room_raise_and_leave_no_file(tmp_path):
    """The room is taken before the file is mapped: a limit on file sizes stands for a full disk."""
    root = image_folder(tmp_path / "set", {"a": 40, "b": 40})
    code = (
        "import errno, resource, signal, sys; from pathlib import Path\n"
        "from evaluators.data.loading import arrays, open_dataset\n"
        "data = open_dataset(sys.argv[1], 0)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: arrays(data, 'train', 64, Path(sys.argv[2]))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    words = [sys.executable, "-c", code, root, tmp_path / "cache"]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "EFBIG"), done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_arrays_of_two_processes_at_once_are_whole_in_both(tmp_path):
    """Also where the file system has no locks: then both decode, each into a file of its own."""
    root = image_folder(tmp_path / "set", {"a": 60, "b": 60})
    code = (
        "import fcntl, sys; from pathlib import Path\n"
        "def none(*_): raise OSError(37, 'No locks available')\n"
        "if sys.argv[3] == 'no': fcntl.flock = none\n"
        "from evaluators.data.loading import arrays, open_dataset\n"
        "data = open_dataset(sys.argv[1], 0, Path(sys.argv[2]))\n"
        "images, _ = arrays(data, 'train', 64, Path(sys.argv[2]) / 'images')\n"
        "print(int(images.sum()))\n"
    )
    for locks in ("yes", "no"):
        words = [sys.executable, "-c", code, root, tmp_path / locks, locks]
        both = [subprocess.Popen(words, cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = {process.communicate(timeout=120)[0] for process in both}
        assert len(said) == 1 and said != {""} and all(process.returncode == 0 for process in both)
        assert [path.suffix for path in (tmp_path / locks / "images").iterdir()] == [".npy"]


def test_arrays_of_another_resize_are_other_files(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 5, "b": 5})
    found = {}
    for resize in ("squash", "crop", "pad"):
        data = open_dataset(str(root), 0, resize=resize)
        found[resize] = data.digest, arrays(data, TEST, 16, tmp_path / "cache")[0]
        for pixels, source in zip(found[resize][1], data.splits[TEST].sources, strict=True):
            assert np.array_equal(pixels, load_image(data.root / source, 16, resize))
    assert len({digest for digest, _ in found.values()}) == 3


def test_an_image_that_vanishes_is_said(tmp_path):
    data = open_dataset(str(image_folder(tmp_path / "set", {"a": 9, "b": 9})), 0)
    for path in (tmp_path / "set/a").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="could be read when the run began but not now"):
        arrays(data, TRAIN, 16, tmp_path / "cache")


def test_opening_a_folder_imports_neither_torch_nor_scikit_learn(tmp_path):
    root = image_folder(tmp_path, {"a": 5, "b": 5})
    code = (
        "import sys; from evaluators.data.loading import open_dataset; open_dataset(sys.argv[1], 0);"
        "print([m for m in ('torch', 'torchvision', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, root], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "classes", "counts"),
    [("neu_cls", 6, [1152, 288, 360]), ("casting_products", 2, [400, 100, 215])],
)
def test_real_sets(name, classes, counts, tmp_path):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} beside the repository")
    data = open_dataset(str(SHARED / name), 0)
    assert len(data.classes) == classes and data.left_out == ()
    assert [len(data.splits[split]) for split in SPLITS] == counts
    assert data.describe()["classes"].startswith(f"{classes}: ")


@pytest.mark.parametrize("count", [1, 50, 100])
def test_cap_validation_keeps_the_shares_of_the_classes_and_the_other_splits(count):
    whole = open_dataset(None, 0)
    capped = cap_validation(whole, count, 0)
    before, after = whole.splits[VALIDATION], capped.splits[VALIDATION]
    shares = np.bincount(before.labels) * count / len(before)
    assert (np.abs(np.bincount(after.labels) - np.maximum(shares, 1)) <= 0.5).all()
    assert set(zip(after.sources, after.labels, strict=True)) <= set(zip(before.sources, before.labels, strict=True))
    assert capped.splits[TRAIN] == whole.splits[TRAIN] and capped.splits[TEST] == whole.splits[TEST]
    assert capped.digest != whole.digest and "--val-images" in capped.note
    assert cap_validation(whole, count, 0) == capped


def test_cap_validation_smaller_set_stays_as_it_is():
    whole = open_dataset(None, 0)
    assert cap_validation(whole, len(whole.splits[VALIDATION]), 0) is whole
