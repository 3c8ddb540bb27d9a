"""The doctor's command: what it prints and how it ends, on patients made up and on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remote import doctor
from remote.checks.check import RuntimeTrial
from remote.device import Device, Facts
from remote.errors import DeviceConfigError, DeviceError
from remote.exit_codes import OK
from tests.remote.checks.test_judgement import CALM, HOSTILE, NANO, PI

DEVICE = Device(name="nano", profile=None, host="nano", python=None, runtime=None)


class Patient:
    """A session that tells what it was given."""

    def __init__(self, facts: Facts, survey: Any) -> None:
        self.facts = facts
        self.told = survey
        self.pings = 0
        self.closed = False

    def survey(self) -> dict[str, Any]:
        if isinstance(self.told, BaseException):
            raise self.told
        return self.told

    def ping(self) -> None:
        self.pings += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No devices but the shipped ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


def fine(session: Patient, device: Device, holder: str) -> dict[str, RuntimeTrial]:
    """A model ran in every runtime."""
    return {name: RuntimeTrial(ms=1.0, difference=1e-6) for name in session.facts.runtimes}


def examined(facts: Facts, survey: Any, device: Device = DEVICE) -> doctor.Report:
    return doctor.examine(device, lambda asked: Patient(facts, survey), fine)


def test_a_fit_device():
    report = examined(NANO, CALM)
    assert report.fit and (report.device, report.profile, report.simulated) == ("nano", "jetson-nano", False)
    assert [check.name for check in report.checks[:3]] == ["link", "board", "python"]
    assert "profile jetson-nano" in report.checks[1].found and "L4T 32.7.6" in report.checks[1].found


def test_it_pings_surveys_and_hangs_up():
    patient = Patient(NANO, CALM)
    doctor.examine(DEVICE, lambda device: patient, fine)
    assert patient.pings == doctor.PINGS and patient.closed
    patient = Patient(NANO, DeviceError("connection to the device lost"))
    with pytest.raises(DeviceError):
        doctor.examine(DEVICE, lambda device: patient, fine)
    assert patient.closed


def test_a_device_that_is_not_what_it_is_entered_as():
    report = examined(PI, CALM, replace(DEVICE, profile="jetson-nano"))
    board = report.checks[1]
    assert board.verdict == "bad" and not report.fit
    assert "entered as jetson-nano" in board.found and "Raspberry Pi 4" in board.found and "devices.toml" in board.mend
    assert report.profile == "rpi4"  # judged as what it says it is


@pytest.mark.parametrize("profile", [None, "jetson-nano", "nano"])
def test_no_runtime_is_told_once_and_as_such(profile):
    report = examined(replace(NANO, runtimes={}), CALM, replace(DEVICE, profile=profile, runtime="tensorrt"))
    assert [check.name for check in report.checks if check.verdict == "bad"] == ["runtimes"]
    assert report.profile == "jetson-nano"


def test_a_runtime_that_is_entered_but_not_there():
    report = examined(NANO, CALM, replace(DEVICE, runtime="openvino"))
    assert report.checks[1].verdict == "bad" and "has no openvino" in report.checks[1].found


def test_a_simulated_device_says_so(capsys):
    assert doctor.main(["sim:nano"], lambda device: Patient(replace(NANO, simulated=True), CALM), fine) == OK
    assert "sim:nano, simulated" in capsys.readouterr().out


# ------------------------------------------------ the command


def test_the_table_and_its_verdict(capsys):
    assert doctor.main(["nano"], lambda device: Patient(NANO, CALM), fine) == 0
    shown = capsys.readouterr().out
    assert "fit to be measured" in shown and "not fit" not in shown
    assert "locked at 921 MHz" in shown and "INA3221 POM_5V_IN" in shown
    survey = CALM | {"gpu_mhz_min": 76, "busy_cores": 2.0, "is_root": True}
    assert doctor.main(["nano"], lambda device: Patient(NANO, survey), fine) == 3
    shown = capsys.readouterr().out
    assert "not fit to be measured: gpu clock, load" in shown
    assert "-> sudo jetson_clocks" in shown and "-> log in as an ordinary user" in shown


def test_json(capsys):
    survey = CALM | {"gpu_mhz_min": 76}
    assert doctor.main(["nano", "--json"], lambda device: Patient(NANO, survey), fine) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["device"], told["profile"], told["simulated"], told["fit"]) == ("nano", "jetson-nano", False, False)
    clock = next(check for check in told["checks"] if check["name"] == "gpu clock")
    assert clock == {
        "name": "gpu clock",
        "verdict": "bad",
        "found": "moves between 76 and 921 MHz",
        "mend": "sudo jetson_clocks",
    }


@pytest.mark.parametrize("argv", [["-nano"], ["no such device"], ["a;b"], ["--huh"], []])
def test_a_bad_argument_is_2(argv, capsys):
    try:
        assert doctor.main(argv, lambda device: Patient(NANO, CALM)) == 2
    except SystemExit as ended:  # argparse's own
        assert ended.code == 2
    assert "error: " in capsys.readouterr().err


def raising(error: BaseException):
    def connect(device: Device) -> Patient:
        raise error

    return connect


def test_how_it_ends_otherwise(capsys):
    assert doctor.main(["nano"], raising(DeviceError("nano can't be reached, ssh nano fails: no route"))) == 4
    assert capsys.readouterr().err == "device: nano can't be reached, ssh nano fails: no route\n"
    assert doctor.main(["nano"], raising(DeviceConfigError("no such host"))) == 2
    assert doctor.main(["nano"], raising(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):  # a bug of ours: Python ends with 1
        doctor.main(["nano"], raising(ZeroDivisionError()))


def test_what_a_device_says_is_text_and_nothing_else(capsys):
    facts = replace(NANO, board="[bold]Nano[/bold] [/x]", release="L4T 1")
    survey = CALM | {"holder": HOSTILE + "[red]", "desktop": [HOSTILE], "power_mode": HOSTILE}
    assert doctor.main(["nano"], lambda device: Patient(facts, survey), fine) == 0
    shown = capsys.readouterr().out
    assert "[bold]Nano[/bold] [/x]" in shown and "[red]" in shown
    assert "\x1b]0;" not in shown and "\x07" not in shown


@pytest.mark.parametrize("survey", [{}, {"cpu_mhz": "x"}, {"temperature_c": []}])
def test_a_survey_that_tells_nothing(survey, capsys):
    assert doctor.main(["nano"], lambda device: Patient(PI, survey), fine) == 0
    assert "not shown by this device" in capsys.readouterr().out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        doctor.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("exit codes", "python -m remote.doctor nano", "3 not fit", "130", "Nothing is changed"):
        assert word in shown


@pytest.mark.parametrize(
    ("tried", "used", "verdict", "words"),
    [
        (RuntimeTrial(ms=1.0, difference=1e-6), True, "ok", "reference model ran, 1 ms"),
        (RuntimeTrial(failed="a small model fails in it: crashed", mend="install"), True, "bad", "crashed"),
        (RuntimeTrial(failed="a small model fails in it: crashed", mend="install"), False, "warn", "crashed"),
        (RuntimeTrial(ms=1.0, difference=0.5), True, "bad", "differ from this machine's by 50 %"),
        (RuntimeTrial(ms=1.0, difference=0.5), False, "warn", "differ"),
        (RuntimeTrial(skipped="in use by ann"), True, "warn", "in use by ann"),
        (None, True, "warn", "no model was run in it"),
        (
            RuntimeTrial(ms=1.0, difference=0.0, why_not={"fp16": "it runs 0 of 4 layers"}),
            True,
            "ok",
            "not fp16: it runs 0",
        ),
        (RuntimeTrial(ms=1.0, difference=0.0, basis={"fp16": "4 of 4 layers"}), True, "ok", "fp16: 4 of 4 layers"),
    ],
)
def test_runtime_is_called_ok_only_where_a_model_ran_in_it(tried, used, verdict, words):
    runtime = "tensorrt" if used else "onnxruntime"
    found = {} if tried is None else {runtime: tried}
    report = doctor.examine(DEVICE, lambda asked: Patient(NANO, CALM), lambda *asked: found)
    row = next(check for check in report.checks if check.name == f"runtime {runtime}")
    assert row.verdict == verdict and words in row.found
    assert report.fit == (verdict != "bad")


# ------------------------------------------------ this machine, all the way


def run(*argv: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home), "EDGEFRONT_LOCK_DIR": str(home)}
    env |= {"PYTHONPATH": str(Path(doctor.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "remote.doctor", *argv], cwd=home, env=env, capture_output=True, text=True, timeout=120
    )


def test_this_machine(tmp_path):
    done = run("local", "--json", home=tmp_path)
    assert done.returncode in (0, 3), done.stderr  # 3 beside other work
    told = json.loads(done.stdout)
    assert told["fit"] == (done.returncode == 0) and told["profile"] == "local"
    found = {check["name"]: check for check in told["checks"]}
    assert found["python"]["found"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert "opset up to" in found["runtime onnxruntime"]["found"] and "MB free" in found["disk"]["found"]
    for name, check in found.items():
        if name.startswith("runtime ") and check["verdict"] == "ok":
            assert "the reference model ran, " in check["found"], "what is called ok has run a model"
    assert (
        found["runtime onnxruntime"]["verdict"] == "ok" and "a search uses it" in found["runtime onnxruntime"]["found"]
    )
    assert "MB available of" in found["memory"]["found"] and "cores busy" in found["load"]["found"]
    assert found["lock"]["verdict"] == "ok" and "round trip" in found["link"]["found"]
    unfit = {check["name"] for check in told["checks"] if check["verdict"] == "bad"}
    assert unfit <= {"load", "temperature", "throttling", "disk", "memory", "gpu users"}


def test_a_board_that_does_not_answer(tmp_path):
    (tmp_path / "ssh_config").write_text("Host box\n  HostName 127.0.0.1\n  Port 9\n")
    (tmp_path / "devices.toml").write_text('[box]\nhost = "box"\nssh_config = "ssh_config"\n')
    done = run("box", home=tmp_path)
    assert done.returncode == 4, done.stderr
    assert done.stdout == "" and done.stderr.startswith("device: box") and done.stderr.count("\n") == 1


def test_a_name_that_is_nobodys(tmp_path):
    done = run("nobody.invalid", home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "unknown device nobody.invalid" in done.stderr and done.stderr.count("\n") == 1
