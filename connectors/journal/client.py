"""The asynchronous client of the journal process: where a receiver puts its frames.

Appends are pipelined and keep their order. While the journal process is away, restarts or is full
they wait; nothing is appended twice, because every append has a number in this client's session,
and the journal remembers, in the same transaction as the frames, which numbers it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from connectors.errors import JournalError
from connectors.journal import wire
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.connection import Connection
from connectors.journal.entries import pack_address, pack_columns, pack_frames, split
from connectors.source import Frame, FrameRows, Leaving, Where
from operators.batch import Address

__all__ = ["BlockingJournalClient", "JournalClient"]

RECONNECT_MIN: Final = 0.02  # seconds
RECONNECT_MAX: Final = 1.0
FULL_RETRY_MIN: Final = 0.05
FULL_RETRY_MAX: Final = 1.0
ADDRESSES_KEPT: Final = 100_000  # packed ones, of appended rows
UNSENT_BYTES: Final = 8 << 20  # handed to the socket and not taken by it; then appends wait

Parts = tuple[bytes | bytearray, ...]

log = logging.getLogger("journal.client")


class Opened:
    """`async with` begins to connect, and closes at the end."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to connect, in the background."""
        raise NotImplementedError

    async def close(self, within: float = 5.0) -> None:
        """Wait for what is in flight, at most `within` seconds."""
        raise NotImplementedError


