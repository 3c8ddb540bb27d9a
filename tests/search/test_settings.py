"""The same wishes on the command line, in TOML and in Python; wrong ones are one clear line."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.run import parser, settings_of
from search.settings import Settings, SettingsError, from_toml, go_on, seconds, write


def asked(*words):
    return settings_of(parser().parse_args(list(words)))


def test_command_line_file_and_python_are_the_same(tmp_path):
    ours = asked("--budget-ms", "5", "--trials", "60", "--time-limit", "15m", "--rungs", "0,2")
    assert ours == Settings(5.0, trials=60, time_limit_s=900.0, rungs=(0, 2))
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
    settings = Settings(ms, data=text, rungs=rungs, budget_mb=mb)
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
    with pytest.raises(SettingsError, match="no setting 'bugdet'; there are budget_ms"):
        from_toml(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("budget_ms = 'five'\n")
    with pytest.raises(SettingsError, match="is not of type float"):
        from_toml(tmp_path / "c.toml")


def test_a_run_is_gone_on_with_only_as_it_began(tmp_path):
    began = Settings(5.0, trials=20)
    assert go_on(began, replace(began, trials=50), tmp_path).trials == 50
    with pytest.raises(SettingsError, match=r"budget_ms was 5.0, now 6.0"):
        go_on(began, replace(began, budget_ms=6.0), tmp_path)


def test_resume_takes_what_was_recorded(tmp_path):
    write(Settings(5.0, seed=3, out=str(tmp_path)), tmp_path / "config.toml")
    settings = asked("--resume", "--out", str(tmp_path), "--trials", "99")
    assert settings == Settings(5.0, seed=3, trials=99, out=str(tmp_path))
    with pytest.raises(SettingsError, match="leave out seed"):
        asked("--resume", "--out", str(tmp_path), "--seed", "4")
