"""A network in user space between a source and its peer: it delays, drips, cuts, freezes, and loses
connections without a word.

It runs in a thread of its own; its methods may be called from any other.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tests.waiting import LIMIT_S

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class Proxy:
    """Passes connections to `port` of 127.0.0.1 on to `target`.

    piece: bytes handed on at once; delay_s: before each piece. cut_after: bytes that either side of a
    connection may send before both see it reset, for connections that begin from now on. attempts: when
    each connection came, by the monotonic clock.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self.piece = 65_536
        self.delay_s = 0.0
        self.cut_after: Callable[[], int] | None = None
        self.attempts: list[float] = []
        self.hanging_up = False  # a connection is taken and ended at once
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Reset every connection that there is."""
        self._call(lambda: self._each(_Link.reset))

    def lose(self) -> None:
        """Every connection that there is passes nothing any more, not even its end; new ones do. So
        does a router that was switched off and on."""
        self._call(lambda: self._each(_Link.lose))

    def freeze(self) -> None:
        """From now on nothing is read and nothing ends; new connections are taken and not answered."""
        self._call(self.flowing.clear)

    def thaw(self) -> None:
        """What waited goes on."""
        self._call(self.flowing.set)

    def links(self) -> int:
        """Connections that there are."""
        return len(self._links)

    def close(self) -> None:
        """Reset everything and end."""
        self._call(self._end)
        self._thread.join(LIMIT_S)
        self._listener.close()

    def _call(self, work: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(LIMIT_S)

    def _each(self, work: Callable[[_Link], None]) -> None:
        for link in list(self._links):
            work(link)

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accept())
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self) -> None:
        current = asyncio.current_task()
        assert current is not None
        self._tasks.add(current)
        try:
            while True:
                near, _ = await self._loop.sock_accept(self._listener)
                self.attempts.append(time.monotonic())
                if self.hanging_up:
                    near.close()
                    continue
                task = self._loop.create_task(_Link(self, near).run())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            self._tasks.discard(current)

    def joined(self, link: _Link) -> None:
        self._links.add(link)

    def left(self, link: _Link) -> None:
        self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: socket.socket) -> None:
        self.proxy, self.near = proxy, near
        self.far = socket.socket()
        self.lost = False
        self.limit = proxy.cut_after() if proxy.cut_after is not None else None
        self.ways: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self.proxy.joined(self)
        try:
            for one in (self.near, self.far):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(self.far, ("127.0.0.1", self.proxy.target))
            self.ways = [
                loop.create_task(self._pass(self.near, self.far)),
                loop.create_task(self._pass(self.far, self.near)),
            ]
            done, _ = await asyncio.wait(self.ways, return_when=asyncio.FIRST_EXCEPTION)
            if any(way.cancelled() or way.exception() is not None for way in done):
                self._linger()
        except OSError:  # the target is not there
            self._linger()
        finally:
            for way in self.ways:
                way.cancel()
            await asyncio.gather(*self.ways, return_exceptions=True)
            self.near.close()
            self.far.close()
            self.proxy.left(self)

    def lose(self) -> None:
        self.lost = True

    def reset(self) -> None:
        for way in self.ways:
            way.cancel()

    def _linger(self) -> None:
        for one in (self.near, self.far):
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        loop, proxy, passed = asyncio.get_running_loop(), self.proxy, 0
        while True:
            await proxy.flowing.wait()
            data = await loop.sock_recv(source, proxy.piece)
            await proxy.flowing.wait()
            if self.lost:
                if not data:
                    await asyncio.Event().wait()  # its end is not told either
                continue
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if proxy.delay_s:
                await asyncio.sleep(proxy.delay_s)
            if self.limit is not None and passed + len(data) > self.limit:
                await loop.sock_sendall(sink, data[: self.limit - passed])
                raise ConnectionResetError
            await loop.sock_sendall(sink, data)
            passed += len(data)