class JournalClient(Opened):
    """One source's way into the journal; an `Appender` (connectors.source).

    `async with JournalClient(data, "line1") as journal:`, or begin and `close()`. It connects with the
    first append, in the background. Of one event loop.
    """

    shards = 1

    def __init__(self, data: Path, source: str, *, session: bytes | None = None) -> None:
        """data: the data directory (of one shard); source: the name that its frames' addresses carry."""
        self.path = wire.socket_path(data)
        self.source = source
        self.session = session or os.urandom(16)
        self.full = False  # the journal refuses appends until it has been trimmed
        self.connected = False
        self._next = 1
        self._sent = 0  # the last sequence that this connection was given
        self._order = asyncio.Lock()  # appends go out in the order of their calls
        self._window = asyncio.Semaphore(wire.WINDOW)
        self._waiting: dict[int, tuple[Parts, asyncio.Future[int]]] = {}  # by sequence, in order
        self._shared = wire.shared_memory()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._stalled = False  # an append was refused; only the oldest asks again
        self._retry: asyncio.TimerHandle | None = None
        self._full_delay = FULL_RETRY_MIN
        self._packed: dict[Where, bytes] = {}
        self._states: dict[str, str] = {}  # source -> connected | disconnected, as last told
        self._restarted = False
        self._jitter = random.Random(self.session)  # noqa: S311
        self._closed = False

    def start(self) -> None:
        """Begin to connect, in the background."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, within: float = 5.0) -> None:
        """Wait for what is in flight, at most `within` seconds; appends that still wait then raise
        JournalError (they may be in the journal all the same)."""
        if self._waiting and not self._closed:
            futures = [future for _, future in self._waiting.values()]
            await asyncio.wait(futures, timeout=within)
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(JournalError("the journal client was closed"))
        self._waiting.clear()
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1

    def shard_of(self, device_id: str) -> int:
        """See `connectors.source.Appender`."""
        return 0

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        """Durable when it returns: the position of the first frame. Order of calls is order in
        the journal; more frames than fit an entry become several, each atomic.

        key: names these frames for ever; frames with a key that the journal has (it remembers the
        last million) are not appended again, and the answer is where they are.
        Waits while the journal is away or full. Raises ValueError for no frames or one beyond
        16 MiB, JournalError when the client is closed.
        """
        positions = [await future for future in await self.send(frames, key)]
        return positions[0]

    async def send(self, frames: Sequence[Frame], key: str | None = None) -> list[asyncio.Future[int]]:
        """As `append`, but back as soon as the frames are on their way; each future is the position of
        an entry, once durable."""
        if not frames:
            raise ValueError("no frames to append")
        futures = []
        async with self._order:
            for number, run in enumerate(split(frames)):
                name = f"{key}#{number}".encode() if key is not None else b""
                body = pack_frames(self.source, run)
                futures.append(await self._send(wire.APPEND, wire.KEY_SIZE.pack(len(name)), name, body))
        return futures

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        """See `connectors.source.Appender`; waits and raises as `append` does."""
        told = None if leaving is None else partial(_all_rows, leaving)
        return await (await self.send_rows(rows, key, told))

    async def send_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Callable[[bytes, int], None] | None = None
    ) -> asyncio.Future[int]:
        """As `append_rows`, but back as soon as they are on their way."""
        if len(self._packed) > ADDRESSES_KEPT:
            self._packed.clear()
        body = pack_columns(rows, [self._packed.get(one) or self._pack(one) for one in rows.addresses])
        name = f"{key}#0".encode() if key is not None else b""
        async with self._order:
            return await self._send(wire.APPEND, wire.KEY_SIZE.pack(len(name)), name, body, leaving=leaving)

    def _pack(self, where: Where) -> bytes:
        packed = self._packed[where] = pack_address(Address(self.source, *where))
        return packed

    async def appended(self, session: bytes) -> int:
        """See `connectors.source.Appender`; waits while the journal is away. Not for the session
        of this client, whose connection it would take."""
        delay = RECONNECT_MIN
        while not self._closed:
            with contextlib.suppress(OSError, TimeoutError):
                connection = Connection(wire.connect(self.path, timeout=1.0))
                try:
                    hello = {"session": session, "name": self.source[:100], "watch": False}
                    connection.send(wire.message(wire.HELLO, 0, msgspec.msgpack.encode(hello)))
                    kind, number, _ = await asyncio.wait_for(connection.read(), 10)
                finally:
                    connection.close()
                if kind == wire.WELCOME:
                    return int(number)
            await asyncio.sleep(delay * (0.5 + self._jitter.random()))
            delay = min(delay * 2, RECONNECT_MAX)
        raise JournalError("the journal client was closed")

    async def control(self, kind: str, data: Mapping[str, object]) -> None:
        """A journal entry that is no frame, e.g. `connected` {"source": name}; durable when it
        returns. A client that loses the journal says again afterwards what is connected."""
        await (await self.send_control(kind, data))

    async def send_control(self, kind: str, data: Mapping[str, object]) -> asyncio.Future[int]:
        """As `control`, but back as soon as it is on its way."""
        if kind in ("connected", "disconnected"):
            self._states[str(data.get("source", self.source))] = kind
        async with self._order:
            return await self._send(wire.CONTROL, msgspec.msgpack.encode([kind, dict(data)]))

    async def _send(
        self, kind: int, *body: bytes | bytearray, leaving: Callable[[bytes, int], None] | None = None
    ) -> asyncio.Future[int]:
        """Number a message, send it if there is a connection; the future resolves when durable."""
        if self._closed:
            raise JournalError("the journal client was closed")
        self.start()
        await self._window.acquire()
        if self._closed:
            raise JournalError("the journal client was closed")
        sequence, self._next = self._next, self._next + 1
        if leaving is not None:
            leaving(self.session, sequence)
        parts = self._message(kind, sequence, body)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = (parts, future)
        self._pump()
        if self._connection is not None and self._connection.unsent > UNSENT_BYTES:
            await self._connection.drain()
        return future

    def _message(self, kind: int, sequence: int, body: tuple[bytes | bytearray, ...]) -> Parts:
        """A message whose frames are not copied, or, if large, are put where the journal reads them.
        A slot is free again when its append is acknowledged: no more than WINDOW are under way."""
        *before, frames = body
        if kind == wire.APPEND and self._shared >= 0 and wire.SHARED_FROM <= len(frames) <= wire.SLOT:
            os.pwrite(self._shared, frames, sequence % wire.WINDOW * wire.SLOT)
            return (wire.message(wire.SHARED, sequence, wire.SIZE.pack(len(frames)), *before),)
        head = wire.HEAD.pack(sum(map(len, body)), kind, sequence)
        return b"".join((head, *before)), frames

    def _pump(self) -> None:
        """Give the connection what it has not been given, unless the journal refused."""
        if self._connection is None or self._stalled:
            return
        for sequence, (parts, _) in self._waiting.items():
            if sequence > self._sent:
                self._connection.send(*parts)
                self._sent = sequence

    async def _run(self) -> None:
        delay = RECONNECT_MIN
        while not self._closed:
            try:
                await self._serve()
                delay = RECONNECT_MIN
            except (OSError, TimeoutError) as error:
                if self.connected:
                    log.warning("lost the journal: %s", error)
                    delay = RECONNECT_MIN
            self.connected = False
            self._drop_connection()
            await asyncio.sleep(delay * (0.5 + self._jitter.random()))
            delay = min(delay * 2, RECONNECT_MAX)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._retry is not None:
            self._retry.cancel()
        self._retry, self._stalled, self._sent = None, False, 0

    async def _serve(self) -> None:
        """One connection: greet, send again what waits, then take answers until it ends."""
        sock = wire.connect(self.path, timeout=1.0)
        hello = {"session": self.session, "name": self.source[:100], "watch": False}
        packed = wire.message(wire.HELLO, 0, msgspec.msgpack.encode(hello))
        try:
            socket.send_fds(sock, [packed], [self._shared] if self._shared >= 0 else [])
        except OSError:
            sock.close()
            raise
        connection = Connection(sock)
        try:
            kind, _, body = await asyncio.wait_for(connection.read(), 10)
            if kind != wire.WELCOME:
                raise ConnectionError(f"the journal refused: {body.decode(errors='replace')}")
            if self._closed:  # wait_for forgets a cancellation that comes with the answer
                return
            self._connection, self.connected = connection, True
            again = self._restarted
            self._restarted = True
            self._pump()
            says = asyncio.create_task(self._say_states()) if again else None
            try:
                await self._answers(connection)
            finally:
                if says is not None:
                    says.cancel()
        finally:
            connection.close()

    async def _answers(self, connection: Connection) -> None:
        while True:
            kind, number, body = await connection.read()
            if kind == wire.ACK:
                waiting = self._waiting.pop(number, None)
                if waiting is not None:
                    self._window.release()
                    if not waiting[1].done():
                        waiting[1].set_result(wire.ACK_BODY.unpack(body)[0])
                    if self._stalled:
                        self.full, self._full_delay = False, FULL_RETRY_MIN
                        self._stalled, self._sent = False, number
                        self._pump()
            elif kind == wire.FULL:
                self._refused(number)
            elif kind == wire.REFUSED:
                raise ConnectionError(f"the journal refused: {body.decode(errors='replace')}")

    def _refused(self, number: int) -> None:
        if number not in self._waiting or self._retry is not None:
            return
        if not self.full:
            log.warning("the journal is full; waiting")
        self.full = self._stalled = True
        self._retry = asyncio.get_running_loop().call_later(self._full_delay, self._ask_again)
        self._full_delay = min(self._full_delay * 2, FULL_RETRY_MAX)

    def _ask_again(self) -> None:
        self._retry = None
        if self._connection is not None and self._waiting:
            self._connection.send(*next(iter(self._waiting.values()))[0])

    async def _say_states(self) -> None:
        """After a reconnect: the journal took the loss of the connection for the sources' loss."""
        for source, state in list(self._states.items()):
            if state == "connected":
                with contextlib.suppress(JournalError):
                    await self.control("connected", {"source": source})


def _all_rows(leaving: Leaving, session: bytes, number: int) -> None:
    leaving(session, number, None)
