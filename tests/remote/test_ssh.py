"""The command line of ssh: nothing in an entry can become an option or a second word; failures say what to do."""

from __future__ import annotations

import ast
import os
import re
import shutil
import string
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.agent import BOOT, STAGE
from remote.device import Device
from remote.errors import DeviceConfigError
from remote.link.transport import explain_exit
from remote.ssh import OPTIONS, check_host, check_python, command_argv, parse_version, ssh_argv, why_failed

SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "fish", "tcsh", "busybox") if shutil.which(shell)]
NASTY = "-'\"`$&|;<>()[]{}*?!#~\\=,: \t\r\n\0%@/.é\u202e"
TEXT = st.text(st.sampled_from(string.ascii_letters + string.digits + "_.-@:%/+" + NASTY), max_size=40)


def device(host: str | None = "nano", python: str | None = None, ssh_config: str | None = None) -> Device:
    return Device(name="nano", profile=None, host=host, python=python, runtime=None, ssh_config=ssh_config)


def test_the_whole_command_line(monkeypatch):
    monkeypatch.setattr("remote.ssh.client_version", lambda: (9, 2))
    assert ssh_argv(device("me@10.0.0.5", "/usr/bin/python3", "/etc/ssh.cfg"), BOOT, 2156) == [
        *("ssh", "-F", "/etc/ssh.cfg", "-T"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"),
        *("-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no"),
        *("-o", "LogLevel=ERROR", "-o", "RequestTTY=no", "-o", "RemoteCommand=none", "-o", "StdinNull=no"),
        *("-o", "SessionType=default", "-o", "ForkAfterAuthentication=no"),
        *("--", "me@10.0.0.5", f"exec /usr/bin/python3 -u -c '{BOOT}' 2156"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "version", "number"),
    [
        ("OpenSSH_7.2p2 Ubuntu-4, OpenSSL 1.0.2g", (7, 2), 1),
        ("OpenSSH_7.6p1 Ubuntu-4, OpenSSL 1.0.2n", (7, 6), 2),
        ("OpenSSH_8.6p1, LibreSSL 3.3.6", (8, 6), 2),
        ("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2", (8, 1), 2),
        ("OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.19", (9, 2), 5),
        ("OpenSSH_10.0p2, LibreSSL 4.1", (10, 0), 5),
        ("Dropbear v2022.83", (0, 0), 0),
        ("", (0, 0), 0),
    ],
)
def test_client_is_given_only_options_that_its_version_knows(monkeypatch, said, version, number):
    assert parse_version(said) == version
    monkeypatch.setattr("remote.ssh.client_version", lambda: version)
    assert len(command_argv(device(), "true")) == len(OPTIONS) * 2 + number * 2 + 5


def test_what_is_left_out_is_left_to_ssh():
    argv = ssh_argv(device(), BOOT, 1)
    assert "-F" not in argv and argv[-2] == "nano" and argv[-1].startswith("exec python3 -u -c '")
    assert not any("StrictHostKeyChecking" in word or "Identity" in word or "Control" in word for word in argv)


def test_this_machine_is_not_reached_by_ssh():
    with pytest.raises(DeviceConfigError, match="no host"):
        ssh_argv(device(None), BOOT, 1)


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh client here")
@pytest.mark.parametrize("host", ["nano", "me@nano.local", "fe80::1%eth0", "me@::1"])
def test_the_real_client_reads_it_as_meant(host, tmp_path):
    config = tmp_path / "config"
    config.write_text("Host *\n  Port 2222\n")
    argv = ssh_argv(device(host, ssh_config=str(config)), BOOT, 1)
    done = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True)
    seen = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert seen["hostname"] == host.partition("@")[2] or seen["hostname"] == host
    assert (seen["port"], seen["batchmode"], seen["connecttimeout"]) == ("2222", "yes", "10")
    assert (seen["serveraliveinterval"], seen["serveralivecountmax"]) == ("5", "3")
    assert (seen["clearallforwardings"], seen["forwardagent"], seen["loglevel"]) == ("yes", "no", "ERROR")
    assert seen["requesttty"] == "false"


