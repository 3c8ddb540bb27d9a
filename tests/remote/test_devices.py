"""The command line of devices: list, add, show, its exit codes and its words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from remote import devices
from remote.device import Facts, Gpu
from remote.devices import main
from remote.inventory.resolve import load_device, profiles
from tests.remote.inventory.test_resolve import AGX_ORIN, NANO

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch):
    """No file of the one who runs the tests counts; tables are as wide as they like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEFRONT_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    return tmp_path / "config" / "edgefront" / "devices.toml"


@pytest.fixture
def board(monkeypatch):
    """Makes every device say it is a Jetson Nano, or what is put into the list."""
    said = [NANO]

    def ask(device) -> Facts:
        return said[-1]

    monkeypatch.setattr(devices, "_ask", ask)
    monkeypatch.setattr(devices, "_ask_all", lambda device: (ask(device), None))
    return said


def test_list_shows_where_each_is_from(own_files, capsys):
    assert main(["add", "nano", "--host", "me@10.0.0.5", "--profile", "nano"]) == 0
    Path("devices.toml").write_text('[pi]\nhost = "pi"\nruntime = "ncnn"\n')
    capsys.readouterr()
    assert main(["list"]) == 0
    rows = {row.split("│")[1].strip(): row for row in capsys.readouterr().out.splitlines() if row.startswith("│")}
    assert set(rows) == {"local", "nano", "pi", *(profile.name for profile in profiles())}
    assert "ssh me@10.0.0.5" in rows["nano"] and "/usr/bin/python3" in rows["nano"] and str(own_files) in rows["nano"]
    assert "./devices.toml" in rows["pi"] and "ncnn" in rows["pi"] and "shipped" in rows["jetson-nano"]


def test_list_shows_what_is_wrong_and_the_rest(capsys):
    Path("devices.toml").write_text('[a]\nhots = "x"\n[b]\nhost = "b"\n[c]\nprofile = "[red]x"\n')
    assert main(["list"]) == 2
    out = capsys.readouterr().out
    assert "wrong: ./devices.toml: [a] has no key 'hots'" in out and "ssh b" in out
    assert "profile '[red]x' is unknown" in out  # shown, not obeyed


def test_add_writes_what_was_given(own_files, capsys):
    (own_files.parents[2] / "ssh.cfg").write_text("")
    options = ["--host", "h", "--profile", "rpi5", "--python", "edgefront/bin/python", "--runtime", "onnxruntime:cuda"]
    assert main(["add", "pi", *options, "--ssh-config", "ssh.cfg", "--workspace-mb", "64"]) == 0
    assert f"entered [pi] in {own_files}" in capsys.readouterr().out
    assert tomllib.loads(own_files.read_text())["pi"] == {
        "host": "h",
        "profile": "rpi5",
        "python": "edgefront/bin/python",
        "runtime": "onnxruntime:cuda",
        "ssh_config": str(Path.cwd() / "ssh.cfg"),
        "workspace_mb": 64,
    }


def test_add_takes_the_name_for_the_host_unless_it_is_here(own_files):
    assert main(["add", "nano"]) == 0 and main(["add", "gpu", "--here", "--profile", "x86-cuda"]) == 0
    assert load_device("nano").host == "nano" and load_device("gpu").host is None


def test_add_prepare_enters_the_commands_to_be_read_and_changed(own_files):
    assert main(["add", "nano", "--profile", "jetson-nano", "--prepare"]) == 0
    shipped = next(profile for profile in profiles() if profile.name == "jetson-nano")
    assert load_device("nano").prepare == shipped.prepare and load_device("nano").restore == shipped.restore


