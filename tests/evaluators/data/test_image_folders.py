"""What is said of files that are not read, and of names that can't be shown or written down."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluators.data.dataset import TEST, DataError
from evaluators.data.image_folders import BROKEN_MAX
from evaluators.data.loading import arrays, open_dataset
from remote.link.reply_parsing import printable
from tests.evaluators.folders import image_folder, picture
from tests.evaluators.kinds import deep_png

BAD = b"gr\xf6\xdfe".decode("utf-8", "surrogateescape")  # Latin-1, as old systems wrote names


def test_files_with_other_endings_are_counted_by_class_and_ending(tmp_path):
    root = image_folder(tmp_path / "set", {"bad": 9, "ok": 9})
    for number in range(7):
        (root / "bad" / f"IMG_{number}.HEIC").write_bytes(b"x")
    (root / "bad" / "deep").mkdir()
    (root / "bad" / "deep" / "raw.dng").write_bytes(b"x")
    (root / "ok" / "without").write_bytes(b"x")
    for name in ("a.txt", "b.txt", "c.XML", "Thumbs.db", ".DS_Store"):
        (root / "ok" / name).write_bytes(b"x")
    data = open_dataset(str(root), 0)
    assert data.left_out == (
        "bad: 7 files with ending .HEIC are not read; save them as PNG or JPEG",
        "bad: 1 file with ending .dng is not read; save it as PNG or JPEG",
        "ok: 1 file without an ending is not read; save it as PNG or JPEG",
    )
    assert data.note.endswith("; ignored because they are not images: 4 files (.txt, .db, .xml)")
    assert {name: Counter(split.labels) for name, split in data.splits.items()} == {
        "train": {0: 7, 1: 7},
        "validation": {0: 1, 1: 1},
        "test": {0: 1, 1: 1},
    }


def test_a_class_of_unread_files_alone_is_said_with_the_reason(tmp_path):
    root = image_folder(tmp_path / "set", {"bad": 0, "ok": 0})
    (root / "bad" / "one.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no images in .*; bad: 1 file with ending \.heic is not read"):
        open_dataset(str(root), 0)


def test_files_and_folders_beside_the_classes_are_counted(tmp_path):
    root = image_folder(tmp_path / "set", {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "holdout/a": 1})
    picture(root / "train" / "loose.png")
    picture(root / "loose.png")
    assert open_dataset(str(root), 0).left_out == (
        "set: 1 file beside the class folders, of no class, not read",
        "train: 1 file beside the class folders, of no class, not read",
        "beside train, val: not read: holdout",
    )


def test_very_many_broken_images_are_named_up_to_a_limit(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 5, "b": 5})
    for number in range(BROKEN_MAX + 20):
        (root / "a" / f"broken{number}.png").touch()
    left_out = open_dataset(str(root), 0).left_out
    assert len(left_out) == BROKEN_MAX + 1 and left_out[-1] == "and 20 more files that can't be decoded"


def test_deep_images_that_use_a_small_part_of_their_range_are_remarked(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 5, "b": 5})
    deep_png(root / "a" / "dim.png", np.full((8, 8, 1), 4095, np.uint16))
    deep_png(root / "a" / "bright.png", np.full((8, 8, 1), 40950, np.uint16))
    deep_png(root / "b" / "dim.png", np.full((8, 8, 3), 4095, np.uint16))
    Image.new("L", (8, 8), 5).save(root / "b" / "dark.png")
    note = open_dataset(str(root), 0, tmp_path / "cache").note
    assert "; 2 images of 16 bits a pixel are nearly black" in note
    assert open_dataset(str(root), 0, tmp_path / "cache").note == note


@given(st.text() | st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")))
def test_printable_text_moves_no_cursor_and_can_be_written(text):
    shown = printable(text)
    shown.encode()
    assert printable(shown) == shown
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 or letter in "\u202e\u2066\u2028" for letter in shown)


@pytest.mark.parametrize("text", ["Größe 日本", "می\u200cشود", "a\u3000b", "👩\u200d🔧", "[/red] $HOME 'x'"])
def test_printable_text_of_every_script_stays(text):
    assert printable(text) == text


def test_names_with_escapes_are_shown_as_text_wherever_they_come_out(tmp_path):
    odd = "a\x1b[31m\u202eb\n"
    root = image_folder(tmp_path / odd, {odd: 5, "b": 5})
    (root / odd / "\x1b]0;x\x07.png").touch()
    (root / odd / "x.\x1b[2J").touch()
    data = open_dataset(str(root), 0)
    lines = [data.note, data.name, *data.left_out, *data.classes, *data.describe().values()]
    assert len(data.left_out) == 2 and all(line == printable(line) for line in lines)
    assert data.classes[0] == r"a\x1b[31m\u202eb\n"
    for path in (root / odd).iterdir():
        path.unlink()
    with pytest.raises(DataError) as caught:
        open_dataset(str(root), 0)
    assert str(caught.value) == printable(str(caught.value))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_class_folder_that_is_no_utf8_is_refused_in_one_line(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 5})
    (root / BAD).mkdir()
    with pytest.raises(DataError, match=r"class folder gr\\udcf6\\udcdfe .* is not UTF-8; rename it") as caught:
        open_dataset(str(root), 0)
    str(caught.value).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_data_folder_that_is_no_utf8_is_refused_in_one_line(tmp_path):
    image_folder(tmp_path / BAD, {"a": 5, "b": 5})
    with pytest.raises(DataError, match="its name is not UTF-8; rename it"):
        open_dataset(str(tmp_path / BAD), 0)
    (tmp_path / "link").symlink_to(tmp_path / BAD)
    assert len(open_dataset(str(tmp_path / "link"), 0).classes) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_images_whose_names_are_no_utf8_are_read_like_others(tmp_path):
    plain = image_folder(tmp_path / "plain", {"a": 9, "b": 9})
    odd = image_folder(tmp_path / "odd", {"a": 9, "b": 9})
    for path in list(odd.glob("*/*.png")):
        path.rename(path.parent / f"{path.stem}{BAD}.png")
    (odd / "a" / f"{BAD}.jpg").touch()
    first = open_dataset(str(odd), 0, tmp_path / "cache")
    assert first == open_dataset(str(odd), 0, tmp_path / "cache")  # from memory
    assert first.digest == open_dataset(str(plain), 0).digest
    assert first.left_out == (r"a/gr\udcf6\udcdfe.jpg: an empty file",)
    images, _ = arrays(first, TEST, 8, tmp_path / "cache")
    assert images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("spec", ["~nobody-of-this-name/x", "a\0b", "x" * 5000], ids=["no home", "zero", "long"])
def test_data_folder_of_an_impossible_name_is_refused_in_one_line(spec):
    with pytest.raises(DataError) as caught:
        open_dataset(spec, 0)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