@pytest.mark.parametrize(
    "host",
    [
        *("nano", "NANO-2", "pi.local", "user@10.0.0.5", "_gateway", "a_b@c_d", "::1", "me@fe80::1%eth0", "1.2.3.4"),
        *("x" * 253, "user.name@x"),
    ],
)  # fmt: skip
def test_hosts(host):
    assert check_host(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("", "-", "-oProxyCommand=id", "--", "@", "a@", "@a", "a@-b", "-a@b", "a@b@c", "a b", " a", "a "),
        *("a\n", "\na", "a;id", "$(id)", "`id`", "a'b", 'a"b', "a|b", "a&b", "a>b", "a*", "~", "a\\b"),
        *("a/b", "ssh://a", "a:22", "%h", "a%h", "%n", ":::", "::1%", "fe80::1%$(id)", "1:2"),
        *(".", "..", "é", "x" * 254, "x" * 10000, "a\0b"),
    ],
)  # fmt: skip
def test_no_hosts(host):
    with pytest.raises(DeviceConfigError, match="not a host for ssh") as caught:
        check_host(host)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


@given(host=TEXT, python=TEXT)
def test_nothing_entered_becomes_an_option_or_another_word(host, python):
    try:
        argv = ssh_argv(device(host, python or None), BOOT, 7)
    except DeviceConfigError as error:
        assert str(error).isprintable()
        return
    assert argv[-3:-1] == ["--", host] and argv.index("--") == len(argv) - 3
    assert not host.startswith("-") and set(host) <= set(string.ascii_letters + string.digits + "_.@:%-")
    assert argv[-1] == f"exec {python or 'python3'} -u -c '{BOOT}' 7"
    assert set(python) <= set(string.ascii_letters + string.digits + "_./+-") and not python.startswith("-")


