"""Peers of a TCP source that are there and yet are not: they take nothing, say nothing, or finish nothing."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from connectors.fakes import MemoryAppender
from connectors.tcp import source as tcp
from connectors.tcp.config import Delimiter, LengthPrefix, TcpConfig
from connectors.tcp.source import TcpReceiver
from operators.spec import MILLISECOND
from tests.conformance.proxy import Proxy
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


def receiver(**keys: Any) -> TcpReceiver:
    keys.setdefault("framing", LengthPrefix())
    return TcpReceiver("line", TcpConfig(listen="127.0.0.1:0", **keys))


def prefixed(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(2, "big") + payload for payload in payloads)


def test_a_peer_that_never_reads_its_acknowledgements_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read on while they wait, whatever it sends, and its connection ends by TCP_USER_TIMEOUT."""
    monkeypatch.setattr(tcp, "USER_TIMEOUT_MS", 1000)

    async def scene() -> None:
        source, appender = receiver(acknowledge="06" * 2000), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", source.port))
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            sending = asyncio.create_task(loop.sock_sendall(deaf, prefixed(*[b"frame"] * 2_000_000)))
            await until(lambda: source.status.peers == 1)
            reader, good = await asyncio.open_connection("127.0.0.1", source.port)
            good.write(prefixed(b"good"))
            assert await asyncio.wait_for(reader.readexactly(2000), LIMIT_S) == b"\x06" * 2000
            await until(lambda: source.status.peers == 1)  # the good one
            with suppress(OSError):
                await sending
            assert source.status.frames < 200_000
            deaf.close()
            good.close()

    asyncio.run(scene())


def test_every_connection_is_watched_by_the_system() -> None:
    async def scene() -> None:
        source = receiver()
        async with running(source, MemoryAppender()):
            await until(lambda: source.port)
            _, writer = await asyncio.open_connection("127.0.0.1", source.port)
            await until(lambda: source.connections)
            (connection,) = source.connections
            there = connection.transport.get_extra_info("socket")
            assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = [
                there.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            ]
            assert told == [30, 10, 3, 30_000]
            writer.close()

    asyncio.run(scene())


@pytest.mark.parametrize("framing", [LengthPrefix(), Delimiter()])
def test_a_frame_that_drips_has_its_time_and_no_more(framing: LengthPrefix | Delimiter) -> None:
    """A byte now and then keeps a connection from being idle, and not its frame from being late."""

    async def scene() -> None:
        source = receiver(framing=framing, frame_timeout=400 * MILLISECOND)
        appender = MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            proxy = Proxy(source.port)
            proxy.piece, proxy.delay_s = 1, 0.05
            _, slow = await asyncio.open_connection("127.0.0.1", proxy.port)
            slow.write(b"\x01\x00" + b"x" * 300)
            await until(lambda: source.status.refused == 1)
            await until(lambda: source.status.peers == 0)
            (frame,) = appender.frames
            assert dict(frame.headers)["resync"].startswith("no end of a frame within 0.4 s after ")
            slow.close()
            await asyncio.to_thread(proxy.close)

    asyncio.run(scene())


def test_a_half_open_peer_is_idle_until_its_time_is_over() -> None:
    """Its device returns by another connection meanwhile."""

    async def scene() -> None:
        source, appender = receiver(idle_timeout=700 * MILLISECOND, acknowledge="06"), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            proxy = Proxy(source.port)
            reader, before = await asyncio.open_connection("127.0.0.1", proxy.port)
            before.write(prefixed(b"one"))
            assert await asyncio.wait_for(reader.readexactly(1), LIMIT_S) == b"\x06"
            await asyncio.to_thread(proxy.lose)
            before.close()  # nobody hears of it
            reader, again = await asyncio.open_connection("127.0.0.1", proxy.port)
            again.write(prefixed(b"two"))
            assert await asyncio.wait_for(reader.readexactly(1), LIMIT_S) == b"\x06"
            again.close()
            await until(lambda: source.status.peers == 0)
            assert [frame.payload for frame in appender.frames] == [b"one", b"two"]
            assert source.status.refused == 1
            await asyncio.to_thread(proxy.close)

    asyncio.run(scene())
