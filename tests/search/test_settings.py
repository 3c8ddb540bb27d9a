"""The same wishes on the command line, in TOML and in Python; wrong ones are one clear line."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cli import parser, settings_of
from search.settings import Settings, SettingsError, from_toml, go_on, seconds, write


def asked(*words):
    return settings_of(parser().parse_args(list(words)))


def test_command_line_file_and_python_are_the_same(tmp_path):
    ours = asked("--budget-ms", "5", "--trials", "60", "--time-limit", "15m", "--rungs", "0,2")
    assert ours == Settings(budget_ms=5.0, trials=60, time_limit_s=900.0, rungs=(0, 2))
    (tmp_path / "c.toml").write_text('budget-ms = 5\ntrials = 60\ntime-limit = "15m"\nrungs = [0, 2]\n')
    assert asked("--config", str(tmp_path / "c.toml")) == ours
    assert asked("--config", str(tmp_path / "c.toml"), "--trials", "7").trials == 7


@given(
    ms=st.floats(0.01, 1e4),
    text=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1),
    rungs=st.sets(st.integers(0, 30), min_size=1).map(lambda s: tuple(sorted(s))),
    mb=st.none() | st.floats(1, 1e4),
)
def test_written_settings_read_back_the_same(tmp_path_factory, ms, text, rungs, mb):
    path = tmp_path_factory.mktemp("s") / "config.toml"
    settings = Settings(budget_ms=ms, data=text, rungs=rungs, budget_mb=mb)
    write(settings, path)
    assert from_toml(path) == settings


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400), (20, 20)]
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no budget"),
        (["--budget-ms", "0"], "must be above 0"),
        (["--budget-ms", "nan"], "must be above 0"),
        (["--budget-ms", "inf"], "budget_ms = inf must be a finite number"),
        (["--budget-ms", "1e999"], "finite"),
        (["--budget-ms", "5", "--budget-mb", "inf"], "finite"),
        (["--budget-ms", "5", "--temperature", "inf"], "finite"),
        (["--budget-ms", "5", "--time-limit", "1e999"], "finite"),
        (["--budget-ms", "5", "--seed", "-1"], "seed = -1 must be a whole number from 0 to 4294967295"),
        (["--budget-ms", "5", "--seed", str(2**70)], "from 0 to"),
        (["--budget-ms", "5", "--sampler-seed", str(2**32)], "from 0 to"),
        (["--budget-ms", "5", "--trials", str(2**70)], "must not be above"),
        (["--budget-ms", "5", "--rungs", f"0,{2**70}"], "must not be above"),
        (["--budget-ms", "5", "--data", "caf\udce9"], "UTF-8"),
        (["--budget-ms", "5", "--out", "caf\udce9"], "UTF-8"),
        (["--budget-ms", "5", "--percentile", "100"], "between 0 and 100"),
        (["--budget-ms", "5", "--max-drop", "2"], "0.02 is two points"),
        (["--budget-ms", "5", "--rungs", "3,1"], "must rise"),
        (["--budget-ms", "5", "--rungs", "a"], "list of epochs"),
        (["--budget-ms", "5", "--time-limit", "soon"], "not a duration"),
        (["--budget-ms", "5", "--trials", "0"], "at least 1"),
        (["--config", "nowhere.toml"], "no file nowhere.toml"),
        (["--resume", "--out", "nowhere"], "nothing to resume"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(words, says):
    with pytest.raises(SettingsError, match=says) as error:
        asked(*words)
    assert "\n" not in str(error.value)


def test_an_unknown_setting_lists_those_there_are(tmp_path):
    (tmp_path / "c.toml").write_text("budget_ms = 5\nbugdet = 3\n")
    with pytest.raises(SettingsError, match="unknown setting 'bugdet'; accepted: budget_ms"):
        from_toml(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("budget_ms = 'five'\n")
    with pytest.raises(SettingsError, match="is not of type float"):
        from_toml(tmp_path / "c.toml")


def test_a_run_is_gone_on_with_only_as_it_began(tmp_path):
    began = Settings(budget_ms=5.0, trials=20)
    assert go_on(began, replace(began, trials=50), tmp_path).trials == 50
    with pytest.raises(SettingsError, match=r"budget_ms was 5.0, now 6.0"):
        go_on(began, replace(began, budget_ms=6.0), tmp_path)


def test_resume_takes_what_was_recorded(tmp_path):
    write(Settings(budget_ms=5.0, seed=3, out=str(tmp_path)), tmp_path / "config.toml")
    settings = asked("--resume", "--out", str(tmp_path), "--trials", "99")
    assert settings == Settings(budget_ms=5.0, seed=3, trials=99, out=str(tmp_path))
    with pytest.raises(SettingsError, match="leave out seed"):
        asked("--resume", "--out", str(tmp_path), "--seed", "4")


@given(content=st.binary() | st.text().map(str.encode))
def test_config_of_any_bytes_is_settings_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("s") / "config.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:  # none of these names a budget
        from_toml(path)
    assert "config.toml" in str(error.value)


NUMBERS = ["1e400", "nan", "-inf", "1" * 400, "1" * 5000, "0x10"]
VALUES = [*NUMBERS, "true", "[]", "[[1]]", "{}", '"\\u0000"', "1979-05-27", "[" * 5000]


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)] + ["time_limit"])
@pytest.mark.parametrize("value", VALUES, ids=[value[:8] for value in VALUES])
def test_config_of_odd_values_is_settings_or_one_line(tmp_path, name, value):
    path = tmp_path / "config.toml"
    path.write_text(f"{name} = {value}\n" + ("" if name == "budget_ms" else "budget_ms = 5\n"))
    try:
        settings = from_toml(path)
    except SettingsError as error:
        assert str(error)
    else:
        write(settings, path)
        assert from_toml(path) == settings


def test_config_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbfbudget_ms = 5\r\nspace = "tiny"\r\n')
    assert from_toml(tmp_path / "c.toml") == Settings(budget_ms=5.0, space="tiny")


def test_config_without_end_is_not_read_to_it():
    with pytest.raises(SettingsError, match="longer than"):
        from_toml(Path("/dev/zero"))


def test_config_that_is_a_folder_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match="can't be read as TOML"):
        from_toml(tmp_path)