@given(python=st.from_regex(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]{0,20}", fullmatch=True))
def test_a_python_is_one_word_to_a_shell(python):
    assert check_python(python) == python
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {python}"], capture_output=True, text=True, check=True)
    assert words.stdout == python + "\n"


@pytest.mark.parametrize(
    "python", ["-c", "python3 -c", "a;b", "$HOME/python", "~/python", "a=b", "", "a\nb", "(a)", "a,b"]
)
def test_no_pythons(python):
    with pytest.raises(DeviceConfigError, match="no accepted path of Python"):
        check_python(python)


@pytest.mark.parametrize("boot", ["it's", "a\nb", "a\\b", "a!b", "a`b", "$x", ""])
def test_a_bootstrap_that_a_shell_may_heed_is_refused(boot):
    with pytest.raises(ValueError, match="bootstrap"):
        ssh_argv(device(), boot, 1)
    with pytest.raises(ValueError):
        ssh_argv(device(), BOOT, "1; id")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_survives_a_login_shell(shell):
    source = zlib.compress(b"import os,sys;print('ran', len(sys.argv), os.getppid())")
    command = ssh_argv(device(python=sys.executable), BOOT, len(source))[-1]
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    with subprocess.Popen([*words, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(source + b"what follows is not swallowed", timeout=30)
    # exec: Python has taken the shell's place, so its parent is this process
    assert process.returncode == 0 and out.decode().split()[:3] == ["AGENT-BOOT", "ran", "2"]
    assert int(out.split()[3]) == os.getpid()


OLD = [path for minor in ("2.7", "3.5") for path in sorted(Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"))]


@pytest.mark.parametrize("python", [*OLD, "stand-in"], ids=str)
def test_python_that_is_too_old_says_so_in_one_line(python, tmp_path):
    """An old interpreter where there is one; beside it the newest, which takes itself for 2.7."""
    boot = BOOT.replace("import sys;", "import sys;sys.version_info=(2,7,18);", 1) if python == "stand-in" else BOOT
    words = [str(sys.executable if python == "stand-in" else python), "-u", "-c", boot, "10"]
    done = subprocess.run(words, input="", capture_output=True, text=True)
    for explain in (why_failed, explain_exit):
        said = explain(done.returncode, done.stderr)
        assert "3.6 or newer is needed" in said and "2.7." in said + "3.5" and "\n" not in said
    assert done.returncode == 1 and "AGENT-BOOT" not in done.stdout


def test_bootstrap_is_python_2_up_to_the_check_of_the_version():
    """Nothing that only Python 3 can read stands in it: compiled whole, it must say its version, not fail to parse."""
    assert b"print" not in STAGE and not re.search(rb"(?<![A-Za-z_])[fFuU]['\"]", STAGE)
    tree = ast.parse(STAGE)
    newer = (
        ast.AnnAssign,
        ast.JoinedStr,
        ast.AsyncFunctionDef,
        ast.Nonlocal,
        ast.Starred,
        ast.NamedExpr,
        ast.YieldFrom,
    )
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    assert ast.unparse(tree.body[1]).startswith("if sys.version_info < (3, 6):")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_missing_python_is_told_by_its_status(shell):
    command = ssh_argv(device(python="/no/such/python3"), BOOT, 1)[-1]
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run([*words, "-c", command], capture_output=True, text=True)
    if done.returncode == 127:  # what POSIX shells end with
        assert "that Python does not exist there" in why_failed(done.returncode, done.stderr)
    assert done.returncode in (127, 126, 1) and "/no/such/python3" in why_failed(done.returncode, done.stderr)


def test_a_users_own_command_goes_as_it_stands():
    assert command_argv(device(), "sudo -n 'a b' | c")[-3:] == ["--", "nano", "sudo -n 'a b' | c"]


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Offending ED25519 key in /home/me/.ssh/known_hosts:7
Host key for nano has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (255, CHANGED, "ssh-keygen -R"),
        (
            255,
            "No ED25519 host key is known for nano and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            "once by hand and accept",
        ),
        (255, "Host key verification failed.", "once by hand and accept"),
        (255, "me@nano: Permission denied (publickey,password).\n", "ssh-copy-id"),
        (255, "Received disconnect from 10.0.0.5 port 22:2: Too many authentication failures\n", "IdentitiesOnly"),
        (255, "ssh: Could not resolve hostname locl: Name or service not known\n", "check the spelling"),
        (255, "ssh: connect to host nano port 22: Connection refused\n", "start sshd"),
        (255, "ssh: connect to host nano port 22: Connection timed out\n", "is the board on"),
        (255, "ssh: connect to host nano port 22: No route to host\n", "is the board on"),
        (255, "Can't open user config file /x: No such file or directory\n", "configuration file"),
        (
            255,
            "/x: line 1: Bad configuration option: blub\n/x: terminating, 1 bad configuration options\n",
            "fix what it names",
        ),
        (255, "Unable to negotiate with 10.0.0.5 port 22: no matching host key type found.", "HostKeyAlgorithms"),
        (255, "kex_exchange_identification: Connection closed by remote host\n", "hangs up at once"),
        (255, "Timeout, server nano not responding.\n", "silent for too long"),
        (255, "", "could not connect, lost the link"),
        (127, "sh: 1: exec: python3: not found\n", "that Python does not exist there"),
        (127, "", "that Python does not exist there"),
        (126, "sh: 1: exec: /tmp: Permission denied\n", "can't be run"),
        (1, "This account is currently not available.\n", "USER@HOST"),
        (1, "edgefront: no cache\n", "exit status 1 (edgefront: no cache)"),
        (3, "Permission denied (publickey).", "exit status 3"),  # printed there, so it proves nothing
        (
            127,
            "fish: Unknown command: /no/such/python\nfish:\nexec /no/such/python\n     ^~~~~~~~~^\n",
            "/no/such/python)",
        ),
        (1, "EDGEFRONT-PYTHON 2.7.18\n", "is 2.7.18, and 3.6 or newer"),
        (-9, "", "signal 9"),
        (None, "", "exit status unknown"),
    ],
)
def test_failures_say_what_to_do(status, text, words):
    said = why_failed(status, text)
    assert words in said and "\n" not in said


@pytest.mark.skipif(not shutil.which("ssh"), reason="no ssh client here")
def test_the_words_of_the_ssh_that_is_here(tmp_path):
    def said(host: str, text: str) -> str:
        config = tmp_path / "config"
        config.write_text(text)
        argv = ssh_argv(device(host, ssh_config=str(config)), BOOT, 1)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        return why_failed(done.returncode, done.stderr)

    assert "check the spelling" in said("no-such-host.invalid", "")
    assert "start sshd" in said("127.0.0.1", "Port 1\n")
    assert "fix what it names" in said("nano", "Blub yes\n")
    Path(tmp_path / "config").unlink()
    argv = ssh_argv(device("nano", ssh_config=str(tmp_path / "config")), BOOT, 1)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "fix what it names" in why_failed(done.returncode, done.stderr)


@given(st.text(max_size=400), st.sampled_from([None, 255, 1, 127, -15]))
def test_what_a_stranger_prints_stays_one_short_line(text, status):
    said = why_failed(status, text)
    assert said.isprintable() and len(said) < 500
