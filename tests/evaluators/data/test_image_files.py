"""Files that are no images, or never end: left out in a line, without waiting."""

import os
import socket
import threading
import time

import pytest

from evaluators.data import image_files
from evaluators.data.decode_check import check
from evaluators.data.loading import open_dataset
from tests.evaluators.folders import image_folder


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    server = socket.socket(socket.AF_UNIX)
    here = os.open(path.parent, os.O_RDONLY)
    server.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path is short
    os.close(here)
    server.close()


def an_endless_device(path):
    path.symlink_to("/dev/zero")


def a_large_file(path):
    with path.open("wb") as file:
        file.truncate(50 * 10**9)


def a_folder(path):
    path.mkdir()


def a_loop(path):
    path.symlink_to(path)


ODD = {
    "a pipe, not a file": a_pipe,
    "a socket, not a file": a_socket,
    "a device, not a file": an_endless_device,
    "larger than 1000 MB": a_large_file,
    "a folder, not a file": a_folder,
    "cannot be read (Too many levels": a_loop,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("said", ODD)
def test_check_of_what_is_no_image_file_ends_at_once(said, tmp_path):
    ODD[said](tmp_path / "one.png")
    began = time.monotonic()
    assert said in check(tmp_path / "one.png").broken
    assert time.monotonic() - began < 5


@pytest.mark.timeout(120)
def test_folder_with_odd_files_is_opened_and_names_each(tmp_path):
    root = image_folder(tmp_path / "set", {"a": 5, "b": 5})
    for number, make in enumerate(ODD.values()):
        make(root / "a" / f"odd{number}.png")
    data = open_dataset(str(root), 0, tmp_path / "cache")
    named = [line for line in data.left_out if line.startswith("a/odd")]
    assert len(named) == len(ODD) - 1  # a folder called odd.png may hold images
    assert sum(map(len, data.splits.values())) == 10


def test_digest_of_a_file_that_grows_without_end_is_refused():
    with open("/dev/zero", "rb") as file, pytest.raises(image_files.TooLargeError):  # noqa: PTH123
        image_files.sha256(file)


def test_room_is_shared_and_never_exceeded():
    room, most, held = image_files._MemoryShare(10), [], []

    def work(share):
        with room.claim(share):
            held.append(share)
            most.append(sum(held))
            time.sleep(0.01)
            held.remove(share)

    threads = [threading.Thread(target=work, args=(1 + number % 10,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(most) == 30 and max(most) <= 10 and not held
