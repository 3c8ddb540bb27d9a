"""A session that does not give up at the first failure: what is the device's fault is tried again.

| what happened                                    | what is done                                                   |
|---|---|
| connection lost, silent, rebooted, agent killed  | connect anew after 0, 2, 4, 8 .. 60 s, then the same call again |
| memory taken by others, upload damaged           | the same call again, after the same waits                      |
| disk full                                        | three times more; the device has removed already what it could |
| stored file gone                                 | sent again, then the same call                                 |
| model crashed, timed out, killed for memory      | once more in a fresh process; the same verdict twice is its own |
| unsupported, unbuildable                         | nothing: the model's fault                                     |

After `patience_s` of trying the DeviceError is raised: the search ends cleanly and the same command goes on.
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
from remote.link.session import Session

Answer = TypeVar("Answer")
TRIES = {"failed": 4, "no_space": 3}  # of what has no known cause, and of what waiting rarely mends


@dataclass(frozen=True)
class RetryPolicy:
    """How long a failing device is waited for."""

    first_wait_s: float = 2.0  # the first retry comes at once, the second after this; doubled from then on
    longest_wait_s: float = 60.0
    patience_s: float = 900.0  # of one call, from its first failure


@dataclass(frozen=True)
class Incident:
    """One failure that was not the end. `kind` is one of DEVICE_KINDS, or `refuted <kind>` of a model's fault."""

    kind: str
    op: str
    reason: str


class RetryingSession:
    """The calls of a Session, tried again as the table above says. `on_incident` hears of every failure survived."""

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
        """SHA-256 of the data, which the device then has; see Session.put."""
        digest = self._patiently("put", lambda: self.session.put(data))
        self._sources[digest] = data if isinstance(data, Path) or len(data) < 1 << 20 else b""
        return digest

    def time_block(self, model: str, reference: str, *args: Any, **options: Any) -> dict[str, Any]:
        """See Session.time_block."""
        return self._patiently(
            "time", lambda: self.session.time_block(model, reference, *args, **options), (model, reference)
        )

    def predict(self, model: str, data: bytes, shape: Sequence[int], *args: Any, **options: Any) -> bytes:
        """Logits of `data` (its bytes, not their digest: they are sent where the device lacks them)."""

        def work() -> bytes:
            return self.session.predict(model, self.session.put(data), shape, *args, **options)

        return self._patiently("predict", work, (model,))

    def layers(self, model: str, *args: Any, **options: Any) -> tuple[tuple[Layer, ...], str]:
        """See Session.layers."""
        return self._patiently("layers", lambda: self.session.layers(model, *args, **options), (model,))

    def state(self) -> dict[str, Any]:
        """See Session.state."""
        return self._patiently("state", self.session.state)

    def _patiently(self, op: str, work: Callable[[], Answer], blobs: Sequence[str] = ()) -> Answer:
        patience, verdict, tries = self._patience, "", 0
        of_kind: Counter[str] = Counter()  # a full disk after two lost links is the first full disk
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
        """What the device still has costs one round trip a blob."""
        for digest in blobs:
            if source := self._sources.get(digest):
                self.session.put(source)
