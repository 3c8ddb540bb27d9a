"""One open connection to a device: what it is, what it stores, what it times and predicts."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from remote.agent import BOOT, ERROR, PROTOCOL
from remote.device import Device, Facts, Layer
from remote.errors import DeviceConfigError, DeviceError
from remote.inventory.resolve import is_entered, unreachable
from remote.link import reply_parsing
from remote.link.transport import Transport, builds, bundle, explain_exit, local_argv, pieces
from remote.simulated.spec import parse
from remote.ssh import NO_SUCH_HOST, ssh_argv, why_failed

GRACE_S = 30.0  # beyond the device's own deadline before we stop believing in it
ROWS_MAX_BYTES = 1 << 30
Event = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a model is run on the device."""

    runtime: str  # a file of remote/runtimes/, maybe with an option: onnxruntime:cuda
    threads: int = 1
    precision: str = "fp32"
    workspace_mb: int = 256  # that a builder of engines may use
    build_deadline_s: float = 3600.0  # a Nano takes minutes, for the largest networks most of an hour

    def fields(self) -> dict[str, Any]:
        """As the agent takes them."""
        return asdict(self)


class Session:
    """A device that is connected. Where the connection is lost, the call under way raises DeviceError and the
    next one reconnects; what was sent before is then still there. Calls may come from several threads.
    """

    def __init__(
        self,
        device: Device,
        *,
        cache_mb: int = 2048,
        ping_s: float = 5.0,
        silence_s: float = 20.0,
        connect_s: float = 20.0,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.device = device
        self._hello = {"protocol": PROTOCOL, "cache_mb": cache_mb, "silence_s": silence_s, "who": _who()}
        self._link_options = {"ping_s": ping_s, "silence_s": silence_s, "connect_s": connect_s}
        self._on_event = on_event
        self._known: set[str] = set()
        self._reconnecting = threading.Lock()
        self._closed = False
        try:
            self._link, self.facts = self._connect()
        except DeviceError as error:
            if device.host is None:
                raise
            what = unreachable(device, str(error))
            if NO_SUCH_HOST in str(error) and not is_entered(device.name):  # an entered board may just be off
                raise DeviceConfigError(what) from None
            raise DeviceError(what, error.kind) from None

    @classmethod
    def open(cls, device: Device, **options: Any) -> Session:
        """A connected session. `on_event` is told whose turn is waited for.

        Raises UnknownDevice for a name that no host has, DeviceError, whose message says what to do, for one that
        can't be reached.
        """
        return cls(device, **options)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the agent and whatever it runs. Later calls raise DeviceError."""
        self._closed = True
        self._link.close()

    @contextlib.contextmanager
    def listening(self, on_event: Callable[[Event], None]) -> Iterator[None]:
        """Context manager in which another function is told what the device tells; it may raise to end the call."""
        before, self._on_event = self._on_event, on_event
        try:
            yield
        finally:
            self._on_event = before

    def _connect(self) -> tuple[Transport, Facts]:
        explain = why_failed if self.device.host else explain_exit
        link = Transport(agent_argv(self.device), explain=explain, **self._link_options)
        try:
            kind, reply, _ = link.call("hello", self._hello, silence_s=90.0)
            if kind == ERROR:
                raise reply_parsing.error(reply)
            return link, reply_parsing.facts(reply)
        except BaseException:
            link.close()
            raise

    def _reconnect(self) -> None:
        """Makes a dead link a living one. What the device has is asked for anew."""
        if self._closed:
            raise DeviceError(f"the session with {self.device.name} is closed", "closed")
        with self._reconnecting:
            if self._link.alive:
                return
            self._known.clear()
            self._link, facts = self._connect()
            before, self.facts = self.facts, facts
        if facts.fingerprint() != before.fingerprint():
            raise DeviceError(
                f"device {self.device.name} is not what it was: {_gist(before)} became {_gist(facts)}", "changed"
            )
        if facts.boot_id != before.boot_id:  # clocks may have gone back to what they are after a start
            raise DeviceError(f"device {self.device.name} was rebooted", "rebooted")

    def _call(self, op: str, fields: dict[str, Any] | None = None, **options: Any) -> tuple[Event, bytes]:
        """(reply, blob) of one request. Raises what an error reply stands for."""
        self._reconnect()
        kind, reply, blob = self._link.call(op, fields, on_event=self._on_event, **options)
        if kind != ERROR:
            return reply, blob
        if reply.get("kind") == "missing":  # removed from the full cache since; it is sent again when put again
            self._known.discard(str(reply.get("reason")))
            raise DeviceError(f"the device no longer has {str(reply.get('reason'))[:64]}: put it again", "missing")
        raise reply_parsing.error(reply)

    def put(self, data: bytes | Path) -> str:
        """SHA-256 of the data, which the device then has.

        Known in this session: no round trip; sent in an earlier one: one; else it is sent, or what was missing
        of it when an earlier upload broke off.
        """
        hashed = hashlib.sha256()
        size = 0
        for part in pieces(data):
            hashed.update(part)
            size += len(part)
        name = hashed.hexdigest()
        self._reconnect()
        if name in self._known:
            return name
        have, offset = reply_parsing.parse_upload_state(self._call("stat", {"sha256": name})[0], size)
        if not have:
            self._call("put", {"sha256": name, "size": size, "offset": offset}, blob=data, offset=offset)
        self._known.add(name)
        return name

    def time_block(
        self,
        model: str,
        reference: str,
        job: Job,
        pairs: int,
        seconds_max: float,
        deadline_s: float | None = None,
    ) -> dict[str, Any]:
        """The fields of one `Block` but `disturbed`: a fresh process, model and reference (digests) in turn.

        Fewer pairs come back, 5 at least, when they take longer than `seconds_max`; beyond `deadline_s`
        (twice that and a minute unless given) the model has timed out. Engines are built first, in a process of
        their own, where the runtime has such. Waits its turn on the device first.
        Raises CandidateError for the model's faults, DeviceError for others.
        """
        deadline_s = 2 * seconds_max + 60 if deadline_s is None else deadline_s
        fields = {"model": model, "reference": reference, "pairs": pairs, "seconds_max": seconds_max}
        fields |= job.fields() | {"deadline_s": deadline_s}
        reply, _ = self._call("time", fields, silence_s=deadline_s + 2 * _build_s(job) + GRACE_S)
        return reply_parsing.block(reply, pairs)

    def predict(self, model: str, data: str, shape: Sequence[int], job: Job, deadline_s: float = 1800.0) -> bytes:
        """Logits float32 (N, classes) of a float32 blob of `shape` (N, C, H, W), each row run at batch 1.

        The model runs as it does when timed. Raises CandidateError for its faults, DeviceError for others.
        """
        fields = {"model": model, "data": data, "shape": list(shape)} | job.fields()
        reply, raw = self._call(
            "predict",
            fields | {"deadline_s": deadline_s},
            blob_max=ROWS_MAX_BYTES,
            silence_s=deadline_s + _build_s(job) + GRACE_S,
        )
        return reply_parsing.logits(raw, reply, shape[0])

    def layers(
        self, model: str, job: Job, seconds_max: float = 3.0, deadline_s: float = 600.0
    ) -> tuple[tuple[Layer, ...], str]:
        """(the nodes the runtime really runs for a stored model, or none and why it does not tell).

        Waits its turn on the device. Raises CandidateError for the model's faults, DeviceError for others.
        """
        fields = {"model": model, "seconds_max": seconds_max} | job.fields() | {"deadline_s": deadline_s}
        reply, _ = self._call("layers", fields, silence_s=deadline_s + _build_s(job) + GRACE_S)
        return reply_parsing.layers(reply)

    def state(self) -> dict[str, Any]:
        """Load, clocks, temperature and throttling now, as far as the device shows them."""
        return self._call("state")[0]

    def survey(self) -> dict[str, Any]:
        """Everything a doctor asks: the state, and disk, swap, power mode, clocks, other users."""
        return self._call("survey", silence_s=60.0)[0]

    def ping(self) -> None:
        """One round trip."""
        self._call("ping")

    def cancel(self) -> None:
        """Stops the jobs under way; their calls raise Cancelled."""
        self._link.cancel()


def agent_argv(device: Device) -> list[str]:
    """Command line that starts the agent of a device: over ssh, in a process here, or a simulated one.

    Raises UnknownDevice for what can't be meant.
    """
    if device.simulated is not None:
        parse(device.simulated)
        return [sys.executable, "-m", "remote.simulator", device.simulated, str(len(bundle()))]
    if device.host is None:
        return local_argv(device.python or sys.executable)
    return ssh_argv(device, BOOT, len(bundle()))


def _build_s(job: Job) -> float:
    """Return how long building an engine may take; 0 for a runtime that builds none."""
    return job.build_deadline_s if builds(job.runtime) else 0.0


def _who() -> str:
    """Shown to others who wait for the device."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # no such user in this container
        return socket.gethostname()


def _gist(facts: Facts) -> str:
    return f"{facts.cpu}, {facts.cores} cores, {facts.kernel}, {facts.runtimes}"
