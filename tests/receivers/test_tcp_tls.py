"""The TCP receiver with TLS, many connections, and peers that go wrong on the way (a proxy between)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConfigError
from connectors.fakes import MemoryAppender
from connectors.tcp.config import LengthPrefix, ModbusTcp, TcpConfig
from connectors.tcp.source import TcpReceiver, allow_files
from operators.spec import MILLISECOND
from tests.receivers.certificates import Authority
from tests.receivers.proxy import Proxy
from tests.receivers.running import running, until
from tests.receivers.test_synchronising import adu
from tests.waiting import LIMIT_S


def receiver(folder: Path = Path(), **keys: Any) -> TcpReceiver:
    keys.setdefault("framing", LengthPrefix())
    return TcpReceiver("line", TcpConfig(listen="127.0.0.1:0", **keys), folder)


def prefixed(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(2, "big") + payload for payload in payloads)


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    ours.issue("server")
    ours.issue("device")
    theirs.issue("stranger")

    async def scene() -> None:
        source = receiver(
            tmp_path,
            tls=True,
            cert_file="server.pem",
            key_file="server.key",
            ca_file="ours.pem",
            acknowledge="06",
        )
        appender = MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", source.port, ssl=ours.client("device")
            )
            writer.write(prefixed(b"one", b"x" * 60_000))
            assert await asyncio.wait_for(reader.readexactly(2), LIMIT_S) == b"\x06\x06"
            writer.close()
            for context in (ours.client(None), ours.client("stranger"), theirs.client("stranger"), None):
                with contextlib.suppress(ssl.SSLError, OSError):
                    reader, other = await asyncio.open_connection("127.0.0.1", source.port, ssl=context)
                    other.write(prefixed(b"never"))
                    await asyncio.wait_for(reader.read(), LIMIT_S)  # until the server ends it
                    other.close()
            await until(lambda: source.status.peers == 0)
            assert [len(frame.payload) for frame in appender.frames] == [3, 60_000]

    asyncio.run(scene())


def test_tls_files_that_are_none(tmp_path: Path) -> None:
    source = receiver(tmp_path, tls=True, cert_file="no.pem", key_file="no.key")
    with pytest.raises(ConfigError, match=r"cert_file: .*no\.pem: No such file or directory"):
        asyncio.run(source.run(MemoryAppender(), asyncio.Event()))


def test_the_unit_of_modbus_is_the_port() -> None:
    async def scene() -> None:
        source, appender = receiver(framing=ModbusTcp()), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            _, writer = await asyncio.open_connection("127.0.0.1", source.port)
            writer.write(adu(1, b"\x03\x02\x00\x07") + b"\xff" + adu(9, b"\x83\x02"))
            await until(lambda: len(appender.frames) == 3)
            assert [(frame.port, frame.payload) for frame in appender.frames] == [
                (1, b"\x03\x02\x00\x07"),
                (-1, b"\xff"),
                (9, b"\x83\x02"),
            ]
            assert dict(appender.frames[1].headers)["resync"] == "no Modbus TCP header"
            writer.close()

    asyncio.run(scene())


def test_a_proxy_that_delays_drips_cuts_and_half_opens() -> None:
    async def scene() -> None:
        source = receiver(acknowledge="06", idle_timeout=400 * MILLISECOND, frame_timeout=300 * MILLISECOND)
        appender = MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.port)
            async with Proxy(source.port) as proxy:
                stream = prefixed(*[b"frame %03d" % number for number in range(20)])
                proxy.delay_s, proxy.piece = 0.0005, 3  # drips
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(stream)
                assert await asyncio.wait_for(reader.readexactly(20), LIMIT_S) == b"\x06" * 20
                proxy.cut_after = 15  # in the second frame
                reader, cut = await asyncio.open_connection("127.0.0.1", proxy.port)
                cut.write(stream)
                await until(lambda: len(appender.frames) == 22)
                assert appender.frames[20].payload == b"frame 000"
                assert dict(appender.frames[21].headers)["resync"].endswith("after 4 bytes of a frame")
                proxy.cut_after = None
                reader, half = await asyncio.open_connection("127.0.0.1", proxy.port)
                half.write(prefixed(b"last words"))
                await asyncio.wait_for(reader.readexactly(1), LIMIT_S)
                proxy.half_open()  # nothing more passes in either direction, and nobody is told
                half.write(prefixed(b"never heard"))
                await until(lambda: source.status.peers == 0)
                assert appender.frames[22].payload == b"last words"
                assert len(appender.frames) == 23
                for one in (writer, cut, half):
                    one.close()

    asyncio.run(scene())


def test_the_soft_limit_of_open_files_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        allow_files(500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500, before[1])
        allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (500, before[1])
        if before[1] != resource.RLIM_INFINITY:
            allow_files(before[1] + 1)
            assert f"the limit of open files is {before[1]}" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
