"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.files import FULL, host_error, read_or_none, remove_parts, replace_file, reserve, write_file


@given(st.binary(max_size=2000))
def test_write_file_any_content_is_read_back(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("whole") / "deep" / "file"
    write_file(file, content)
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_replace_file_block_raises_keeps_the_old_file_and_leaves_nothing(tmp_path):
    file = tmp_path / "file"
    write_file(file, "old")
    with pytest.raises(KeyboardInterrupt), replace_file(file) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_remove_parts_takes_what_a_kill_left_and_nothing_else(tmp_path):
    names = ["net.pt", "other.pt", "n" * 150]
    left = {}
    for name in names:
        with pytest.raises(AssertionError), replace_file(tmp_path / name) as part:
            left[name] = part.name
            raise AssertionError
    foreign = [".net.pt.part", ".movie.part", "net.part", ".a.0123456789ag.part"]
    for name in [*left.values(), *foreign, *names]:
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123456789ab.part").mkdir()
    remove_parts(tmp_path, older_s=60.0)
    assert all((tmp_path / name).exists() for name in left.values()), "they may be in use"
    remove_parts(tmp_path, names[2])
    os.utime(tmp_path / left["net.pt"], (0, 0))
    assert not (tmp_path / left[names[2]]).exists()
    remove_parts(tmp_path, older_s=60.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*foreign, *names, left["other.pt"], ".folder.0123456789ab.part"]
    )


def test_replace_file_two_writers_at_once_never_mix(tmp_path):
    file, contents = tmp_path / "file", [str(n) * 100_000 for n in range(8)]
    writers = [threading.Thread(target=write_file, args=(file, content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert file.read_text() in contents
    assert list(tmp_path.iterdir()) == [file]


def test_replace_file_link_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    write_file(real, "old")
    link.symlink_to(real)
    write_file(link, "new")
    assert link.is_symlink() and real.read_text() == "new"


def test_replace_file_mode_is_the_old_files_or_the_umasks(tmp_path):
    file = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_file(file, "one")
        assert file.stat().st_mode & 0o777 == 0o640
        file.chmod(0o600)
        write_file(file, "two")
        assert file.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_reserve_takes_the_room(tmp_path):
    file = tmp_path / "array"
    file.touch()
    reserve(file, 1 << 20)
    assert file.stat().st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("number", FULL)
def test_host_error_full_disk_says_what_to_do(number):
    error = host_error(OSError(number, "", "runs/x"), "writing runs/x")
    assert "no space left" in str(error) and "run the same command to resume" in str(error)


def test_host_error_other_errors_say_nothing_of_the_machine():
    assert host_error(OSError(errno.ENOENT, ""), "reading") is None


@given(st.text(max_size=50))
def test_read_or_none_damaged_text_is_absent(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("cache") / "note.json"
    write_file(file, text)
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = None
    assert read_or_none(file, json.loads) == wanted
