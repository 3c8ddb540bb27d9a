"""Send and receive frames of one agent process.

Every reply is untrusted data: its size is limited, and it is parsed and checked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import select
import subprocess
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from remote.agent import BLOB, BOOT, ERROR, EVENT, FRAME, JSON_MAX, PROTOCOL, REQUEST, RESPONSE
from remote.errors import DeviceError
from remote.ssh import why_too_old

CHUNK = 1 << 18
NOISE_MAX = 1 << 20  # bytes that a login shell may print before the agent's first line
READY = re.compile(rb"AGENT-READY (\d{1,9})\n")
BOOTED = b"AGENT-BOOT\n"  # line of a Python that now waits for the source
BOOT_SHARE = 0.6  # share of the connecting time to wait for this line; then the source is sent without it
SENDING_S = 60.0  # seconds without progress before sending fails; also the base of the limit for a whole message,
SLOWEST_BYTES_S = 4000.0  # which grows by a second for so many bytes
PARTING_S = 2.0  # seconds for the last message to a device that may not read any more
EVENTS_WAITING_MAX = 1000  # unread events of one call; further ones are dropped
HERE = Path(__file__).parents[1]  # remote/, the folder of the files that are sent to a device


class ReadsBytes(Protocol):
    """Read from a pipe or the like; may return fewer bytes than asked for."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes."""
        ...


@dataclass(frozen=True)
class Frame:
    """Hold one message.

    Attributes:
        kind: RESPONSE, ERROR, EVENT or BLOB.
        request: Number of the request that it belongs to.
        body: A dict, or raw bytes for a BLOB.
    """

    kind: int
    request: int
    body: Any


@lru_cache
def texts() -> dict[str, str]:
    """Return every text that runs on a device, by the name that `part` takes there."""
    files = {"agent": HERE / "agent.py"}
    files |= {path.stem: path for path in sorted((HERE / "onboard").glob("[a-z]*.py"))}
    files |= {f"runtimes/{path.stem}": path for path in sorted((HERE / "runtimes").glob("[a-z]*.py"))}
    return {name: path.read_text("utf-8") for name, path in files.items()}


@lru_cache
def bundle() -> bytes:
    """Return the source that is sent to a device: the agent and, inside it, every text that it may hand to a child."""
    return zlib.compress(f"{texts()['agent']}\nPARTS = {texts()!a}\nmain()\n".encode(), 9)


def builds(runtime: str) -> bool:
    """Return whether a runtime, by its text, builds engines before it runs a model."""
    text = texts().get(f"runtimes/{runtime.partition(':')[0]}", "")
    return re.search(r"^BUILDS = True$", text, re.M) is not None


def local_argv(python: str) -> list[str]:
    """Return the command line of an agent on this machine."""
    return [python, "-u", "-c", BOOT, str(len(bundle()))]


def explain_exit(status: int | None, said: str) -> str:
    """Return why the process at this end of the connection ended.

    Args:
        status: Its exit status; None where it is not known.
        said: The text that it printed.
    """
    if old := why_too_old(said):
        return old
    return f"exit status {status}{_format_printed(said)}"


def _format_printed(said: str) -> str:
    clean = "".join(letter for letter in " ".join(said.split()) if letter.isprintable())
    return f"; it printed: {clean[-300:]}" if clean else ""


def read_exactly(stream: ReadsBytes, size: int) -> bytes:
    """Read `size` bytes.

    Args:
        stream: The stream to read.
        size: Number of bytes.

    Raises:
        EOFError: The stream ends before.
    """
    data = bytearray()
    while len(data) < size:
        part = stream.read(min(size - len(data), CHUNK))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def read_frame(stream: ReadsBytes, blob_max: Callable[[int], int]) -> Frame:
    """Read the next frame.

    Args:
        stream: The agent's output.
        blob_max: Returns the largest blob, in bytes, that the request of that number may get.

    Raises:
        EOFError: The stream ends before the frame does.
        DeviceError: The frame is one that no agent of ours would send.
    """
    kind, request, length = FRAME.unpack(read_exactly(stream, FRAME.size))
    if kind not in (RESPONSE, ERROR, EVENT, BLOB):
        raise DeviceError(f"the device sent a frame of unknown type {kind}; it is not running our agent")
    limit = blob_max(request) if kind == BLOB else JSON_MAX
    if length > limit:
        raise DeviceError(f"the device announced {length} bytes where at most {limit} are accepted")
    data = read_exactly(stream, length)
    return Frame(kind, request, data if kind == BLOB else parse_json(data))