def test_add_check_finds_out_what_board_it_is(board, own_files, capsys):
    assert main(["add", "nano", "--profile", "nano", "--prepare", "--check"]) == 0
    assert "nano is NVIDIA Jetson Nano Developer Kit (jetson-nano); tensorrt will be used" in capsys.readouterr().out
    assert any("nvpmodel -m 0" in command for command in load_device("nano").prepare)
    board.append(AGX_ORIN)
    assert main(["add", "other", "--profile", "nano", "--check"]) == 2
    assert "'Jetson AGX Orin' (orin)" in capsys.readouterr().err
    assert "other" not in own_files.read_text()  # only what can be used is entered


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-x"], None),
        (["--", "-x"], "can't name a device"),
        (["sim:nano"], "can't name a device"),
        (["nano", "--host", "-oProxyCommand=id"], None),
        (["nano", "--host=-oProxyCommand=id"], "not a host for ssh"),
        (["nano", "--host", "h", "--here"], None),
        (["nano", "--profile", "nana"], "profile 'nana' is unknown; accepted: jetson"),
        (["nano", "--python", "python3; id"], "no accepted path of Python"),
        (["nano", "--runtime", "abacus"], "accepted"),
        (["nano", "--ssh-config", "nowhere"], "no such file"),
        (["nano", "--workspace-mb", "1"], "whole number from 16"),
        (["nano", "--prepare"], "name its profile exactly, or add --check"),
        (["nano", "--prepare", "--profile", "nano"], "name its profile exactly, or add --check"),
        (["nano", "--prepare", "--profile", "x86-cuda"], "has no such commands"),
    ],
)
def test_a_wrong_wish_ends_with_2_and_one_line(options, words, own_files, capsys):
    try:
        assert main(["add", *options]) == 2
    except SystemExit as ended:
        assert ended.code == 2 and words is None  # argparse's own
    else:
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and words in told
    assert not own_files.exists()


def test_replace(own_files, capsys):
    assert main(["add", "nano"]) == 0
    assert main(["add", "nano", "--host", "b"]) == 2 and "--replace" in capsys.readouterr().err
    assert main(["add", "nano", "--host", "b", "--replace"]) == 0 and load_device("nano").host == "b"


def test_an_entry_that_will_not_be_read_is_noted(own_files, capsys):
    Path("devices.toml").write_text('[nano]\nhost = "first"\n')
    assert main(["add", "nano", "--host", "second"]) == 0
    assert "./devices.toml is read before it and has [nano] too" in capsys.readouterr().err
    assert main(["add", "nano", "--file", "other.toml"]) == 0
    assert "this file is not read" in capsys.readouterr().err
    assert main(["add", "pi", "--file", "devices.toml"]) == 0 and capsys.readouterr().err == ""


def test_show_says_what_a_name_stands_for(own_files, capsys):
    main(["add", "nano", "--profile", "nano"])
    main(["add", "full", "--profile", "tx2", "--prepare", "--runtime", "onnxruntime"])
    capsys.readouterr()
    assert main(["show", "nano"]) == 0
    out = capsys.readouterr().out
    assert (
        "orin-nano or jetson-nano" in out and "no commands" in out and "first installed one of tensorrt, trtexec" in out
    )
    assert main(["show", "full"]) == 0
    out = capsys.readouterr().out
    assert "sudo -n nvpmodel -m 0" in out and "1024 MB" in out
    assert main(["show", "me@10.0.0.5"]) == 0
    out = capsys.readouterr().out
    assert "no entry" in out and "ssh me@10.0.0.5" in out and "as reported" in out
    assert main(["show", "a b"]) == 2


def test_show_connect_says_what_follows(board, capsys):
    board.append(Facts(**{**NANO.__dict__, "board": "[bold]Nano[/bold]"}))
    assert main(["show", "nano", "--connect"]) == 0
    out = capsys.readouterr().out
    assert "[bold]Nano[/bold] (jetson-nano)" in out and "NVIDIA Tegra X1 (sm 5.3, 3956 MB)" in out
    assert "tensorrt, up to ONNX opset 13" in out and "no int8: NVIDIA Tegra X1 (sm 5.3) has no int8 arithmetic" in out
    assert "trtexec 8.2.1" in out and "256 MB" in out
    board.append(Facts(**{**NANO.__dict__, "simulated": True, "gpu": Gpu("x", "5.3", 1, True)}))
    assert main(["show", "sim:nano", "--connect"]) == 0 and "simulated, NVIDIA Jetson" in capsys.readouterr().out


def test_this_machine_is_really_asked(own_files, capsys):
    assert main(["add", "here", "--here", "--check"]) == 0
    assert "onnxruntime will be used" in capsys.readouterr().out and "[here]" in own_files.read_text()
    assert main(["show", "local", "--connect"]) == 0
    out = capsys.readouterr().out
    assert f"Python {sys.version.split()[0]}" in out and "onnxruntime" in out and "fp32" in out


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh client here")
def test_a_board_that_is_off_ends_with_4_and_enters_nothing(own_files, capsys):
    Path("ssh.cfg").write_text("Host *\n  Port 1\n")
    assert main(["add", "nano", "--host", "127.0.0.1", "--ssh-config", "ssh.cfg", "--check"]) == 4
    told = capsys.readouterr().err
    assert told.startswith("device: ") and "start sshd" in told and told.count("\n") == 1
    assert not own_files.exists()


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupted(device):
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "_ask_all", interrupted)
    assert main(["show", "local", "--connect"]) == 130 and "interrupted" in capsys.readouterr().err


