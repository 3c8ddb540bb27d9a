"""Hold one open connection to a device: its facts, its stored files, timings and predictions."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypedDict, Unpack

from remote.agent import ERROR, PROTOCOL
from remote.device import Device, Facts, Layer
from remote.errors import DeviceError
from remote.link import reply_parsing
from remote.link.transport import Transport, builds, explain_exit, pieces
from remote.ssh import why_failed

GRACE_S = 30.0  # seconds beyond the device's own deadline before it counts as silent
ROWS_MAX_BYTES = 1 << 30
Event = dict[str, object]


class SessionOptions(TypedDict, total=False):
    """Hold the options of a `Session` beside its device and command line."""

    cache_mb: int
    ping_s: float
    silence_s: float
    connect_s: float
    on_event: Callable[[Event], None]


class _CallOptions(TypedDict, total=False):
    blob: bytes | Path | None
    offset: int
    blob_max: int
    silence_s: float
    sending_s: float


@dataclass(frozen=True)
class Job:
    """Describe how a model is run on the device.

    Attributes:
        runtime: Name of a file of remote/runtimes/, optionally with an option: onnxruntime:cuda.
        threads: CPU threads.
        precision: fp32, fp16 or int8.
        workspace_mb: Memory that an engine builder may use, in MB.
        build_deadline_s: Seconds for a build; a Nano takes minutes, for the largest networks most of an hour.
    """

    runtime: str
    _: KW_ONLY
    threads: int = 1
    precision: str = "fp32"
    workspace_mb: int = 256
    build_deadline_s: float = 3600.0

    def fields(self) -> dict[str, object]:
        """Return the fields of a request as the agent takes them."""
        return asdict(self)


class Session:
    """Hold a connected device.

    Where the connection is lost, the call under way raises DeviceError and the next one reconnects; blobs that were
    sent before are then still on the device. Calls may come from several threads.

    Attributes:
        device: The device as it was resolved.
        facts: Facts that the device reported at the last connection.
    """

    def __init__(
        self,
        device: Device,
        argv: Sequence[str],
        *,
        cache_mb: int = 2048,
        ping_s: float = 5.0,
        silence_s: float = 20.0,
        connect_s: float = 20.0,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.device, self._argv = device, list(argv)
        self._hello = {"protocol": PROTOCOL, "cache_mb": cache_mb, "silence_s": silence_s, "who": _who()}
        self._link_options = {"ping_s": ping_s, "silence_s": silence_s, "connect_s": connect_s}
        self._on_event = on_event
        self._known: set[str] = set()
        self._reconnecting = threading.Lock()
        self._closed = False
        self._link, self.facts = self._connect()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the agent and all its jobs. Later calls raise DeviceError."""
        self._closed = True
        self._link.close()

    @contextlib.contextmanager
    def listening(self, on_event: Callable[[Event], None]) -> Iterator[None]:
        """Context manager in which `on_event` receives the device's events; it may raise to end the call."""
        before, self._on_event = self._on_event, on_event
        try:
            yield
        finally:
            self._on_event = before

    def _connect(self) -> tuple[Transport, Facts]:
        explain = why_failed if self.device.host else explain_exit
        link = Transport(self._argv, explain=explain, **self._link_options)
        try:
            kind, reply, _ = link.call("hello", self._hello, silence_s=90.0)
            if kind == ERROR:
                raise reply_parsing.error(reply)
            return link, reply_parsing.facts(reply)
        except BaseException:
            link.close()
            raise

    def _reconnect(self) -> None:
        """Replace a dead link by a new one. The list of blobs that the device has is forgotten."""
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
        if facts.boot_id != before.boot_id:  # a boot may have reset the clocks
            raise DeviceError(f"device {self.device.name} was rebooted", "rebooted")

    def _call(
        self, op: str, fields: dict[str, object] | None = None, **options: Unpack[_CallOptions]
    ) -> tuple[Event, bytes]:
        """Send one request and return (reply, blob). Raise the exception that an error reply stands for."""
        self._reconnect()
        kind, reply, blob = self._link.call(op, fields, on_event=self._on_event, **options)
        if kind != ERROR:
            return reply, blob
        if reply.get("kind") == "missing":  # it was removed from the full cache since; the next put sends it again
            self._known.discard(str(reply.get("reason")))
            raise DeviceError(f"the device no longer has {str(reply.get('reason'))[:64]}: send it again", "missing")
        raise reply_parsing.error(reply)

    def put(self, data: bytes | Path) -> str:
        """Store the data on the device and return its SHA-256.

        A blob known in this session costs no round trip, one sent in an earlier session costs one. Any other blob is
        sent; where an earlier upload broke off, only the missing rest is sent.

        Args:
            data: The bytes, or a file of them.

        Raises:
            DeviceError: The connection or the upload failed.
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
    ) -> reply_parsing.BlockFields:
        """Time a model beside the reference model, in turn, in a fresh process.

        Engines are built first, in a process of their own, where the runtime has engines. Before that, the call waits
        for the device's lock.

        Args:
            model: SHA-256 of the stored candidate.
            reference: SHA-256 of the stored reference model.
            job: How the candidate is run.
            pairs: Number of pairs of runs. Fewer come back, 5 at least, when they take longer than `seconds_max`.
            seconds_max: Seconds after which no further pair is begun.
            deadline_s: Seconds after which the model has timed out; None for twice `seconds_max` and a minute.

        Returns:
            The fields of one `Block` but `disturbed`.

        Raises:
            CandidateError: The model failed.
            DeviceError: The device or the link failed.
        """
        deadline_s = 2 * seconds_max + 60 if deadline_s is None else deadline_s
        fields = {"model": model, "reference": reference, "pairs": pairs, "seconds_max": seconds_max}
        fields |= job.fields() | {"deadline_s": deadline_s}
        reply, _ = self._call("time", fields, silence_s=deadline_s + 2 * _build_s(job) + GRACE_S)
        return reply_parsing.block(reply, pairs)

    def predict(self, model: str, data: str, shape: Sequence[int], job: Job, deadline_s: float = 1800.0) -> bytes:
        """Return the logits of a stored input, each row run at batch 1, as the model runs when it is timed.

        Args:
            model: SHA-256 of the stored model.
            data: SHA-256 of a stored float32 blob.
            shape: Its shape (N, C, H, W).
            job: How the model is run.
            deadline_s: Seconds after which the model has timed out.

        Returns:
            Little-endian float32 (N, classes).

        Raises:
            CandidateError: The model failed.
            DeviceError: The device or the link failed.
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
        """Return the nodes that the runtime really runs for a stored model. The call waits for the device's lock.

        Args:
            model: SHA-256 of the stored model.
            job: How the model is run.
            seconds_max: Seconds of runs for the layers' times.
            deadline_s: Seconds after which the model has timed out.

        Returns:
            The layers and "", or none and why the runtime does not report them.

        Raises:
            CandidateError: The model failed.
            DeviceError: The device or the link failed.
        """
        fields = {"model": model, "seconds_max": seconds_max} | job.fields() | {"deadline_s": deadline_s}
        reply, _ = self._call("layers", fields, silence_s=deadline_s + _build_s(job) + GRACE_S)
        return reply_parsing.layers(reply)

    def state(self) -> dict[str, object]:
        """Return load, clocks, temperature and throttling now, as far as the device shows them."""
        return self._call("state")[0]

    def survey(self) -> dict[str, object]:
        """Return everything that the doctor checks: the state, and disk, swap, power mode, clocks, other users."""
        return self._call("survey", silence_s=60.0)[0]

    def ping(self) -> None:
        """Make one round trip."""
        self._call("ping")

    def cancel(self) -> None:
        """Stop the jobs under way; their calls raise CancelledError."""
        self._link.cancel()


def _build_s(job: Job) -> float:
    """Return the seconds that building an engine may take; 0 for a runtime that builds none."""
    return job.build_deadline_s if builds(job.runtime) else 0.0


def _who() -> str:
    """Return the name of this session's user, which is shown to sessions that wait for the device."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # no such user in this container
        return socket.gethostname()


def _gist(facts: Facts) -> str:
    return f"{facts.cpu}, {facts.cores} cores, {facts.kernel}, {facts.runtimes}"