def parse_json(data: bytes) -> dict[str, object]:
    """Return the JSON object in `data`.

    Raises:
        DeviceError: The data is anything else; NaN and Infinity are refused, too.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(data.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"the device sent broken JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise DeviceError("the device sent JSON that is not an object")
    return value


class TimestampedStream:
    """Note when bytes last came from a stream: the bytes of a long frame, on a slow line, count as they come.

    Attributes:
        stream: The stream; None for an empty one.
        at_s: Monotonic seconds of the last read.
    """

    def __init__(self, stream: ReadsBytes | None) -> None:
        self.stream, self.at_s = stream, time.monotonic()

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes."""
        data = self.stream.read(size) if self.stream else b""
        self.at_s = time.monotonic()
        return data


@dataclass
class PendingCall:
    """Hold a request that waits for its answer.

    Attributes:
        blob_max: Largest blob, in bytes, that may come with the answer.
        answers: Frames of the answer, or the error that ends the call.
    """

    blob_max: int
    answers: queue.SimpleQueue[Frame | DeviceError] = field(default_factory=queue.SimpleQueue)


class Transport:
    """Hold an agent process and its pipes. Any thread may call; one thread reads, one sends pings.

    The first failure ends the transport: every waiting call, and every later one, raises that DeviceError.
    """

    def __init__(
        self,
        argv: list[str],
        *,
        ping_s: float = 5.0,
        silence_s: float = 20.0,
        connect_s: float = 20.0,
        explain: Callable[[int | None, str], str] = explain_exit,
    ) -> None:
        self._explain = explain
        self.ping_s = ping_s
        self.silence_s = silence_s
        self._calls: dict[int, PendingCall] = {}
        self._ids = itertools.count(1)
        self._sending = threading.Lock()
        self._failing = threading.Lock()
        self._failure: DeviceError | None = None
        self._noise: deque[bytes] = deque(maxlen=300)
        self._heard = TimestampedStream(None)
        self._closed = threading.Event()
        self._booted = threading.Event()
        self._ready = False
        self._process = self._start(argv)
        self._draining = threading.Thread(target=self._drain_stderr, daemon=True)
        self._draining.start()
        self._connect(connect_s)
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C ends this process; the agent is sent a cancel, or notices the end
            )
            if process.stdin:
                os.set_blocking(process.stdin.fileno(), False)  # a device that never reads must not block us
            return process
        except OSError as error:
            raise DeviceError(f"cannot start {argv[0]}: {error.strerror}") from None

    def _connect(self, connect_s: float) -> None:
        """Send the source once the device's Python asks for it, and wait for the agent's first line.

        Both run in threads of their own: a peer that never reads, or never writes, must not block this one.
        """
        ready: queue.SimpleQueue[bool] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        threading.Thread(target=self._send_source, args=(BOOT_SHARE * connect_s,), daemon=True).start()
        try:
            ready.get(timeout=connect_s)
        except queue.Empty:
            why = f"no answer from the device in {connect_s:g} s"
            if not self._booted.is_set():
                why += (
                    "; its Python did not start: does a start-up file of its login shell (.bashrc, .profile) wait for "
                    "input, or take that long?"
                )
            self._fail(DeviceError(f"{why}{self._last_words()}", "silent"))
        if self._failure:
            raise self._failure

    def _send_source(self, patience_s: float) -> None:
        self._booted.wait(patience_s)
        with contextlib.suppress(OSError, ValueError, DeviceError), self._sending:
            self._write(bundle(), time.monotonic() + SENDING_S)

    @property
    def pid(self) -> int:
        """Return the number of the process at this end of the connection."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return False once anything has failed."""
        return self._failure is None

    def call(
        self,
        op: str,
        fields: dict[str, object] | None = None,
        *,
        blob: bytes | Path | None = None,
        offset: int = 0,
        blob_max: int = 0,
        silence_s: float = 30.0,
        sending_s: float = SENDING_S,
        on_event: Callable[[dict[str, object]], None] = lambda event: None,
    ) -> tuple[int, dict[str, object], bytes]:
        """Send one request and return its answer.

        Args:
            op: Name of the operation.
            fields: Fields of the request.
            blob: Bytes, or a file, to send after the request.
            offset: Number of the blob's first bytes that are not sent.
            blob_max: Largest blob of the answer, in bytes; above 0 a blob is awaited with the answer.
            silence_s: Seconds after which a missing answer is a failure. Events do not prolong them, but for two: that
                another session holds the device's lock, for as long as it does, and that more of the blob has arrived.
            sending_s: Seconds for sending, beside those for the blob's size.
            on_event: Called with each event of the request.

        Returns:
            The type of the answer (RESPONSE or ERROR), its value, and its blob.

        Raises:
            DeviceError: The connection is lost, or no answer has come in time.
        """
        request, call = next(self._ids), PendingCall(blob_max)
        self._calls[request] = call
        try:
            if self._failure:
                raise self._failure
            self._send(request, {"op": op} | (fields or {}), blob, offset, sending_s)
            return self._answer(call, op, silence_s, on_event, 0 if blob is None else size_of(blob))
        except BaseException as error:  # Ctrl-C too: the device must not go on with a job that is no longer wanted
            if not isinstance(error, DeviceError):
                self.cancel(request)
            raise
        finally:
            del self._calls[request]

    def _answer(
        self,
        call: PendingCall,
        op: str,
        silence_s: float,
        on_event: Callable[[dict[str, object]], None],
        blob_size: int,
    ) -> tuple[int, dict[str, object], bytes]:
        value: dict[str, object] | None = None
        end_s, received = time.monotonic() + silence_s, 0
        while True:
            left_s = end_s - time.monotonic()
            try:
                if left_s <= 0:  # a flood of events may keep the queue filled at any time
                    raise queue.Empty
                frame = call.answers.get(timeout=left_s)
            except queue.Empty:
                raise self._fail(DeviceError(f"no answer to {op} in {silence_s:g} s", "silent")) from None
            if isinstance(frame, DeviceError):
                raise frame
            if frame.kind == EVENT:
                there = frame.body.get("bytes")
                grew = type(there) is int and received < there <= blob_size
                received = there if grew else received
                if grew or frame.body.get("event") == "waiting":
                    end_s = time.monotonic() + silence_s
                on_event(frame.body)
            elif frame.kind == BLOB and value is not None:
                return RESPONSE, value, frame.body
            elif frame.kind == RESPONSE and call.blob_max and value is None:
                value = frame.body
            elif frame.kind != BLOB and value is None:
                return frame.kind, frame.body, b""
            else:
                raise self._fail(DeviceError(f"the device answered {op} out of order"))

    def cancel(self, request: int | None = None) -> None:
        """Ask the device to stop one job, or all of ours; their calls then end."""
        for waiting in [request] if request is not None else list(self._calls):
            with contextlib.suppress(DeviceError):
                self._send(next(self._ids), {"op": "cancel", "request": waiting}, None, sending_s=PARTING_S)

    def close(self) -> None:
        """End the agent."""
        if self.alive:
            with contextlib.suppress(DeviceError):
                self._send(next(self._ids), {"op": "quit"}, None, sending_s=PARTING_S)
                self._hang_up()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
        self._fail(DeviceError("the connection is closed", "closed"))

    def _send(
        self,
        request: int,
        fields: dict[str, object],
        blob: bytes | Path | None,
        offset: int = 0,
        sending_s: float = SENDING_S,
    ) -> None:
        body = json.dumps(fields, allow_nan=False).encode()
        size = 0 if blob is None else size_of(blob) - offset
        try:
            with self._sending:
                end_s = time.monotonic() + sending_s + size / SLOWEST_BYTES_S
                self._write(FRAME.pack(REQUEST, request, len(body)) + body, end_s)
                if blob is not None:
                    self._write(FRAME.pack(BLOB, request, size), end_s)
                    for part in pieces(blob, offset):
                        self._write(part, end_s)
                        size -= len(part)
                    if size:
                        raise DeviceError(f"{blob!r} changed while it was sent")
        except DeviceError as error:
            self._fail(error)
            raise
        except (OSError, ValueError):
            raise self._lost_error() from None
        except BaseException:  # the frame is cut short: nothing sent after it would be understood
            self._fail(DeviceError("interrupted while sending"))
            raise

    def _write(self, data: bytes, end_s: float) -> None:
        """Send bytes by `end_s` of the monotonic clock. Raise DeviceError for a device that takes none of them."""
        view, stdin = memoryview(data), self._process.stdin
        if stdin is None:
            return
        ready = select.poll()
        ready.register(stdin.fileno(), select.POLLOUT)
        stalled_s = time.monotonic() + SENDING_S
        while view:
            if self._failure:
                raise self._failure
            if ready.poll(250.0):
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(stdin.fileno(), view[:CHUNK]) :]
                    stalled_s = time.monotonic() + SENDING_S
            if time.monotonic() > min(stalled_s, end_s):
                raise DeviceError("the device does not accept the data sent", "silent")

    def _read(self, ready: queue.SimpleQueue[bool]) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        heard = TimestampedStream(stdout)
        try:
            self._skip_to_ready(heard)
            self._heard, self._ready = heard, True
            ready.put(True)
            while True:
                frame = read_frame(heard, self._blob_max)
                call = self._calls.get(frame.request)
                if call:
                    if frame.kind != EVENT or call.answers.qsize() < EVENTS_WAITING_MAX:
                        call.answers.put(frame)
                elif frame.request == 0:
                    raise DeviceError(f"the device gave up: {str(frame.body)[:200]}")
        except DeviceError as error:
            self._fail(error)
        except (EOFError, OSError, ValueError):
            self._lost_error()
        finally:
            ready.put(False)
            stdout.close()

    def _skip_to_ready(self, stdout: ReadsBytes) -> None:
        """Read up to the end of the agent's first line; a login shell may have printed before it."""
        line, seen = bytearray(), 0
        while not (ready := READY.fullmatch(line)):
            if line.endswith(b"\n"):
                if line == BOOTED:
                    self._booted.set()
                    self._noise.clear()  # drops the output of start-up files
                line.clear()
            line += read_exactly(stdout, 1)  # never more: the next byte may belong to a frame
            self._noise.append(bytes(line[-1:]))
            seen += 1
            if seen > NOISE_MAX:
                raise DeviceError(f"the device prints but does not answer{self._last_words()}")
        if int(ready[1]) != PROTOCOL:
            raise DeviceError(
                f"the device answers in version {int(ready[1])} of the protocol, not {PROTOCOL}", "protocol"
            )
        self._noise.clear()

    def _blob_max(self, request: int) -> int:
        call = self._calls.get(request)
        return call.blob_max if call else 0

    def _drain_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with contextlib.suppress(OSError, ValueError), stderr:
            while part := stderr.read(4096):
                self._noise.append(part)

    def _watch(self) -> None:
        """Send pings, and fail when the device has been silent for too long."""
        while not self._closed.wait(self.ping_s):
            if time.monotonic() - self._heard.at_s > self.silence_s:
                self._fail(DeviceError(f"the device has been silent for {self.silence_s:g} s", "silent"))
            elif not self._sending.locked():  # otherwise bytes are being sent already
                with contextlib.suppress(DeviceError):
                    self._send(next(self._ids), {"op": "ping"}, None)

    def _lost_error(self) -> DeviceError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        self._draining.join(0.5)  # its last output says why
        how = self._explain(status, self._read_stderr())
        return self._fail(
            DeviceError(f"{'connection to the device lost' if self._ready else 'no connection'}: {how}", "link")
        )

    def _read_stderr(self) -> str:
        """Return the text that the process printed beside the frames, with its lines."""
        return b"".join(list(self._noise)).decode("utf-8", "replace")

    def _last_words(self) -> str:
        return _format_printed(self._read_stderr())

    def _fail(self, error: DeviceError) -> DeviceError:
        """End the transport and return the failure that ended it: this one, unless another was first."""
        with self._failing:
            self._failure = self._failure or error
        self._closed.set()
        self._booted.set()  # the sending thread must not wait any more
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        for call in list(self._calls.values()):
            call.answers.put(self._failure)
        self._hang_up()
        return self._failure

    def _hang_up(self) -> None:
        # Never close during a write: the descriptor's number may be reused for another file by then.
        if self._process.stdin and self._sending.acquire(timeout=2.0):
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._sending.release()


def size_of(blob: bytes | Path) -> int:
    """Return the bytes of a blob."""
    return blob.stat().st_size if isinstance(blob, Path) else len(blob)


def pieces(blob: bytes | Path, offset: int = 0) -> Iterator[bytes]:
    """Iterate over the blob's content from `offset` on, CHUNK bytes at a time.

    Args:
        blob: Bytes, or a file of them.
        offset: Number of the first bytes that are left out.
    """
    if isinstance(blob, bytes):
        for start in range(offset, len(blob), CHUNK):
            yield blob[start : start + CHUNK]
        return
    with blob.open("rb") as file:
        file.seek(offset)
        while part := file.read(CHUNK):
            yield part
