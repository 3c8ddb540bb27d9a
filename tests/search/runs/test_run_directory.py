"""A run's folder and cache: judged at the door; and the command that repeats a run."""

import errno
import fcntl
import os
import shlex
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.data.dataset import DataError
from remote.errors import DeviceConfigError, DeviceError
from remote.files import HostError
from search.cli import parser, settings_of
from search.runs.run_directory import cache_folder, command, lock_run_directory, open_cache
from search.settings import SEEDS, Settings, SettingsError, from_toml, write
from search.storage.ledger import Ledger
from spaces.space import SpaceError

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
POSITIVE = st.floats(1e-9, 1e12)
SHARE = st.floats(0, 0.999)
WHOLE = st.integers(1, 10**6)
ANY = st.builds(
    Settings,
    budget_ms=POSITIVE,
    percentile=st.floats(0.1, 99.9),
    budget_mb=st.none() | POSITIVE,
    max_drop=st.none() | SHARE,
    device=TEXT,
    data=TEXT,
    space=st.none() | TEXT,
    table=st.none() | TEXT,
    weights=st.none() | TEXT,
    warm_start=st.none() | TEXT,
    trials=st.none() | WHOLE,
    time_limit_s=st.none() | POSITIVE,
    rungs=st.sets(st.integers(0, 1000), min_size=1).map(lambda found: tuple(sorted(found))),
    probe_share=SHARE,
    parent_epochs=st.none() | WHOLE,
    int8_drop=SHARE,
    qat_epochs=st.integers(0, 100),
    teacher=TEXT,
    distillation=st.none() | SHARE,
    temperature=st.none() | POSITIVE,
    seed=st.integers(0, SEEDS - 1),
    sampler_seed=st.none() | st.integers(0, SEEDS - 1),
    out=TEXT,
    cache=TEXT,
)


@settings(deadline=None, max_examples=200)
@given(ANY)
def test_command_asks_for_the_same_settings(wanted):
    line = command(wanted)
    assert settings_of(parser().parse_args(shlex.split(line)[3:])) == wanted


@settings(deadline=None, max_examples=100)
@given(wanted=ANY)
def test_config_reads_back_whatever_was_written(tmp_path_factory, wanted):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    write(wanted, path)
    assert from_toml(path) == wanted


def test_command_is_short_where_nothing_was_asked():
    assert command(Settings(budget_ms=5.0, out="runs/a b")) == "python -m search.run --budget-ms 5 --out 'runs/a b'"


def test_cache_below_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"--cache .* can't be written: .*name another folder"):
        cache_folder(Settings(budget_ms=1.0, cache=str(tmp_path / "file" / "cache")))
    with pytest.raises(SettingsError, match="--cache"):
        cache_folder(Settings(budget_ms=1.0, cache=str(tmp_path / "file")))


def test_cache_without_a_home_is_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with pytest.raises(SettingsError, match="no home directory; name a folder"):
        cache_folder(Settings(budget_ms=1.0))


def test_held_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsError, match=r"--out .* can't be written"),
        lock_run_directory(tmp_path / "file", Settings(budget_ms=1.0)),
    ):
        pass


def test_held_out_of_a_name_that_cannot_be_is_refused(tmp_path):
    with (
        pytest.raises(SettingsError, match=r"--out .* can't be written"),
        lock_run_directory(tmp_path / ("n" * 300), Settings(budget_ms=1.0)),
    ):
        pass


def test_held_twice_is_refused(tmp_path):
    with lock_run_directory(tmp_path / "r", Settings(budget_ms=1.0)):
        code = f"from search.runs.run_directory import lock_run_directory; from search.settings import Settings; from pathlib import Path\nwith lock_run_directory(Path({str(tmp_path / 'r')!r}), Settings(budget_ms=1.0)): pass"  # noqa: E501
        assert "another search is running" in os.popen(f"{sys.executable} -c {shlex.quote(code)} 2>&1").read()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_held_without_locks_says_so_and_goes_on(tmp_path, monkeypatch, capsys, number):
    """Some network file systems have no locks; none can be mounted here."""

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_run_directory(tmp_path / "r", Settings(budget_ms=1.0)) as found:
        assert found.budget_ms == 1.0
    said = capsys.readouterr().err
    assert said.startswith("note: ") and "can't be locked" in said and said.count("\n") == 1


