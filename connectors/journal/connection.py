"""One connection to or from the journal process in an event loop, without a copy of what it carries.

asyncio's streams move everything that waits each time that a part of it was sent, which costs more
than the disk once megabytes wait; here messages are sent from, and received into, their own
memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque

from connectors.journal import wire


class TooLarge(ConnectionError):
    """The peer announced a message beyond the cap."""


class Connection:
    """Messages both ways over a connected socket. Of one event loop; one task reads."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[memoryview] = deque()
        self._writing = False
        self._reading = False
        self.unsent = 0  # bytes that the socket has not taken yet
        self.closed = False
        self._drained = asyncio.Event()
        self._drained.set()

    async def read(self) -> tuple[int, int, bytearray]:
        """The next message: kind, number, body. Raises ConnectionError at its end."""
        size, kind, number = wire.HEAD.unpack(await self._exactly(wire.HEAD.size))
        if size > wire.MAX_MESSAGE:
            raise TooLarge(f"a message of {size} bytes")
        return kind, number, await self._exactly(size) if size else bytearray()

    async def read_first(self) -> tuple[int, int, bytearray, int]:
        """The first message, with the descriptor that came with it, or -1."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._reading = True
        self._loop.add_reader(self._sock, _resolve, readable)
        try:
            await readable
            self._loop.remove_reader(self._sock)
            head, descriptors, _, _ = socket.recv_fds(self._sock, wire.HEAD.size, 1)
        finally:
            self._loop.remove_reader(self._sock)
            self._reading = False
            if self.closed:
                self._sock.close()
        for extra in descriptors[1:]:
            os.close(extra)
        fd = descriptors[0] if descriptors else -1
        try:
            head += await self._exactly(wire.HEAD.size - len(head)) if head else b""
            if len(head) < wire.HEAD.size:
                raise ConnectionError("the connection ended")
            size, kind, number = wire.HEAD.unpack(head)
            if size > wire.MAX_HELLO:
                raise TooLarge(f"a greeting of {size} bytes")
            return kind, number, await self._exactly(size), fd
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise

    def send(self, *parts: bytes | bytearray) -> None:
        """Queue a message, never waiting, in parts that must not change any more; a broken
        connection is told by `read`."""
        if self.closed:
            return
        self._outbox.extend(memoryview(part) for part in parts)
        self.unsent += sum(map(len, parts))
        self._drained.clear()
        if not self._writing:
            self._write()

    async def drain(self) -> None:
        """Until everything queued was taken by the socket, or the connection is closed."""
        await self._drained.wait()

    def close(self) -> None:
        """End the connection; what is queued is lost, and a waiting `read` raises."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_writer(self._sock)
        self._outbox.clear()
        self.unsent = 0
        self._drained.set()
        if self._reading:  # the end makes it return, and it closes the socket
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self._sock.close()

    def _write(self) -> None:
        try:
            while self._outbox:
                part = self._outbox[0]
                sent = self._sock.send(part)
                self.unsent -= sent
                if sent < len(part):
                    self._outbox[0] = part[sent:]
                else:
                    self._outbox.popleft()
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock, self._write)
            return
        except OSError:
            self._outbox.clear()
            self.unsent = 0
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)
        self._drained.set()

    async def _exactly(self, size: int) -> bytearray:
        if self.closed:
            raise ConnectionError("the connection was closed")
        data = bytearray(size)
        view = memoryview(data)
        got = 0
        self._reading = True
        try:
            while got < size:
                count = await self._loop.sock_recv_into(self._sock, view[got:])
                if not count:
                    raise ConnectionError("the connection ended")
                got += count
        finally:
            self._reading = False
            if self.closed:
                self._sock.close()
        return data


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
