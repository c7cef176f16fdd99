"""A Granian server in a process of ours: when it listens, and when its threads are gone. It tells neither."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection
from typing import Any, Final

from granian.server.embed import Server

LOOK_S: Final = 0.01
LEAVE_S: Final = 1.0  # for its threads, which need some milliseconds where nobody else needs the cores
BLIND_S: Final = 0.1  # the same where the system does not tell of threads
_THREADS: Final = "/proc/self/task"


class Serving:
    """A server that is starting in this event loop. task: done when it has ended, by itself or by `stop`."""

    def __init__(self, server: Server, host: str, port: int) -> None:
        """host: empty for every interface."""
        self._server, self._host, self._port = server, host or "127.0.0.1", port
        self._before = _native_threads()
        self._threads: frozenset[int] | None = None
        self.task = asyncio.ensure_future(server.serve())

    async def accepts(self, ends: Collection[asyncio.Future[Any]]) -> bool:
        """Whether a connection was taken before the server, or one of `ends`, was done: it listens some
        milliseconds after it was told to."""
        while not self.task.done() and not any(end.done() for end in ends):
            try:
                _, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                await asyncio.sleep(LOOK_S)
            else:
                writer.close()
                self._threads = _native_threads() - self._before
                return True
        return False

    async def stop(self, seconds: float) -> None:
        """Tell it to end and wait for that, at most so long; then for its threads, at most `LEAVE_S`: one
        that ends together with the interpreter aborts it."""
        threads = _native_threads() - self._before if self._threads is None else self._threads
        self._server.stop()
        await asyncio.wait({self.task}, timeout=seconds)
        if not os.path.isdir(_THREADS):
            await asyncio.sleep(BLIND_S)
        for _ in range(round(LEAVE_S / LOOK_S)):
            if not threads & _native_threads():
                return
            await asyncio.sleep(LOOK_S)


def _native_threads() -> frozenset[int]:
    """The threads of this process that Python knows nothing of, by number; none where the system does not
    tell of them."""
    try:
        every = os.listdir(_THREADS)
    except OSError:
        return frozenset()
    return frozenset(map(int, every)) - {thread.native_id or 0 for thread in threading.enumerate()}
