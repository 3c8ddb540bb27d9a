"""Build the ssh command line that reaches a board, and explain the failures of ssh.

The user's whole set-up counts: ~/.ssh/config, jump hosts, agent, certificates, known hosts. No key enters
this process, and nothing secret is on the command line. Pure functions; `remote/link/transport.py` runs them.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from functools import lru_cache

from remote.device import Device
from remote.errors import DeviceConfigError

OPTIONS = (
    "BatchMode=yes",  # no password can be typed
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "LogLevel=ERROR",
)
# Host key checking is left to the user's configuration, on purpose.
# Options that suit `ssh board` by hand and that no program can use: another command, a terminal, no input, no
# session at all, a client that goes into the background. Each is given from the version that introduced it: an older
# client refuses its name, and its user can't have set it. IgnoreUnknown is no way out: it would replace the user's own.
OVERRIDDEN = (
    ((5, 9), "RequestTTY=no"),
    ((7, 6), "RemoteCommand=none"),
    ((8, 7), "StdinNull=no"),
    ((8, 7), "SessionType=default"),
    ((8, 7), "ForkAfterAuthentication=no"),
)
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
DESTINATION = re.compile(rf"(?:{NAME}@)?(?:(?P<name>{NAME})|(?P<address>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?))")
PYTHON = re.compile(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]*")
BOOTSTRAP = re.compile(r"[A-Za-z0-9+/=._ \"();,-]+")  # means the same to every shell inside single quotes

OLD_PYTHON = re.compile(r"EDGEFRONT-PYTHON (\d{1,3}\.\d{1,3}\.\d{1,3})(?!\S)")  # as remote/agent.py has it
NO_SUCH_HOST = "no host has that name"
NOT_RUN = r"not found|no such file|unknown command|permission denied|cannot execute|exec format"  # shells' messages
# Message of ssh before it ends with 255 -> advice; the first match counts. Texts of OpenSSH 7.6 to 10.
FAILURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another than before: if the board was set up again, forget the old one by `ssh-keygen -R` "
        "and ssh to it once by hand",
    ),
    (
        r"Host key verification failed|host key is known for",
        "its host key is not known here yet: ssh to it once by hand and accept the key",
    ),
    (
        r"Too many authentication failures",
        "it gave up after too many keys: name the right one by IdentityFile and set IdentitiesOnly in ~/.ssh/config",
    ),
    (
        r"Permission denied \(",
        "it accepts none of the offered keys, and a password can't be entered here: install a key by `ssh-copy-id`, "
        "unlock yours by `ssh-add`, or check the user's name",
    ),
    (
        r"Could not resolve hostname",
        f"{NO_SUCH_HOST}: check the spelling",
    ),
    (r"Connection refused", "the host is there, but no ssh server answers: start sshd on it, or check the port"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Host is down",
        "nothing answers at that address: is the board on, and on this network?",
    ),
    (
        r"Can't open user config file|Bad configuration option|Bad owner or permissions|terminating, \d+ bad config",
        "ssh refuses its own configuration file: fix what it names",
    ),
    (
        r"Unable to negotiate with|no matching (?:host key|key exchange|cipher)",
        "its ssh server is too old for this ssh: allow its methods by HostKeyAlgorithms and KexAlgorithms in "
        "~/.ssh/config",
    ),
    (
        r"kex_exchange_identification|Connection closed by|Connection reset by",
        "its ssh server hangs up at once: it may be starting, have too many connections, or refuse this address",
    ),
    (r"Timeout, server .* not responding", "the link was silent for too long: the board or the network is gone"),
)


def check_host(host: str) -> str:
    """Return `host` unchanged if ssh can take it for `host`, `user@host` or an address and for nothing else.

    It must not pass for an option, nor hold a character that a shell interprets.

    Raises:
        DeviceConfigError: ssh or a shell could take it for something else.
    """
    found = DESTINATION.fullmatch(host) if len(host) <= 320 else None
    if found and (found["name"] or _is_ipv6(found["address"])):
        return host
    advice = "a port goes into ~/.ssh/config" if re.search(r":\d+$", host[:320]) else "a name of ~/.ssh/config will do"
    raise DeviceConfigError(f"{host[:80]!r} is not a host for ssh; accepted: NAME, USER@NAME or an address; {advice}")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def check_python(python: str) -> str:
    """Return `python` unchanged if a shell takes it for one word that names a program.

    Raises:
        DeviceConfigError: It holds a character that a shell may interpret.
    """
    if PYTHON.fullmatch(python):
        return python
    raise DeviceConfigError(
        f"{python[:80]!r} is no accepted path of Python: letters, digits and _ . / + - only, such as /usr/bin/python3 "
        "or edgefront/bin/python below the home folder"
    )


def ssh_argv(device: Device, boot: str, size: int) -> list[str]:
    """Return the command line that starts Python on the device's host.

    The login shell there replaces itself, so that no process stays between ssh and Python.

    Args:
        device: A device with a host.
        boot: Python code of one line.
        size: The code's only argument: bytes of the source that follows on stdin.

    Raises:
        DeviceConfigError: The device has no host, or its host or its Python can't be used.
        ValueError: `boot` holds a character that some shell may interpret.
    """
    if not BOOTSTRAP.fullmatch(boot):
        raise ValueError("the bootstrap holds a character that some shell may interpret")
    return command_argv(device, f"exec {check_python(device.python or 'python3')} -u -c '{boot}' {size:d}")


def command_argv(device: Device, command: str) -> list[str]:
    """Return the command line that has the login shell of the device's host run a command.

    Args:
        device: A device with a host.
        command: The command, as the shell there is to read it.

    Raises:
        DeviceConfigError: The device has no host, or ssh can't take it.
    """
    if device.host is None:
        raise DeviceConfigError(f"device {device.name} has no host, so ssh can't be asked for it")
    config = ["-F", device.ssh_config] if device.ssh_config else []
    overridden = [option for since, option in OVERRIDDEN if client_version() >= since]
    options = [word for option in (*OPTIONS, *overridden) for word in ("-o", option)]
    return ["ssh", *config, "-T", *options, "--", check_host(device.host), command]


@lru_cache
def client_version() -> tuple[int, int]:
    """Return (major, minor) of the ssh client on this machine; (0, 0) where there is none, or it is not OpenSSH's."""
    try:
        done = subprocess.run(["ssh", "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    return parse_version(done.stderr + done.stdout)


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) of the output of `ssh -V`, such as `OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.19`."""
    found = re.match(r"OpenSSH_[A-Za-z_]*(\d{1,3})\.(\d{1,3})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def why_too_old(said: str) -> str:
    """Return advice about a Python that is too old for the agent, from its output; empty if it is not too old."""
    found = OLD_PYTHON.search(said)
    if found is None:
        return ""
    return (
        f"the Python there is {found[1]}, and 3.6 or newer is needed: enter one, such as "
        'python = "/usr/bin/python3", in devices.toml'
    )


def why_failed(status: int | None, stderr_text: str) -> str:
    """Return one line that says why ssh, or the Python it was to start, ended, and what to do about it.

    Args:
        status: Exit status of ssh; None where it is not known.
        stderr_text: The text that ssh and the board printed.
    """
    said = _telling_line(stderr_text, NOT_RUN if status in (126, 127) else None)
    if old := why_too_old(stderr_text):
        return old
    if status == 127:
        return f'that Python does not exist there: enter one, such as python = "/usr/bin/python3"{said}'
    if status == 126:
        return f"the configured python can't be run there{said}"
    if status == 1 and re.search(r"account is (?:currently )?not available", stderr_text):
        return f"the user may not log in there: name another one, as USER@HOST{said}"
    if status == 255:  # ssh's own status; with any other the text is the board's, and proves nothing
        for pattern, advice in FAILURES:
            if re.search(pattern, stderr_text):
                return f"{advice}{said}"
        return f"ssh could not connect, lost the link, or its command was killed{said}"
    if status is not None and status < 0:
        return f"ssh was ended by signal {-status}{said}"
    return f"it ended with exit status {'unknown' if status is None else status}{said}"


def _telling_line(text: str, pattern: str | None) -> str:
    """Return the last line that matches the pattern, or else the last line printed: in brackets, printable, cut short.

    A shell may quote the command below its message, as fish does, and mark the word by a row of carets. The result is
    empty if nothing was printed.
    """
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if pattern and re.search(pattern, line, re.I)] or lines
    lines = [line for line in lines if any(map(str.isalpha, line))] or lines
    last = "".join(letter for letter in (lines[-1] if lines else "") if letter.isprintable())
    return f" ({last[-200:]})" if last else ""
