"""The end of a run, at the width of an old terminal."""

import io

from rich.console import Console

from reports.terminal import summary
from tests.reports.conftest import KINDS, usual


def printed(result) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(summary(result))
    return console.file.getvalue()


def test_it_fits_eighty_columns_and_shows_the_finding(result):
    text = printed(result)
    assert max(map(len, text.splitlines())) <= 80
    assert ("chosen" in text) == (result.choice is not None or bool(result.front))
    assert "report.html" in text.replace("\n", "") or str(result.folder)[:20] in text


def test_the_front_marks_choice_and_baseline(tmp_path):
    lines = printed(usual(tmp_path)).splitlines()
    assert len([line for line in lines if line.startswith("*")]) == 1
    assert len([line for line in lines if line.startswith("b ")]) == 1


def test_the_numbers_are_there(tmp_path):
    text = " ".join(printed(usual(tmp_path)).split())
    assert "6 of 13 candidates over the budget were stopped before any training" in text
    assert "20 min 40 s: structure 5%, timing 25%, training 57%" in text
    assert "warning: 2 broken images left out" in text


def test_names_are_not_markup(tmp_path):
    assert "[red]" in printed(KINDS["evil"](tmp_path))


def test_nothing_fits_names_the_lever(tmp_path):
    text = " ".join(printed(KINDS["no fit"](tmp_path)).split())
    assert "Nothing measured keeps the budget" in text and "precision fp32 -> int8 took 0.55 of the time" in text