@pytest.mark.alone
@pytest.mark.parametrize("words", [["--help"], ["add", "--help"], ["show", "--help"], ["list", "--help"]])
def test_help_teaches_at_once(words):
    took: list[float] = []
    while len(took) < 3 and min(took, default=1.0) >= 1.0:
        began = time.monotonic()
        command = [sys.executable, "-m", "remote.devices", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        took.append(time.monotonic() - began)
        assert done.returncode == 0
    assert min(took) < 1.0, took
    if words == ["--help"]:
        assert "--check" in done.stdout and "exit codes" in done.stdout and "devices.toml" in done.stdout


def test_without_a_verb_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2 and "list|add|show" in capsys.readouterr().err


def run_alone(words: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", *words]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "COLUMNS": "200"} | env
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "words", [["remote.devices", "list"], ["remote.devices", "--help"], ["remote.doctor", "--help"], ["spaces.show"]]
)
def test_command_without_docstrings_works(words, tmp_path):
    done = run_alone(words, {"PYTHONOPTIMIZE": "2", "HOME": str(tmp_path)}, tmp_path)
    assert done.returncode == 0 and not done.stderr and done.stdout, done.stderr


# Path.home() of a user whom no list of users has, without HOME.
HOMELESS = """
import pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
"""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("import remote.devices as m; sys.exit(m.main(['list']))", 0, ""),
        ("import remote.devices as m; sys.exit(m.main(['show', 'local']))", 0, ""),
        ("import remote.devices as m; sys.exit(m.main(['add', 'x', '--host', 'x']))", 2, "home folder is unknown"),
        ("import remote.agent as m; m.cache_folder()", 1, "no home folder"),
        ("import remote.simulated.persistence as m; m.BoardFolder('nano')", 1, "no home folder"),
    ],
)
def test_user_without_a_home_gets_one_line_at_most(words, code, says, tmp_path):
    """As in a container that runs under a number."""
    argv = [sys.executable, "-c", "import sys; sys.dont_write_bytecode = True; import os\n" + HOMELESS + words]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, cwd="/", env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code and says in done.stderr, done.stderr
    assert code == 1 or done.stderr.count("\n") <= 1  # those of the device's side end their process with that line


def test_home_that_is_a_file_is_no_traceback(tmp_path):
    (tmp_path / "home").touch()
    done = run_alone(["remote.devices", "list"], {"HOME": str(tmp_path / "home")}, tmp_path)
    assert done.returncode == 0 and "local" in done.stdout, done.stderr
    done = run_alone(["remote.devices", "add", "x", "--host", "x"], {"HOME": str(tmp_path / "home")}, tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_file_that_begins_with_a_byte_order_mark_is_read_and_kept_to_the_byte(own_files, capsys):
    own_files.parent.mkdir(parents=True, exist_ok=True)
    before = '\ufeff[cam]\r\nhost = "10.0.0.5"\r\n'.encode()
    own_files.write_bytes(before)
    assert main(["show", "cam"]) == 0 and "10.0.0.5" in capsys.readouterr().out
    assert main(["add", "two", "--host", "b"]) == 0
    assert own_files.read_bytes() == before + b'\r\n[two]\r\nhost = "b"\r\n'
    assert main(["add", "cam", "--host", "c", "--replace"]) == 0
    assert own_files.read_bytes() == '\ufeff[cam]\r\nhost = "c"\r\n\r\n[two]\r\nhost = "b"\r\n'.encode()
    assert main(["show", "cam"]) == 0


@pytest.mark.parametrize("name", ["[/red]", "[bold]x", "sim:[/red]", "sim:nano,[/]=1", "[link=x]"])
@pytest.mark.parametrize("verb", [["show"], ["show", "--connect"]])
def test_name_is_never_markup(name, verb, capsys):
    assert main([*verb, name]) in (0, 2)
    said = capsys.readouterr()
    assert name.removeprefix("sim:nano,").removeprefix("sim:")[:3] in said.out + said.err