def refuse(folder, error, stages=()):
    """A run that was refused after it had held the folder and put entries into the ledger."""
    with pytest.raises(type(error)), lock_run_directory(folder, Settings(budget_ms=1.0)):
        ledger = Ledger(folder / "ledger.jsonl")
        for stage in stages:
            ledger.put(stage, "key", {}, {}, 0.0)
        ledger.close()
        (folder / "graphs").mkdir()
        (folder / "graphs" / "reference.onnx").touch()
        raise error


@pytest.mark.parametrize("kind", [SettingsError, DataError, SpaceError, DeviceConfigError])
def test_held_start_that_is_refused_leaves_nothing(tmp_path, kind):
    refuse(tmp_path / "runs" / "steel", kind("--budget-mb 9 can't be kept"), ("state", "calibration", "incident"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", kind("unknown teacher"))
    assert list((tmp_path / "empty").iterdir()) == [], "the user's own folder stays"


@pytest.mark.parametrize("error", [HostError("no space left"), DeviceError("lost"), KeyboardInterrupt(), ValueError()])
def test_held_start_that_can_be_repeated_keeps_its_folder(tmp_path, error):
    refuse(tmp_path / "r", error, ("state",))
    assert (tmp_path / "r" / "config.toml").exists() and (tmp_path / "r" / "graphs" / "reference.onnx").exists()


@pytest.mark.parametrize("stage", ["structure", "latency", "accuracy"])
def test_held_refused_after_something_was_measured_keeps_it(tmp_path, stage):
    refuse(tmp_path / "r", SettingsError("no time is left"), ("state", stage))
    assert (tmp_path / "r" / "ledger.jsonl").read_bytes().count(b"\n") == 2


def test_held_refused_does_not_touch_another_run_nor_other_files(tmp_path):
    with lock_run_directory(tmp_path / "r", Settings(budget_ms=1.0)):
        pass
    before = sorted(path.name for path in (tmp_path / "r").iterdir())
    with (
        pytest.raises(SettingsError, match="holds another run"),
        lock_run_directory(tmp_path / "r", Settings(budget_ms=2.0)),
    ):
        pass
    refuse(tmp_path / "r", SettingsError("resumed, and refused"))
    assert set(before) < {path.name for path in (tmp_path / "r").iterdir()}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with (
        pytest.raises(SettingsError, match="holds other files"),
        lock_run_directory(tmp_path / "photos", Settings(budget_ms=1.0)),
    ):
        pass
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def test_open_cache_sweeps_what_killed_runs_left_a_day_ago(tmp_path):
    cache, left = tmp_path / "cache", []
    for below in (".", "parents", "steps/abc"):
        for age_s in (0.0, 2 * 86400.0):
            part = cache / below / f".net.pt.{len(left):012x}.part"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
            os.utime(part, (time.time() - age_s,) * 2)
            left.append(part)
    with open_cache(Settings(budget_ms=1.0, cache=str(cache))) as found:
        assert found == cache and [part.exists() for part in left] == [True, False] * 3


def test_open_cache_keeps_a_training_that_was_interrupted_within_a_week(tmp_path):
    states = [tmp_path / "parents" / f"net-{days}.pt.checkpoint" for days in (0, 6, 8)]
    states[0].parent.mkdir()
    for state, days in zip(states, (0, 6, 8), strict=True):
        state.touch()
        os.utime(state, (time.time() - days * 86400.0,) * 2)
    with open_cache(Settings(budget_ms=1.0, cache=str(tmp_path))):
        assert [state.exists() for state in states] == [True, True, False]


def test_open_cache_that_nothing_came_into_is_removed(tmp_path):
    with open_cache(Settings(budget_ms=1.0, cache=str(tmp_path / "a" / "b"))) as cache:
        assert cache.is_dir()
    assert list(tmp_path.iterdir()) == []
    with open_cache(Settings(budget_ms=1.0, cache=str(tmp_path / "a"))) as cache:
        (cache / "checked.json").touch()
    assert [path.name for path in cache.iterdir()] == ["checked.json"]
