"""The files of a report: whole or not there."""

import pytest
from PIL import Image

import reports.run_report as writing
from reports.run_report import write
from tests.reports.conftest import usual

NAMES = ["front.csv", "front.png", "looks.csv", "report.html", "trials.csv", "trials.parquet"]


def test_every_run_gets_every_file(result):
    files = write(result, result.folder)
    assert sorted(file.name for file in files) == NAMES
    assert sorted(path.name for path in result.folder.iterdir()) == NAMES, "nothing half-written is left"
    with Image.open(result.folder / "front.png") as picture:
        picture.load()
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_writing_again_gives_the_same_bytes(tmp_path):
    result = usual(tmp_path)
    first = {file.name: file.read_bytes() for file in write(result, tmp_path)}
    assert {file.name: file.read_bytes() for file in write(result, tmp_path)} == first


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    result = usual(tmp_path)
    write(result, tmp_path)
    old = (tmp_path / "report.html").read_bytes()

    def half(file):
        file.write_text("<html>")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        writing._whole(tmp_path / "report.html", half)
    assert (tmp_path / "report.html").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
