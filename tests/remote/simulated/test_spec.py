"""What may stand behind `sim:`, and how often a failure befalls a call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote.connect import open_session
from remote.errors import DeviceConfigError
from remote.inventory.resolve import load_device
from remote.simulated.boards import BOARDS
from remote.simulated.spec import FAULTS, SimulationSpecError, parse

ROOT = Path(__file__).parents[3]
CALLS = 4000


def test_everything_can_be_said():
    spec = parse("nano,drop=0.05,hang=0.04,reboot=0.03,oom=0.02,disk=0.01,throttle=0.06,seed=3,noise=0.02,drift=0.1")
    assert spec.board.name == "jetson-nano" and not spec.real_time
    assert spec.faults == {"drop": 0.05, "hang": 0.04, "reboot": 0.03, "oom": 0.02, "disk": 0.01, "throttle": 0.06}
    assert (spec.seed, spec.noise, spec.drift) == (3, 0.02, 0.1)
    assert parse("rpi5,time=real").real_time


def test_names_and_aliases_are_unique():
    names = [name for board in BOARDS for name in (board.name, *board.aliases)]
    assert len(names) == len(set(names)) and all(parse(name).board.name for name in names)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("moon", "accepted: nano or jetson-nano"),
        ("", "accepted: nano"),
        ("nano,drop", "key=value"),
        ("nano,drop=0.1,drop=0.2", "each once"),
        ("nano,speed=2", "accepted: drop"),
        ("nano,drop=2", "from 0 to 1, not '2'"),
        ("nano,drop=nan", "from 0 to 1"),
        ("nano,noise=much", "from 0 to 1"),
        ("nano,drop=0.6,hang=0.6", "more than 1"),
        ("nano,seed=-1", "whole number"),
        ("nano,time=slow", "fake or real"),
    ],
)
def test_nonsense_is_refused_in_one_line(text, says):
    with pytest.raises(SimulationSpecError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_the_controller_shows_why(home):
    with pytest.raises(DeviceConfigError, match="no simulated board 'moon'; accepted: nano or jetson-nano"):
        open_session(load_device("sim:moon"))
    done = subprocess.run(
        [sys.executable, "-m", "remote.simulator", "nano,speed=2", "10"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "no key 'speed'" in done.stderr and done.stderr.count("\n") == 1


def test_started_by_hand_it_says_how_it_is_meant():
    done = subprocess.run([sys.executable, "-m", "remote.simulator"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "sim:nano" in done.stderr


@pytest.mark.parametrize("op", ["time", "predict", "put", "stat", "state"])
def test_each_failure_befalls_its_share_of_calls(op):
    spec = parse("nano," + ",".join(f"{kind}=0.05" for kind in FAULTS))
    drawn = [spec.fault(op, 1, call) for call in range(CALLS)]
    for kind, ops in FAULTS.items():
        share = drawn.count(kind) / CALLS
        assert share == 0 if op not in ops else 0.035 < share < 0.065, (kind, share)  # five standard errors


def test_another_start_fails_at_other_calls():
    spec = parse("nano,drop=0.2")
    first, again, second = ([spec.fault("stat", start, call) for call in range(200)] for start in (1, 1, 2))
    assert first == again != second
    assert first != [parse("nano,drop=0.2,seed=1").fault("stat", 1, call) for call in range(200)]
