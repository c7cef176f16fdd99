"""The TCP receiver over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from connectors.errors import ConfigError, JournalError
from connectors.fakes import MemoryAppender
from connectors.tcp.config import Delimiter, LengthPrefix, TcpConfig
from connectors.tcp.source import TcpReceiver
from operators.spec import SECOND
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S


def receiver(**keys: Any) -> TcpReceiver:
    keys.setdefault("framing", LengthPrefix())
    return TcpReceiver("line", TcpConfig(listen="127.0.0.1:0", **keys))


async def connect(source: TcpReceiver) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    await until(lambda: source.port, "listening")
    return await asyncio.open_connection("127.0.0.1", source.port)


def prefixed(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(2, "big") + payload for payload in payloads)


def test_frames_are_acknowledged_one_by_one_after_the_commit() -> None:
    async def scene() -> None:
        source, appender = receiver(acknowledge="06"), MemoryAppender()
        appender.fill()
        async with running(source, appender):
            reader, writer = await connect(source)
            writer.write(prefixed(b"one", b"", b"three"))
            await until(lambda: source.status.frames == 3)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
            assert appender.frames == []
            appender.drain()
            assert await asyncio.wait_for(reader.readexactly(3), LIMIT_S) == b"\x06\x06\x06"
            assert [frame.payload for frame in appender.frames] == [b"one", b"", b"three"]
            peer = "{}:{}".format(*writer.get_extra_info("sockname"))
            assert {(frame.topic, frame.headers) for frame in appender.frames} == {
                ("127.0.0.1", (("peer", peer),))
            }
            writer.close()
        assert appender.controls == [
            ("connected", {"source": "line"}),
            ("disconnected", {"source": "line"}),
        ]
        assert source.status.state == "stopped"

    asyncio.run(scene())


def test_one_acknowledgement_a_commit_when_asked_for() -> None:
    async def scene() -> None:
        source, appender = receiver(acknowledge="aabb", acknowledge_each="commit"), MemoryAppender()
        appender.fill()
        async with running(source, appender):
            reader, writer = await connect(source)
            writer.write(prefixed(b"x"))
            await until(lambda: source.status.frames == 1)
            writer.write(prefixed(b"y", b"z"))
            await until(lambda: source.status.frames == 3)
            appender.drain()
            writer.write_eof()  # a peer that sends no more still gets them
            answer = await asyncio.wait_for(reader.read(), LIMIT_S)
            assert answer == b"\xaa\xbb" * len(appender.appends)
            assert appender.appends == [1, 2]
            writer.close()

    asyncio.run(scene())


def test_garbage_is_journaled_as_one_frame_and_the_connection_ends() -> None:
    async def scene() -> None:
        source, appender = receiver(framing=LengthPrefix(max=100)), MemoryAppender()
        async with running(source, appender):
            reader, writer = await connect(source)
            writer.write(prefixed(b"good") + b"GET / HTTP/1.1\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
            await until(lambda: len(appender.frames) == 2)
            assert appender.frames[1].payload == b"GET / HTTP/1.1\r\n\r\n"
            assert dict(appender.frames[1].headers)["resync"] == "length 18245, at most 100 allowed"
            _, again = await connect(source)
            again.write(prefixed(b"next"))
            await until(lambda: len(appender.frames) == 3)
            again.close()
            writer.close()

    asyncio.run(scene())


def test_a_torn_frame_is_told() -> None:
    async def scene() -> None:
        source, appender = receiver(framing=Delimiter()), MemoryAppender()
        async with running(source, appender):
            _, writer = await connect(source)
            writer.write(b"whole\nhal")
            writer.close()
            await until(lambda: len(appender.frames) == 2)
            assert [frame.payload for frame in appender.frames] == [b"whole", b"hal"]
            assert (
                dict(appender.frames[1].headers)["resync"]
                == "the peer ended the connection after 3 bytes of a frame"
            )

    asyncio.run(scene())


def test_a_frame_that_never_ends_and_an_idle_peer_are_dropped() -> None:
    async def scene() -> None:
        source = receiver(frame_timeout=SECOND // 10, idle_timeout=SECOND // 5)
        appender = MemoryAppender()
        async with running(source, appender):
            slow_reader, slow = await connect(source)
            slow.write(b"\x00\x09abc")
            idle_reader, idle = await connect(source)
            for reader in (slow_reader, idle_reader):
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
            assert source.status.refused == 2
            await until(lambda: appender.frames)
            assert (
                dict(appender.frames[0].headers)["resync"]
                == "no end of a frame within 0.1 s after 5 bytes of a frame"
            )
            await until(lambda: source.status.peers == 0)
            slow.close()
            idle.close()

    asyncio.run(scene())


def test_connections_beyond_the_caps_are_refused_and_counted() -> None:
    async def scene() -> None:
        source, appender = receiver(max_connections_per_peer=2), MemoryAppender()
        async with running(source, appender):
            kept = [await connect(source) for _ in range(2)]
            await until(lambda: source.status.peers == 2)
            reader, extra = await connect(source)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
            assert source.status.refused == 1
            kept[0][1].close()
            await until(lambda: source.status.peers == 1)
            _, again = await connect(source)
            await until(lambda: source.status.peers == 2)
            for writer in (again, kept[1][1], extra):
                writer.close()

    asyncio.run(scene())


def test_a_peer_is_not_read_while_the_journal_is_behind() -> None:
    async def scene() -> None:
        source, appender = receiver(), MemoryAppender()
        appender.fill()
        async with running(source, appender):
            _, writer = await connect(source)
            flood = prefixed(*[b"x" * 60_000] * 1000)
            sending = asyncio.create_task(_send(writer, flood))
            await until(lambda: source.status.frames > 10)
            held = -1
            while held != source.status.frames:
                held = source.status.frames
                await asyncio.sleep(0.3)
            assert source.gather.bytes < 3_000_000
            assert not sending.done()
            _, other = await connect(source)  # the others go on
            other.write(prefixed(b"other"))
            await until(lambda: source.status.frames == held + 1)
            appender.drain()
            await sending
            await until(lambda: len(appender.frames) == 1001)
            writer.close()
            other.close()

    async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()
        while writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)

    asyncio.run(scene())


def test_a_stop_acknowledges_nothing_that_is_not_durable() -> None:
    async def scene() -> None:
        source, appender = receiver(acknowledge="06"), MemoryAppender()
        appender.fill()
        async with running(source, appender):
            reader, writer = await connect(source)
            writer.write(prefixed(b"never durable"))
            await until(lambda: source.status.frames == 1)
        assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
        assert appender.frames == []
        writer.close()

    asyncio.run(scene())


def test_a_journal_that_is_gone_ends_the_receiver() -> None:
    async def scene() -> None:
        source = receiver()
        appender = MemoryAppender(failure=JournalError("the journal is gone"))
        task = asyncio.create_task(source.run(appender, asyncio.Event()))
        _, writer = await connect(source)
        writer.write(prefixed(b"x"))
        with pytest.raises(JournalError, match="gone"):
            await asyncio.wait_for(task, LIMIT_S)
        writer.close()

    asyncio.run(scene())


def test_silence_is_noticed_and_ends() -> None:
    async def scene() -> None:
        source, appender = receiver(silent_after=SECOND // 2), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            assert source.status.state == "connected"
            _, writer = await connect(source)
            await until(lambda: source.status.state == "silent")
            writer.write(prefixed(b"x"))
            await until(lambda: source.status.state == "connected")
            writer.close()

    asyncio.run(scene())


def test_an_address_in_use_is_tried_again() -> None:
    async def scene() -> None:
        first, appender = receiver(), MemoryAppender()
        async with running(first, appender):
            await until(lambda: first.port)
            config = TcpConfig(listen=f"127.0.0.1:{first.port}", framing=LengthPrefix())
            second = TcpReceiver("second", config)
            async with running(second, appender):
                await until(lambda: second.status.state == "disconnected")
                assert "cannot listen on 127.0.0.1:" in second.status.detail
                assert second.port == 0

    asyncio.run(scene())


def test_a_configuration_that_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="source line: 'nowhere' is no host:port"):
        TcpReceiver("line", TcpConfig(listen="nowhere", framing=LengthPrefix()))
    with pytest.raises(ConfigError, match="non-hexadecimal"):
        receiver(acknowledge="zz")
