"""What a receiver had journaled when it was killed, acknowledged or not, and the broker sends again: data
are no second entry, births and deaths are read again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig, SparkplugConfig
from connectors.mqtt.source import MqttReceiver
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import Payload
from tests.receivers.running import running, until
from tests.receivers.test_mqtt_publishes import Broker, publish
from tests.receivers.test_mqtt_unacknowledged import Killed
from tests.reference import typed_frames
from tests.sparkplug.edge import EdgeNode

T = 1_780_000_000_000
PRESS = {"tempC": ("Double", None), "rpm": ("Int16", None)}


def packets(messages: list[tuple[str, bytes]], first: int = 1, dup: bool = False) -> bytes:
    """With QoS 1 under packet ids from `first` on."""
    return b"".join(
        publish((topic, payload, 1, False, mid, [], None, None), False, dup)
        for mid, (topic, payload) in enumerate(messages, first)
    )


def told(appender: MemoryAppender) -> list[tuple[str, list[float | None]]]:
    """The kind of each frame, and its values."""
    return [
        (frame.topic.split("/")[2], [value for _, value, *_ in typed_frames.read(frame.payload)])
        for frame in appender.frames
    ]


def test_data_are_no_second_entry_and_births_and_deaths_are_read_again(tmp_path: Path) -> None:
    node = EdgeNode("works", "edge1", {}, {"press": PRESS})
    node.session()
    births = node.births(T)
    data = [node.data("press", {"tempC": float(number)}, T + number) for number in range(1, 4)]
    backlog = node.data("press", {"tempC": 9.0}, T - 9000, historical=True)
    death = node.death()
    later = node.data("press", {"rpm": 4}, T + 4)

    async def scene() -> None:
        broker = Broker()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, sparkplug=SparkplugConfig(rebirth=False))
        killed = Killed()
        first = MqttReceiver("line", config, plant="works", data=tmp_path)
        task = asyncio.create_task(first.run(killed, asyncio.Event()))
        await until(lambda: first.status.state == "connected")
        messages = [*births, *data, backlog, death]
        broker.connections[0].write(packets(messages))
        await until(lambda: len(killed.frames) == 6)
        task.cancel()
        await asyncio.wait({task})
        broker.connections[0].transport.abort()
        assert broker.acknowledged == []
        assert [kind for kind, _ in told(killed)] == ["DBIRTH", "DDATA", "DDATA", "DDATA", "DDATA", "NDEATH"]

        after = MemoryAppender(numbers=dict(killed.numbers))
        second = MqttReceiver("line", config, plant="works", data=tmp_path)
        async with running(second, after):
            await until(lambda: len(broker.connections) == 2 and second.status.state == "connected")
            broker.connections[1].write(packets(messages, dup=True) + packets([later], len(messages) + 1))
            await until(lambda: len(broker.acknowledged) == len(messages) + 1)
        assert told(after) == [
            ("DBIRTH", [None, None]),
            ("NDEATH", [None, None]),  # the node died, whatever came of it before
            ("DDATA", [4.0]),
        ]
        server.close()

    asyncio.run(scene())


def test_data_are_no_second_entry_although_the_broker_read_no_acknowledgement(tmp_path: Path) -> None:
    """Over lost connections and kills in turn; what has no time of its own may be another message."""
    node = EdgeNode("works", "edge1", {}, {"press": PRESS})
    node.session()
    births = node.births(T)
    data = [node.data("press", {"tempC": float(number)}, T + number) for number in range(1, 4)]
    topic, payload = node.data("press", {"rpm": 7}, T)
    timeless = Payload.FromString(payload)
    timeless.ClearField("timestamp")
    messages = [*births, *data, (topic, timeless.SerializeToString())]

    async def scene() -> None:
        broker, appender = Broker(), MemoryAppender()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, sparkplug=SparkplugConfig(rebirth=False))

        async def send(source: MqttReceiver, connections: int) -> None:
            await until(lambda: len(broker.connections) == connections)
            await until(lambda: source.status.state == "connected")  # it was not when this one began
            broker.connections[-1].write(packets(messages, dup=connections > 1))
            await until(lambda: len(broker.acknowledged) == len(messages) * connections)

        for run in range(3):
            source = MqttReceiver("line", config, plant="works", data=tmp_path)
            task = asyncio.create_task(source.run(appender, asyncio.Event()))
            await send(source, 2 * run + 1)
            broker.connections[-1].transport.abort()
            await send(source, 2 * run + 2)
            task.cancel()
            await asyncio.wait({task})
        assert [values for kind, values in told(appender) if kind == "DDATA"] == [
            [1.0],
            [2.0],
            [3.0],
            *[[7.0]] * 6,
        ]
        server.close()

    asyncio.run(scene())
