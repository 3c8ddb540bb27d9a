"""A board for tests: a real sshd on loopback and a throw-away user who has nothing of ours.

Everything lies in one folder below /tmp and in the user's home. Both, the user, and every process of theirs are
gone at the end; what a killed run left behind goes when the next one begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.ssh.root import root, start_as_root, why_no_root

NAME = "edgefront-test-"
SHARED = Path("/run/lock")  # where agents of all users meet
ALIASES = "ssh_config"
SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AllowUsers {user}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
"""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """The board while it is up. `enter` names it, directly or by way of another port."""

    folder: Path
    user: str
    uid: int
    home: Path
    port: int
    python: str = ""  # one that has a runtime

    @property
    def config(self) -> Path:
        """For `ssh -F`."""
        return self.folder / ALIASES

    @property
    def settings(self) -> Path:
        """For XDG_CONFIG_HOME: holds the devices.toml with every name entered."""
        return self.folder / "settings"

    def enter(self, name: str, port: int | None = None, python: str = "", **ssh: object) -> str:
        """`name`, which then is a host for ssh, see `reach`, and a device."""
        self.reach(name, port, **ssh)
        entry = {"host": name, "ssh_config": self.config, "profile": "local", "runtime": "onnxruntime"}
        entry["python"] = python or self.python
        table = self.settings / "edgefront" / "devices.toml"
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("a") as file:
            file.write(f"[{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in entry.items()))
        return name

    def reach(self, name: str, port: int | None = None, **ssh: object) -> None:
        """Makes `name` a host for ssh; options as in its configuration file."""
        options: dict[str, object] = {
            "HostName": "127.0.0.1",
            "Port": port or self.port,
            "User": self.user,
            "IdentityFile": self.folder / "key",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": "board",
        }
        lines = [f"Host {name}", *(f"  {key} {value}" for key, value in (options | ssh).items())]
        with self.config.open("a") as file:
            file.write("\n".join(lines) + "\n")

    def run(self, command: str, name: str = "direct") -> subprocess.CompletedProcess[str]:
        """The command, run by the board's login shell."""
        argv = ["ssh", "-F", str(self.config), "-T", "-o", "BatchMode=yes", "--", name, command]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    def processes(self) -> dict[int, list[str]]:
        """Every process of the user but sshd's own: number -> command line."""
        found = {pid: command_line(pid) for pid in processes_of(self.uid)}
        return {pid: words for pid, words in found.items() if words and not words[0].startswith("sshd")}

    def files(self, below: str = "") -> dict[str, tuple[str, str]]:
        """What lies in the home folder: path -> (mode in octal, f, d or l)."""
        found = root("find", self.home / below, "-mindepth", 1, "-printf", r"%P\t%m\t%y\n", check=False)
        rows = (line.split("\t") for line in found.splitlines())
        return {path: (mode, kind) for path, mode, kind in rows}

    def note(self) -> Path:
        """The file that is there while something is timed on the board."""
        return SHARED / f"edgefront-{self.uid}.holder"


@contextlib.contextmanager
def board() -> Iterator[Rig]:
    """The board, up. Raises RuntimeError where it can't be set up."""
    sweep()
    user = f"{NAME}{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix=f"{user}-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        try:
            home = _add_user(user, folder)
            uid = home.stat().st_uid
            port, sshd = _start_sshd(folder, user)
            try:
                rig = Rig(folder=folder, user=user, uid=uid, home=home, port=port)
                rig.reach("direct")
                yield rig
            finally:
                _stop(sshd)
        finally:
            _remove_user(user)


def why_no_board() -> str:
    """What is missing for a board here, empty if nothing is."""
    if not shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin") or not shutil.which("ssh"):
        return "no sshd on this machine: apt-get install openssh-server"
    return why_no_root()


def sweep() -> None:
    """Removes users, processes and folders of runs that are no more."""
    for user in re.findall(rf"^({NAME}\d+):", Path("/etc/passwd").read_text(), re.M):
        if not Path(f"/proc/{user.removeprefix(NAME)}").exists():
            _remove_user(user)
    for folder in Path("/tmp").glob(f"{NAME}*-*"):
        if not Path(f"/proc/{folder.name.removeprefix(NAME).split('-')[0]}").exists():
            _end_old_sshd(folder)
            shutil.rmtree(folder, ignore_errors=True)


def processes_of(uid: int) -> list[int]:
    """Numbers of the user's processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == uid and "\nState:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> list[str]:
    """Its words; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _add_user(user: str, folder: Path) -> Path:
    """The home of a new user who is let in by the key in the folder, and by nothing else."""
    for name in ("key", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name)
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"board {host_key}\n")
    root("useradd", "--create-home", "--shell", "/bin/bash", user)
    root("usermod", "--password", "*", user)  # no password, yet not locked: sshd would refuse that
    home = Path(root("getent", "passwd", user).split(":")[5])
    owned = ("-o", user, "-g", user)
    root("install", "-d", "-m", "700", *owned, home / ".ssh")
    root("install", "-m", "600", *owned, folder / "key.pub", home / ".ssh" / "authorized_keys")
    root("chmod", "700", home)
    return home


def _start_sshd(folder: Path, user: str) -> tuple[int, subprocess.Popen[bytes]]:
    """(port, the server), listening."""
    root("mkdir", "-p", "/run/sshd")
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")
    for _ in range(3):  # somebody may take the port meanwhile
        port = free_port()
        (folder / "sshd_config").write_text(SSHD.format(port=port, folder=folder, user=user))
        with (folder / "sshd.log").open("ab") as log:
            # the path is said in full, since sshd starts itself anew for every connection
            sshd = start_as_root(program, "-D", "-e", "-f", folder / "sshd_config", stderr=log, preexec_fn=_mortal)
        end_s = time.monotonic() + 10
        while sshd.poll() is None and time.monotonic() < end_s:
            if _greets(port):
                return port, sshd
            time.sleep(0.02)
        _stop(sshd)
    raise RuntimeError(f"sshd does not start: {(folder / 'sshd.log').read_text()[-500:]}")


def _greets(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        return line.recv(4) == b"SSH-"
    return False


def _mortal() -> None:
    """Ends with the tests, even where they are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _stop(sshd: subprocess.Popen[bytes]) -> None:
    root("kill", sshd.pid, check=False)
    try:
        sshd.wait(10)
    except subprocess.TimeoutExpired:
        root("kill", "-9", sshd.pid, check=False)
        sshd.wait(10)


def _end_old_sshd(folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "sshd.pid").read_text())
        if any(str(folder) in word for word in command_line(pid)):
            root("kill", pid, check=False)


def _remove_user(user: str) -> None:
    """The user, every process of theirs, their home, and what they left in the shared folder of locks."""
    uid = root("id", "-u", user, check=False).strip()
    if not uid:
        return
    end_s = time.monotonic() + 10
    while (left := processes_of(int(uid))) and time.monotonic() < end_s:
        root("kill", "-9", *left, check=False)
        time.sleep(0.05)
    root("rm", "-f", SHARED / f"edgefront-{uid}.holder")
    lock = SHARED / "edgefront.lock"
    if lock.exists() and lock.stat().st_uid == int(uid):
        root("chown", "root:root", lock)  # kept: others may hold it
    root("userdel", "--force", "--remove", user, check=False)  # complains of a mailbox that is not there
    if root("id", "-u", user, check=False).strip():
        raise RuntimeError(f"the user {user} can't be removed: userdel --remove {user}")


def _run(*argv: object) -> None:
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
