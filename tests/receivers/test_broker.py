"""The broker of the demo: mosquitto where it is found, else the embedded one, both with sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from connectors.errors import ConnectError
from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.source import MqttReceiver
from flows import broker as broker_module
from flows.broker import BrokerKind, start_broker
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.receivers.running import running, until


async def connected(source: MqttReceiver) -> None:
    await until(lambda: source.status.state == "connected")


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_messages_wait_for_a_receiver_that_is_away(tmp_path: Path, kind: BrokerKind) -> None:
    if kind == "mosquitto":
        need_mosquitto()
    one = start_broker(tmp_path / "broker", free_port(), kind=kind)

    async def scene() -> None:
        config = MqttConfig(host=one.address[0], port=one.address[1], subscribe=["plant/#"])
        appender = MemoryAppender()
        first = MqttReceiver("line", config, plant="works")
        async with running(first, appender):
            await connected(first)
        device = Publisher(one, "device")
        device.send([b"%d" % number for number in range(20)])
        await asyncio.to_thread(device.wait)
        device.close()
        assert appender.frames == []
        second = MqttReceiver("line", config, plant="works")
        async with running(second, appender):
            await until(lambda: len(appender.frames) >= 20)
        assert sorted(frame.payload for frame in appender.frames) == sorted(b"%d" % n for n in range(20))

    try:
        asyncio.run(scene())
    finally:
        one.stop()


def test_the_embedded_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    one = start_broker(tmp_path / "broker")
    one.stop()
    assert one.kind == "amqtt"
    with pytest.raises(ConnectError, match="mosquitto is not installed"):
        start_broker(tmp_path / "broker", free_port(), kind="mosquitto")


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    need_mosquitto()
    one = start_broker(tmp_path / "one", free_port(), kind="mosquitto")
    try:
        with pytest.raises(ConnectError, match=r"port \d+ of 127\.0\.0\.1 is in use; choose another"):
            start_broker(tmp_path / "two", one.address[1], "mosquitto")
    finally:
        one.stop()
