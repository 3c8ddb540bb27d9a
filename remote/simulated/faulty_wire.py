"""Inject faults into the agent's wire."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import NoReturn

from remote import agent
from remote.agent import ERROR, FRAME, RESPONSE


class Wire(agent.Wire):
    """Extend the agent's wire so that it can break in the middle of a frame or a blob, and fall silent."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        super().__init__(fd_in, fd_out)
        self.cut: set[int] = set()  # requests that get half of their answer
        self.left: int | None = None  # bytes until the connection drops; None for no drop
        self.silent = False

    def some(self, size: int) -> bytes:
        """Read bytes; drop the connection once `left` bytes were read."""
        if self.left is None:
            return super().some(size)
        if not self.left:
            end("the connection was dropped in the middle of a blob")
        data = super().some(min(size, self.left))
        self.left -= len(data)
        return data

    def send(self, kind: int, request: int, body: bytes) -> None:
        """Send one frame; drop the connection in the middle of an answer to a request in `cut`."""
        if self.silent:
            threading.Event().wait()
        if kind in (RESPONSE, ERROR) and request in self.cut:
            frame = FRAME.pack(kind, request, len(body)) + body
            agent.write_all(self.fd_out, frame[: len(frame) // 2])
            end("the connection was dropped in the middle of an answer")
        super().send(kind, request, body)

    def hang(self) -> NoReturn:
        """Stop reading and answering; end the process once the other end is closed."""
        self.silent = True
        gone = select.poll()
        gone.register(self.fd_in, 0)  # reports only that the other end was closed
        gone.poll()
        os._exit(0)


def end(why: str) -> NoReturn:
    """End the process abruptly, as a disconnected board would; write a message to stderr."""
    with contextlib.suppress(OSError):
        os.write(2, f"simulated: {why}\n".encode())
    os._exit(1)
