"""TLS with a wrong certificate is refused, by sources that connect and by sources that listen."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.fakes import MemoryAppender
from connectors.http.config import HttpConfig
from connectors.mqtt.config import MqttConfig
from connectors.source import Receiver
from connectors.tcp.config import LengthPrefix, TcpConfig
from flows.broker import start_broker
from flows.plant_file import SourceConfig
from flows.receiver import SourceFile, build_receiver
from tests.conformance.subject_kafka import KafkaSubject, shared_broker
from tests.ports import free_port
from tests.receivers.brokers import need_mosquitto
from tests.receivers.certificates import Authority
from tests.receivers.running import running, until
from tests.waiting import LIMIT_S

Ended = Callable[[], None]


def mqtt(folder: Path) -> tuple[SourceConfig, dict[str, dict[str, Any]], Ended]:
    need_mosquitto()
    ours, _ = Authority(folder, "ours"), Authority(folder, "theirs")
    ours.issue("server")
    port = free_port()
    pair = f"cafile {folder}/ours.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    broker = start_broker(
        folder / "broker",
        free_port(),
        kind="mosquitto",
        settings=f"listener {port} 127.0.0.1\nallow_anonymous true\n{pair}",
    )
    config = MqttConfig(
        host="127.0.0.1", port=port, subscribe=["a/#"], tls=True, ca_file=str(folder / "ours.pem")
    )
    wrong = {
        "another authority": {"ca_file": str(folder / "theirs.pem")},
        "another name": {"host": "localhost"},  # the certificate is for 127.0.0.1
    }
    return config, wrong, broker.stop


def kafka(folder: Path) -> tuple[SourceConfig, dict[str, dict[str, Any]], Ended]:
    subject = KafkaSubject(folder)
    certificates = shared_broker().certificates
    assert certificates is not None
    return subject.config, {"another authority": {"ca_file": str(certificates.other_ca)}}, subject.close


@pytest.mark.parametrize("kind", [mqtt, kafka])
def test_a_source_refuses_a_server(kind: Any, tmp_path: Path) -> None:
    """It says why, and connects once all is right."""
    config, wrong, ended = kind(tmp_path)

    async def scene() -> None:
        for changed in wrong.values():
            source, appender = built(msgspec.structs.replace(config, **changed), tmp_path), MemoryAppender()
            async with running(source, appender):
                await until(partial(refused, source))
                assert source.status.state == "disconnected"
                assert ("connected", {"source": "line"}) not in appender.controls
        source = built(config, tmp_path)
        async with running(source, MemoryAppender()):
            await until(lambda: source.status.state in ("connected", "silent"))

    try:
        asyncio.run(scene())
    finally:
        ended()


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_source_refuses_a_client(kind: str, tmp_path: Path) -> None:
    """One with a certificate of another authority, with none, or without TLS; and a client that trusts
    another authority refuses the source."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    ours.issue("server")
    ours.issue("device")
    theirs.issue("stranger")
    files: dict[str, Any] = {
        "tls": True,
        "cert_file": "server.pem",
        "key_file": "server.key",
        "ca_file": "ours.pem",
    }
    listen = f"127.0.0.1:{free_port()}"
    config: SourceConfig = HttpConfig(listen=listen, **files)
    said = b"POST /ingest/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst"
    if kind == "tcp":
        config = TcpConfig(listen=listen, framing=LengthPrefix(), acknowledge="06", **files)
        said = b"\x00\x05first"

    async def told(context: ssl.SSLContext | None) -> bytes:
        """What the source answers; nothing where it ends the connection."""
        host, _, port = listen.partition(":")
        with suppress(OSError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            try:
                writer.write(said)
                return await asyncio.wait_for(reader.read(1000), LIMIT_S)
            finally:
                writer.close()
        return b""

    async def scene() -> None:
        source, appender = built(config, tmp_path), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state in ("connected", "silent"))
            for context in (ours.client(None), ours.client("stranger"), theirs.client("stranger"), None):
                answer = await told(context)
                assert b"\x06" not in answer
                assert b"200" not in answer
            assert appender.frames == []
            assert await told(ours.client("device"))
            await until(lambda: [frame.payload for frame in appender.frames] == [b"first"])

    asyncio.run(scene())


def refused(source: Receiver) -> bool:
    return "certificate" in source.status.detail


def built(config: SourceConfig, folder: Path) -> Receiver:
    source = SourceFile(plant="works", source="line", config=config, folder=str(folder))
    return build_receiver(source, folder / "data")
