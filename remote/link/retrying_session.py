"""Retry the device failures of a session.

| failure                                          | action                                                         |
|---|---|
| connection lost, silent, rebooted, agent killed  | connect anew after 0, 2, 4, 8 .. 60 s, then repeat the call    |
| memory taken by others, upload damaged           | repeat the call, after the same waits                          |
| disk full                                        | three retries; the device has removed already what it could    |
| stored file gone                                 | send it again, then repeat the call                            |
| model crashed, timed out, killed for memory      | one retry in a fresh process; the same verdict twice is final  |
| unsupported, unbuildable                         | no retry: it is the model's fault                              |

After `patience_s` of retries the DeviceError is raised: the search ends cleanly, and the same command resumes it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from remote.device import Layer
from remote.errors import SUSPECT_KINDS, CandidateError, DeviceError
from remote.link.reply_parsing import BlockFields
from remote.link.session import Session

Answer = TypeVar("Answer")
TRIES = {"failed": 4, "no_space": 3}  # retries of failures of no known cause, and of those that waiting rarely mends


@dataclass(frozen=True)
class RetryPolicy:
    """Describe how long and how often a failing device is retried.

    Attributes:
        first_wait_s: Seconds before the second retry; the first comes at once, and each later wait is doubled.
        longest_wait_s: Longest wait between two retries, in seconds.
        patience_s: Seconds of retries of one call, counted from its first failure.
    """

    first_wait_s: float = 2.0
    longest_wait_s: float = 60.0
    patience_s: float = 900.0


@dataclass(frozen=True)
class Incident:
    """Describe one failure that did not end its call.

    Attributes:
        kind: One of DEVICE_KINDS, or `refuted <kind>` of a model's fault.
        op: The operation that failed.
        reason: The failure's message, one line.
    """

    kind: str
    op: str
    reason: str


class RetryingSession:
    """Repeat the calls of a Session as the table in this module says.

    `on_incident` is called for every failure that did not end its call.
    """

    def __init__(
        self,
        session: Session,
        patience: RetryPolicy | None = None,
        on_incident: Callable[[Incident], None] = lambda incident: None,
    ) -> None:
        self.session = session
        self._patience = patience or RetryPolicy()
        self._on_incident = on_incident
        self._sources: dict[str, bytes | Path] = {}

    def put(self, data: bytes | Path) -> str:
        """Store the data on the device and return its SHA-256; see Session.put."""
        digest = self._patiently("put", lambda: self.session.put(data))
        self._sources[digest] = data if isinstance(data, Path) or len(data) < 1 << 20 else b""
        return digest

    def time_block(self, model: str, reference: str, *args: Any, **options: Any) -> BlockFields:
        """Time a model; see Session.time_block.

        Args:
            model: SHA-256 of the stored candidate.
            reference: SHA-256 of the stored reference model.
            *args: Further arguments of Session.time_block.
            **options: Further options of Session.time_block.
        """
        return self._patiently(
            "time", lambda: self.session.time_block(model, reference, *args, **options), (model, reference)
        )

    def predict(self, model: str, data: bytes, shape: Sequence[int], *args: Any, **options: Any) -> bytes:
        """Return the logits of `data`; see Session.predict.

        Args:
            model: SHA-256 of the stored model.
            data: The input's bytes, not their digest: they are sent where the device lacks them.
            shape: Shape (N, C, H, W) of the float32 data.
            *args: Further arguments of Session.predict.
            **options: Further options of Session.predict.
        """

        def work() -> bytes:
            return self.session.predict(model, self.session.put(data), shape, *args, **options)

        return self._patiently("predict", work, (model,))

    def layers(self, model: str, *args: Any, **options: Any) -> tuple[tuple[Layer, ...], str]:
        """Return the layers that a runtime runs; see Session.layers.

        Args:
            model: SHA-256 of the stored model.
            *args: Further arguments of Session.layers.
            **options: Further options of Session.layers.
        """
        return self._patiently("layers", lambda: self.session.layers(model, *args, **options), (model,))

    def state(self) -> dict[str, object]:
        """Return the device's present state; see Session.state."""
        return self._patiently("state", self.session.state)

    def _patiently(self, op: str, work: Callable[[], Answer], blobs: Sequence[str] = ()) -> Answer:
        patience, verdict, tries = self._patience, "", 0
        of_kind: Counter[str] = Counter()  # per kind: a full disk after two lost links is the first full disk
        end_s = None
        while True:
            try:
                if tries:
                    self._send_again(blobs)
                answer = work()
                if verdict:
                    self._on_incident(Incident(f"refuted {verdict}", op, "the second try succeeded"))
                return answer
            except CandidateError as error:
                if error.kind not in SUSPECT_KINDS or verdict == error.kind:
                    raise
                verdict = error.kind
            except DeviceError as error:
                end_s = end_s or time.monotonic() + patience.patience_s
                wait_s = min(patience.first_wait_s * 2 ** (tries - 1), patience.longest_wait_s) if tries else 0.0
                hopeless = error.final or of_kind[error.kind] >= TRIES.get(error.kind, tries + 1)
                of_kind[error.kind] += 1
                if hopeless or time.monotonic() + wait_s > end_s:
                    raise
                self._on_incident(Incident(error.kind, op, str(error)))
                time.sleep(wait_s)
                tries += 1

    def _send_again(self, blobs: Sequence[str]) -> None:
        """Put the blobs again. A blob that the device still has costs one round trip."""
        for digest in blobs:
            if source := self._sources.get(digest):
                self.session.put(source)
