"""`--family` as a user types it: searched, edited, gone, and gone on with from elsewhere."""

from __future__ import annotations

import json

import pandas
import pytest

from remote.exit_codes import OK, USER
from search.cli import parser, settings_of
from search.run import main
from search.runs.run_directory import command, with_absolute_paths
from search.settings import Settings, SettingsError, from_toml, write
from tests.own_family import NETS, SPACE

SHORT = ["--trials", "1", "--rungs", "0", "--parent-epochs", "1", "--probe-share", "0", "--device", "sim:nano"]


def test_family_may_be_given_several_times_and_is_written_down(tmp_path):
    words = ["--budget-ms", "5", "--family", "a.py", "--family", "-b, c.py"[1:]]
    settings = settings_of(parser().parse_args(words))
    assert settings.family == ("a.py", "b, c.py")
    assert command(settings).endswith("--family a.py --family 'b, c.py'")
    write(settings, tmp_path / "config.toml")
    assert from_toml(tmp_path / "config.toml") == settings
    with pytest.raises(SettingsError, match="UTF-8"):
        Settings(budget_ms=5.0, family=("caf\udce9.py",))


def test_located_knows_files_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "s.toml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    found = with_absolute_paths(Settings(budget_ms=5.0, space="s.toml", family=("nets.py",)))
    assert found.space == str(tmp_path / "s.toml") and found.family == (str(tmp_path / "nets.py"),)
    assert (
        with_absolute_paths(Settings(budget_ms=5.0, space="tiny")).space == "tiny"
        and with_absolute_paths(found) == found
    )


def test_a_table_refuses_families():
    words = ["--budget-ms", "5", "--table", "x", "--space", "nb201", "--device", "table:x"]
    assert main([*words, "--family", "a.py"]) == main([*words, "--model", "a.onnx"]) == USER


@pytest.mark.slow
def test_a_search_over_ones_own_family_is_only_gone_on_with_as_it_was(tmp_path, monkeypatch, capsys):
    nets, run = tmp_path / "nets.py", tmp_path / "run"
    nets.write_text(NETS)
    (tmp_path / "space.toml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    words = ["--budget-ms", "50", "--space", "space.toml", "--family", "nets.py", "--out", "run", "--cache", "cache"]
    assert main([*words, *SHORT]) == OK
    capsys.readouterr()
    trials = pandas.read_csv(run / "trials.csv")
    assert set(trials.family) == {"nets"} and set(trials.variant) <= {"mine_s", "mine_m"}
    assert trials.test_top1.notna().any()
    config = json.loads((run / "chosen" / "config.json").read_text())
    assert config["candidate"]["family"].startswith("nets@") and str(tmp_path) not in config["candidate"]["family"]

    monkeypatch.chdir("/")
    assert main(["--resume", "--out", str(run), "--trials", "2"]) == OK
    assert len(pandas.read_csv(run / "trials.csv")) == 2

    def refused(says):
        capsys.readouterr()
        before = (run / "ledger.jsonl").read_bytes()
        assert main(["--resume", "--out", str(run)]) == USER
        err = capsys.readouterr().err
        assert says in err and err.startswith("error: ") and err.count("\n") == 1, err
        assert (run / "ledger.jsonl").read_bytes() == before

    nets.write_text(NETS.replace("SiLU", "ReLU"))
    refused("the family file changed, nets was ")
    nets.unlink()
    refused(f"family file {nets}: no such file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("raise ValueError('no')", "nets.py can't be imported: line 1: ValueError: no"),
        (NETS.replace("4 * width, classes", "4 * width, 3"), "returns torch.float32 (2, 3) for 2 images"),
        ("import os; os._exit(3)", "nets.py can't be used: trying it ended its process with exit code 3"),
    ],
    ids=["import", "outputs", "process"],
)
def test_a_family_that_cannot_be_used_is_one_line(tmp_path, capsys, text, says):
    (tmp_path / "nets.py").write_text(text)
    words = ["--budget-ms", "5", "--family", str(tmp_path / "nets.py"), "--out", str(tmp_path / "run")]
    assert main(words) == USER
    err = capsys.readouterr().err
    assert says in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()
