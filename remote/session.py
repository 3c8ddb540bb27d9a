"""One open connection to a device: what it is, what it stores, what it times and predicts."""

from __future__ import annotations

import getpass
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from remote import replies
from remote.agent import ERROR, PROTOCOL
from remote.device import Capabilities, Device, Facts, capabilities
from remote.errors import DeviceError, UnknownDevice
from remote.transport import Transport, local_argv, pieces

BACK_OFF_S = (0.0, 1.0, 3.0)  # before each attempt to reconnect
GRACE_S = 30.0  # beyond the device's own deadline before we stop believing in it
ROWS_MAX_BYTES = 1 << 30
Event = dict[str, Any]


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
        silence_s: float = 30.0,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.device = device
        self._hello = {"protocol": PROTOCOL, "cache_mb": cache_mb, "silence_s": silence_s, "who": _who()}
        self._ping_s = ping_s
        self._silence_s = silence_s
        self._on_event = on_event
        self._known: set[str] = set()
        self._reconnecting = threading.Lock()
        self._closed = False
        self._link, self.facts = self._connect()

    @classmethod
    def open(cls, device: Device, **options: Any) -> Session:
        """A connected session. `on_event` is told whose turn is waited for. Raises DeviceError."""
        return cls(device, **options)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the agent and whatever it runs. Later calls raise DeviceError."""
        self._closed = True
        self._link.close()

    def _connect(self) -> tuple[Transport, Facts]:
        if self.device.host is not None:
            raise UnknownDevice(
                f"device {self.device.name} has host {self.device.host!r}, but only this machine can be "
                "reached: leave host out"
            )
        argv = local_argv(self.device.python or sys.executable)
        link = Transport(argv, ping_s=self._ping_s, silence_s=self._silence_s)
        try:
            kind, reply, _ = link.call("hello", self._hello, silence_s=90.0)
            if kind == ERROR:
                raise replies.error(reply)
            return link, replies.facts(reply)
        except BaseException:
            link.close()
            raise

    def _reconnect(self) -> None:
        """Makes a dead link a living one. What the device has is asked for anew."""
        if self._closed:
            raise DeviceError(f"the session with {self.device.name} is closed")
        with self._reconnecting:
            if not self._link.alive:
                self._try_to_reconnect()

    def _try_to_reconnect(self) -> None:
        failure: DeviceError | None = None
        for wait_s in BACK_OFF_S:
            time.sleep(wait_s)
            try:
                self._known.clear()
                self._link, facts = self._connect()
            except DeviceError as error:
                failure = error
                continue
            if facts.fingerprint() != self.facts.fingerprint():
                old, self.facts = self.facts, facts
                raise DeviceError(f"device {self.device.name} is not what it was: {_gist(old)} became {_gist(facts)}")
            self.facts = facts
            return
        raise DeviceError(f"device {self.device.name} does not come back: {failure}")

    def _call(self, op: str, fields: dict[str, Any] | None = None, **options: Any) -> tuple[Event, bytes]:
        """(reply, blob) of one request. Raises what an error reply stands for."""
        self._reconnect()
        kind, reply, blob = self._link.call(op, fields, on_event=self._on_event, **options)
        if kind != ERROR:
            return reply, blob
        if reply.get("kind") == "missing":  # removed from the full cache since; it is sent again when put again
            self._known.discard(str(reply.get("reason")))
            raise DeviceError(f"the device no longer has {str(reply.get('reason'))[:64]}: put it again")
        raise replies.error(reply)

    def capabilities(self) -> Capabilities:
        """What the space is cut to on this device."""
        return capabilities(self.facts)

    def put(self, data: bytes | Path) -> str:
        """SHA-256 of the data, which the device then has.

        Known in this session: no round trip; sent in an earlier one: one; else it is sent.
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
        if not replies.have(self._call("stat", {"sha256": name})[0]):
            self._call("put", {"sha256": name, "size": size}, blob=data)
        self._known.add(name)
        return name

    def time_block(
        self,
        model: str,
        reference: str,
        runtime: str,
        threads: int,
        pairs: int,
        seconds_max: float,
        deadline_s: float | None = None,
    ) -> dict[str, Any]:
        """The fields of one `Block` but `disturbed`: a fresh process, model and reference (digests) in turn.

        Fewer pairs come back, 5 at least, when they take longer than `seconds_max`; beyond `deadline_s`
        (twice that and a minute unless given) the model has timed out. Waits its turn on the device first.
        Raises CandidateError for the model's faults, DeviceError for others.
        """
        deadline_s = 2 * seconds_max + 60 if deadline_s is None else deadline_s
        fields = {
            "model": model,
            "reference": reference,
            "runtime": runtime,
            "threads": threads,
            "pairs": pairs,
        }
        limits = {"seconds_max": seconds_max, "deadline_s": deadline_s}
        reply, _ = self._call("time", fields | limits, silence_s=deadline_s + GRACE_S)
        return replies.block(reply, pairs)

    def predict(
        self,
        model: str,
        data: str,
        shape: Sequence[int],
        runtime: str,
        threads: int,
        deadline_s: float = 1800.0,
    ) -> bytes:
        """Logits float32 (N, classes) of a float32 blob of `shape` (N, C, H, W), each row run at batch 1.

        The model runs as it does when timed. Raises CandidateError for its faults, DeviceError for others.
        """
        fields = {"model": model, "data": data, "shape": list(shape), "runtime": runtime, "threads": threads}
        reply, raw = self._call(
            "predict",
            fields | {"deadline_s": deadline_s},
            blob_max=ROWS_MAX_BYTES,
            silence_s=deadline_s + GRACE_S,
        )
        return replies.logits(raw, reply, shape[0])

    def state(self) -> dict[str, Any]:
        """Load, clocks, temperature and throttling now, as far as the device shows them."""
        return self._call("state")[0]

    def cancel(self) -> None:
        """Stops the jobs under way; their calls raise Cancelled."""
        self._link.cancel()


def _who() -> str:
    """Shown to others who wait for the device."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # no such user in this container
        return socket.gethostname()


def _gist(facts: Facts) -> str:
    return f"{facts.cpu}, {facts.cores} cores, {facts.kernel}, {facts.runtimes}"
