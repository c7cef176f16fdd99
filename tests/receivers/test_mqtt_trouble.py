"""A real broker that hangs, is taken over, or says more than a payload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.source import MqttReceiver
from flows.broker import Broker, start_broker
from operators.spec import SECOND
from tests.ports import free_port
from tests.receivers.brokers import Publisher, need_mosquitto
from tests.receivers.running import running, until
from tests.standing_still import standing_still


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    need_mosquitto()
    one = start_broker(tmp_path / "broker", free_port(), kind="mosquitto")
    yield one
    one.stop()


def receiver(broker: Broker, **keys: Any) -> MqttReceiver:
    config = MqttConfig(host="127.0.0.1", port=broker.address[1], subscribe=["plant/#"], **keys)
    return MqttReceiver("line", config, plant="works")


def test_a_broker_that_hangs_is_noticed_and_waited_for(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker, keep_alive=SECOND), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            device = Publisher(broker)
            device.send([b"before"])
            await until(lambda: len(appender.frames) == 1)
            with standing_still(broker.process.pid):
                await until(lambda: source.status.state == "disconnected")
                assert source.status.detail.endswith("the broker does not answer")
            await until(lambda: source.status.state == "connected")
            device.send([b"after"])
            await until(lambda: len(appender.frames) == 2)
            device.close()
        assert [frame.payload for frame in appender.frames] == [b"before", b"after"]
        kinds = [kind for kind, _ in appender.controls]
        assert kinds[:3] == ["connected", "disconnected", "connected"]

    asyncio.run(scene())


def test_another_client_of_the_same_name_is_suspected(broker: Broker) -> None:
    """Two plants with one client_id take the session from each other in turn: it must not be quiet."""

    async def scene() -> None:
        source = receiver(broker, client_id="twice")
        async with running(source, MemoryAppender()):
            other = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="twice")
            other.reconnect_delay_set(1, 1)
            await until(lambda: source.status.state == "connected")
            await asyncio.to_thread(other.connect, "127.0.0.1", broker.address[1])
            other.loop_start()
            suspicion = " times in a row: does another client call itself twice?"
            await until(lambda: source.status.detail.endswith(suspicion))
            other.disconnect()
            other.loop_stop()
            await until(lambda: source.status.state == "connected")

    asyncio.run(scene())


def test_user_properties_and_the_content_type_are_headers(broker: Broker) -> None:
    async def scene() -> None:
        source, appender = receiver(broker, protocol="5"), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            device = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
            device.connect("127.0.0.1", broker.address[1])
            device.loop_start()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
            properties.ContentType = "application/json"
            reserved = [("resync", "x"), ("Too_Large", "x"), ("penstock-resubmitted", "1.0.0")]
            properties.UserProperty = [("line", "4"), ("Öl", "°C"), *reserved]
            for number in range(3):
                device.publish("plant/a", b"%d" % number, 1, properties=properties)
            device.publish("plant/a", b"plain", 1)
            await until(lambda: len(appender.frames) == 4)
            device.disconnect()
            device.loop_stop()
        headers = (("content-type", "application/json"), ("line", "4"), ("Öl", "°C"))
        assert [sorted(frame.headers) for frame in appender.frames] == [sorted(headers)] * 3 + [[]]

    asyncio.run(scene())


@pytest.mark.parametrize("qos", [0, 1])
def test_the_quality_of_service_is_the_sources(broker: Broker, qos: int) -> None:
    """A device that sends with QoS 1 is heard with QoS 0 where the source asks for no more."""

    async def scene() -> None:
        source, appender = receiver(broker, qos=qos), MemoryAppender()
        async with running(source, appender):
            await until(lambda: source.status.state == "connected")
            device = Publisher(broker)
            device.send([b"%d" % number for number in range(100)])
            await until(lambda: len(appender.frames) == 100)
            device.send([b"while away"])
            await asyncio.to_thread(device.wait)
            device.close()
            await until(lambda: len(appender.frames) == 101)
        assert source.status.frames == 101
        # acknowledged or not asked for: nothing is left to be sent again
        again, later = receiver(broker, qos=qos), MemoryAppender()
        async with running(again, later):
            await until(lambda: again.status.state == "connected")
            await asyncio.sleep(0.3)
        assert later.frames == []

    asyncio.run(scene())


class Terms:
    """Speaks just enough MQTT 5, on terms of its own, and ends the connection with words of its own."""

    def __init__(self) -> None:
        self.pings = self.connections = 0
        self.farewell = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind == 0x10 and self.connections > 1:
                    words = b"\x1f\x00\x05later\x1c\x00\x0aother:1883"
                    writer.write(bytes([0x20, 3 + len(words), 0, 0x9C, len(words)]) + words)
                elif kind == 0x10:  # server keep alive 1 s, session expiry 5 s
                    writer.write(b"\x20\x0b\x00\x00\x08\x13\x00\x01\x11\x00\x00\x00\x05")
                elif kind == 0x82:
                    writer.write(b"\x90\x04" + body[:2] + b"\x00\x00")
                elif kind == 0xC0:
                    self.pings += 1
                    writer.write(b"\xd0\x00")
                    if self.pings == 2:
                        await self.farewell.wait()
                        writer.write(b"\xe0\x11\x8b\x0f\x1f\x00\x0cat\x1b the door")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def test_what_a_broker_of_protocol_5_sets_and_says(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        broker = Terms()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, subscribe=["plant/#"], protocol="5")
        source = MqttReceiver("line", config, plant="works")
        async with running(source, MemoryAppender()):
            await until(lambda: broker.pings == 2)  # by its keep-alive; ours is 30 s
            assert source.status.detail == (
                f"127.0.0.1:{port} refuses the subscription plant/# with QoS 1: it grants 0 alone"
            )
            broker.farewell.set()
            ended = f"127.0.0.1:{port}: the broker ended the connection: Server shutting down (at? the door)"
            await until(lambda: ended in caplog.text)
            refused = f"127.0.0.1:{port}: the broker refuses us: Use another server (later, other:1883)"
            await until(lambda: source.status.detail == refused)
        assert "keeps our session for 5 s while we are away, not for 604800" in caplog.text
        server.close()

    asyncio.run(scene())
