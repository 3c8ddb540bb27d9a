"""A line between ssh and sshd that is slow, falls silent, or is cut, as told: a TCP proxy on loopback.

`tc netem` would do the same for real packets, but is not in every kernel and needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

CHUNK = 4096
QUEUED = 16  # chunks under way in each direction


@dataclass(eq=False)
class Way:
    """One connection through the line."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    silent: bool = False

    def cut(self) -> None:
        """Both ends are reset."""
        for task in self.tasks:
            task.cancel()
        for writer in self.writers:
            writer.transport.abort()


class Link:
    """Listens on `port` and passes everything on to `target_port`. Its methods may be called from any thread."""

    def __init__(self, target_port: int, rtt_s: float = 0.0, bytes_per_s: float = math.inf) -> None:
        self._target, self._delay_s, self._rate = target_port, rtt_s / 2, bytes_per_s
        self._ways: set[Way] = set()
        self._cut_at = math.inf
        self._every, self._times_left = 0, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.up_bytes = self.down_bytes = 0  # passed on since the beginning
        self.connections = 0
        self.cuts = 0
        self.port = 0

    def __enter__(self) -> Link:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Every connection there is breaks, at both ends; new ones are taken."""
        self._do(self._cut())

    def cut_after(self, up_bytes: int) -> None:
        """Cuts once that many bytes more have been passed on towards the board."""
        self._cut_at = self.up_bytes + up_bytes

    def cut_every(self, up_bytes: int, times: int) -> None:
        """Cuts as often, whenever that many bytes more have been passed on towards the board."""
        self._every, self._times_left = up_bytes, times - 1
        self.cut_after(up_bytes)

    def black_hole(self) -> None:
        """Nothing more comes through the connections there are, though they stay open; new ones work."""
        for way in list(self._ways):
            way.silent = True

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> None:
        self._cut_at = self.up_bytes + self._every if self._times_left else math.inf
        self._times_left = max(0, self._times_left - 1)
        self.cuts += 1
        for way in list(self._ways):
            way.cut()

    async def _end(self) -> None:
        self._server.close()
        for way in list(self._ways):
            way.cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        way = Way((writer, far_writer))
        self._ways.add(way)
        for source, target, up in ((reader, far_writer, True), (far_reader, writer, False)):
            queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED)
            way.tasks += [
                asyncio.create_task(self._take(way, source, queue)),
                asyncio.create_task(self._pass_on(way, queue, target, up)),
            ]
        await asyncio.wait(way.tasks, return_when=asyncio.FIRST_COMPLETED)
        if way.silent:  # a dead line tells neither end that the other has gone
            await asyncio.Event().wait()
        await asyncio.wait(way.tasks[1::2], return_when=asyncio.FIRST_COMPLETED)
        for task in way.tasks:
            task.cancel()
        for writer in way.writers:
            writer.close()
        self._ways.discard(way)

    async def _take(self, way: Way, source: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Says of every piece when it is due at the other end; an empty one is the end."""
        free_s, data = 0.0, b"-"
        while data:
            try:
                data = await source.read(CHUNK)
            except OSError:
                data = b""
            free_s = max(free_s, time.monotonic()) + len(data) / self._rate
            await queue.put((free_s + self._delay_s, data))

    async def _pass_on(
        self, way: Way, queue: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter, up: bool
    ) -> None:
        while True:
            due_s, data = await queue.get()
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if way.silent:
                await asyncio.Event().wait()
            if not data:
                return
            target.write(data)
            if up:
                self.up_bytes += len(data)
            else:
                self.down_bytes += len(data)
            if self.up_bytes >= self._cut_at:
                await self._cut()
            with contextlib.suppress(OSError):
                await target.drain()
