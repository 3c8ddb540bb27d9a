"""A whole run over a table: the study, the funnel, the report, and going on with it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from remote.exit_codes import NOTHING_FITS, OK, USER
from search.run import main
from tests.spaces.test_table_space import small

__all__ = ["small"]  # a fixture


def command(small, *more: str) -> list[str]:
    words = ["--table", str(small), "--space", str(small / "small.toml"), "--device", "table:pi", "--data", "pets"]
    return [*words, "--sampler", "random", "--out", str(small / "run"), *more]


def test_it_ends_in_a_report_and_goes_on_without_looking_up_twice(small, capsys):
    assert main(command(small, "--budget-ms", "2", "--trials", "3")) == OK
    said = capsys.readouterr().out
    assert "is kept" in said and (small / "run" / "report.html").is_file()
    before = (small / "run" / "ledger.jsonl").read_text().splitlines()
    assert main(command(small, "--budget-ms", "2", "--trials", "4")) == OK
    entries = [json.loads(line) for line in (small / "run" / "ledger.jsonl").read_text().splitlines()]
    keys = Counter((entry["stage"], entry["key"]) for entry in entries)
    assert len(keys) > len(before)
    assert all(count == 1 or (stage == "latency" and count == 2) for (stage, _), count in keys.items()), "leaders twice"


def test_nothing_fits(small):
    assert main(command(small, "--budget-ms", "0.1", "--trials", "4")) == NOTHING_FITS


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--device", "local"], "table:COLUMN"),
        (["--device", "table:moon"], "no device column 'moon'"),
        (["--data", "cars"], "no data column"),
        (["--budget-mb", "3"], "no memory"),
        (["--space", "moon"], "nb201, timm"),
    ],
)
def test_wrong_wishes(small, capsys, more, says):
    assert main(command(small, "--budget-ms", "2", *more)) == USER
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (small / "run").exists()
